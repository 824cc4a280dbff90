"""Every fast version of a kernel equals the plain one, in values and gradients, for any routing."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from ming_omni import kernels
from ming_omni.kernels import grouped, reference


def fast_kernels():
    return pytest.mark.parametrize("fast", kernels.available(), ids=lambda kernel: kernel.__name__.rsplit(".")[-1])


def make(num_tokens, num_experts, num_chosen, width=24, inner=16, dtype=torch.float32, seed=0):
    """Inputs of `expert_mlp`, all but the choice requiring gradients."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(num_tokens, width, generator=g)
    chosen = torch.rand(num_tokens, num_experts, generator=g).topk(num_chosen).indices
    weights = torch.rand(num_tokens, num_chosen, generator=g)
    gate, up = (torch.randn(num_experts, inner, width, generator=g) / 5 for _ in range(2))
    down = torch.randn(num_experts, width, inner, generator=g) / 4
    x, gate, up, down = (t.to(dtype) for t in (x, gate, up, down))
    for tensor in (x, weights, gate, up, down):
        tensor.requires_grad_()
    return x, weights, chosen, gate, up, down


def run(kernel, inputs):
    """Output and gradients of its weighted sum, so that every element counts differently."""
    with kernels.use(kernel):
        out = kernels.expert_mlp(*inputs)
    probe = torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype)
    learned = [t for t in inputs if t.requires_grad]
    return out, torch.autograd.grad((out * probe).sum(), learned, allow_unused=True, materialize_grads=True)


@fast_kernels()
@pytest.mark.parametrize(
    "num_tokens, num_experts, num_chosen",
    [(1, 4, 2), (2, 3, 1), (7, 16, 4), (3, 64, 2), (40, 4, 4), (130, 5, 2), (0, 4, 2)],
)
def test_fast_experts_match_reference(fast, num_tokens, num_experts, num_chosen):
    inputs = make(num_tokens, num_experts, num_chosen)
    expected, expected_grads = run(reference, inputs)
    out, grads = run(fast, inputs)
    assert out.shape == (num_tokens, 24)
    assert_close(out, expected)
    assert_close(grads, expected_grads, atol=2e-5, rtol=1e-4)


@fast_kernels()
@pytest.mark.parametrize("width, inner", [(8, 6), (10, 8), (7, 5), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fast_experts_take_any_width(fast, width, inner, dtype):
    """torch's grouped product wants rows of whole 16 bytes; a checkpoint may have others."""
    inputs = make(20, 4, 2, width, inner, dtype)
    expected, expected_grads = run(reference, inputs)
    out, grads = run(fast, inputs)
    assert_close(out, expected)
    assert_close(grads, expected_grads, atol=2e-5, rtol=1e-4)


def test_reference_is_the_formula():
    x, weights, chosen, gate, up, down = make(3, 4, 2)
    expected = torch.zeros_like(x)
    for t in range(3):
        for a in range(2):
            e = chosen[t, a]
            expected[t] += weights[t, a] * (down[e] @ (torch.nn.functional.silu(gate[e] @ x[t]) * (up[e] @ x[t])))
    assert_close(reference.expert_mlp(x, weights, chosen, gate, up, down), expected)


@fast_kernels()
def test_an_expert_that_nobody_chose_gets_no_gradient(fast):
    x, weights, _, gate, up, down = make(20, 6, 2)
    chosen = torch.tensor([[1, 4]]).expand(20, 2)
    _, grads = run(fast, (x, weights, chosen, gate, up, down))
    for grad in grads[2:]:
        assert (grad[[0, 2, 3, 5]] == 0).all()
        assert (grad[[1, 4]] != 0).any(-1).any(-1).all()


@fast_kernels()
@settings(max_examples=20, deadline=None)
@given(
    num_tokens=st.integers(0, 70),
    num_experts=st.integers(1, 9),
    data=st.data(),
)
def test_fast_experts_match_reference_for_any_routing(fast, num_tokens, num_experts, data):
    num_chosen = data.draw(st.integers(1, num_experts))
    seed = data.draw(st.integers(0, 1000))
    x, weights, chosen, gate, up, down = make(num_tokens, num_experts, num_chosen, 8, 8, seed=seed)
    if data.draw(st.booleans(), label="the same expert twice"):
        chosen = torch.zeros_like(chosen)
    inputs = (x, weights, chosen, gate, up, down)
    expected, expected_grads = run(reference, inputs)
    out, grads = run(fast, inputs)
    assert_close(out, expected)
    assert_close(grads, expected_grads, atol=2e-5, rtol=1e-4)


@fast_kernels()
def test_bf16_stays_near_fp32(fast):
    exact = run(reference, make(50, 8, 2))
    out, grads = run(fast, make(50, 8, 2, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert_close(out.float(), exact[0], atol=0.02, rtol=0.02)
    for grad, expected in zip(grads, exact[1], strict=True):
        assert (grad.float() - expected).norm() < 0.02 * expected.norm()


def test_expert_outputs_are_weighted_and_summed_in_fp32():
    """1 + 2^-9 is lost when each product is rounded to bf16 first."""
    x = torch.ones(1, 8, dtype=torch.bfloat16)
    gate = up = torch.eye(8, dtype=torch.bfloat16).expand(2, 8, 8)
    down = torch.eye(8, dtype=torch.bfloat16).expand(2, 8, 8)
    value = torch.nn.functional.silu(x[0, 0]).float()
    weights = torch.tensor([[1.0, 2**-9]])
    for kernel in (reference, *kernels.available()):
        out = kernel.expert_mlp(x, weights, torch.tensor([[0, 1]]), gate, up, down)
        assert_close(out[0, 0], (value * weights.sum()).to(torch.bfloat16), atol=0, rtol=0)


@pytest.mark.parametrize("num_rows, num_groups", [(0, 3), (1, 3), (33, 3), (300, 2), (700, 1)])
def test_blocks_equal_the_native_grouped_product(num_rows, num_groups):
    torch.manual_seed(0)
    ids = torch.randint(num_groups, (num_rows,)).sort().values
    if num_groups == 3:
        ids = ids.where(ids != 1, 2)  # a group without rows
    ends = torch.searchsorted(ids, torch.arange(num_groups), right=True, out_int32=True)
    rows, weight = torch.randn(num_rows, 12, requires_grad=True), torch.randn(num_groups, 20, 12, requires_grad=True)
    expected = torch.cat([rows[ids == g] @ weight[g].T for g in range(num_groups)])
    for product in (grouped._blocks, grouped._product):
        out = product(rows, weight, ends)
        assert_close(out, expected, atol=1e-5, rtol=1e-5)
        probe = torch.randn_like(out)
        grads = torch.autograd.grad((out * probe).sum(), (rows, weight))
        expected_grads = torch.autograd.grad((expected * probe).sum(), (rows, weight), retain_graph=True)
        assert_close(grads, expected_grads, atol=1e-4, rtol=1e-4)


def test_grouped_takes_a_broadcast_gradient():
    """A plain sum sends back a tensor without strides, which torch's grouped product refuses."""
    for dtype in (torch.float32, torch.bfloat16):
        inputs = make(20, 4, 2, dtype=dtype)
        grads = torch.autograd.grad(grouped.expert_mlp(*inputs).sum(), inputs[0])
        expected = torch.autograd.grad(reference.expert_mlp(*inputs).sum(), inputs[0])
        assert_close(grads, expected, atol=1e-5 if dtype == torch.float32 else 0.1, rtol=0.01)
        x, weight = inputs[0], inputs[3]
        grads = torch.autograd.grad(grouped.pick_linear(x, weight, inputs[2][:, 0]).sum(), x)
        expected = torch.autograd.grad(reference.pick_linear(x, weight, inputs[2][:, 0]).sum(), x)
        assert_close(grads, expected, atol=1e-5 if dtype == torch.float32 else 0.1, rtol=0.01)


class Operations(TorchDispatchMode):
    """Names of the operations that ran."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **kwargs or {})


def test_gradients_of_grouped_rows_are_gathered_not_scattered():
    """Scattered sums of whole rows are a GPU's slowest way to move them."""
    inputs = make(20, 4, 2, dtype=torch.bfloat16)
    out = grouped.expert_mlp(*inputs).sum()
    with Operations() as ran:
        torch.autograd.grad(out, [t for t in inputs if t.requires_grad])
    assert "index.Tensor" in ran.names
    assert not [name for name in ran.names if name.startswith(("index_put", "index_add", "_index_put", "scatter_add"))]


@pytest.mark.parametrize("backend", ["aot_eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_compiles_to_one_graph_whatever_the_routing(backend, dtype):
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    compiled = torch.compile(kernels.expert_mlp, backend=counting, fullgraph=True)
    for seed in range(3):
        inputs = make(20, 6, 2, dtype=dtype, seed=seed)
        expected, expected_grads = run(grouped, inputs)
        out = compiled(*inputs)
        probe = torch.linspace(-1, 1, out.numel()).view_as(out).to(dtype)
        grads = torch.autograd.grad((out * probe).sum(), [t for t in inputs if t.requires_grad])
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        assert_close(out, expected, atol=tolerance, rtol=tolerance)
        assert_close(grads, expected_grads, atol=10 * tolerance, rtol=tolerance)
    assert len(graphs) == 1


@fast_kernels()
@pytest.mark.parametrize("num_rows", [0, 1, 5, 100])
def test_fast_linear_matches_reference(fast, num_rows):
    torch.manual_seed(0)
    x, weight = torch.randn(num_rows, 12, requires_grad=True), torch.randn(3, 16, 12, requires_grad=True)
    pick = torch.randint(3, (num_rows,))
    expected, out = reference.pick_linear(x, weight, pick), fast.pick_linear(x, weight, pick)
    assert out.shape == (num_rows, 16)
    assert_close(out, expected, atol=1e-5, rtol=1e-5)
    probe = torch.randn(num_rows, 16)
    assert_close(
        torch.autograd.grad((out * probe).sum(), (x, weight), allow_unused=True, materialize_grads=True),
        torch.autograd.grad((expected * probe).sum(), (x, weight), allow_unused=True, materialize_grads=True),
        atol=1e-5,
        rtol=1e-5,
    )


def test_autocast_reaches_the_experts():
    inputs = make(30, 4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels.expert_mlp(*inputs).dtype == torch.bfloat16


def test_a_forced_kernel_is_forced_only_inside_its_block_and_thread():
    ran = []

    class Spy:
        @staticmethod
        def expert_mlp(x, *rest):
            ran.append(threading.current_thread().name)
            return x

    inputs = make(2, 4, 2)
    with kernels.use(Spy):
        kernels.expert_mlp(*inputs)
        other = threading.Thread(target=lambda: kernels.expert_mlp(*inputs))
        other.start()
        other.join()
    kernels.expert_mlp(*inputs)
    assert ran == [threading.current_thread().name]
