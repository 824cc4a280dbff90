"""Nano on this CPU -> JSON: tokens a second, time to the first token, memory, and the cold start of `ming ask`.

    python -m benchmarks.decode
    python -m benchmarks.decode --versus llama.cpp --gguf SmolLM2-135M-Instruct.Q4_1.gguf --llama-python PYTHON

The second also times llama.cpp on the file that nano's base was made from, taking turns with ours so that both meet
the same machine; PYTHON is an interpreter that has the package llama-cpp-python (it is no requirement of ours).
Every figure is the best of a few rounds: other programs can only make a round slower.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `ming` does

import torch

from ming_omni.engine.request import Request, read_prompt
from ming_omni.ming import Ming

DECODED = 100
"""Tokens timed after the prompt."""
LLAMA = """
import json, sys, time
from llama_cpp import Llama
path, threads, decoded, lengths = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
llama = Llama(path, n_ctx=4096, n_threads=threads, n_threads_batch=threads, verbose=False)
first = {}
for length in lengths:
    llama.reset()
    start = time.perf_counter()
    llama.eval([1000 + i % 20000 for i in range(length)])
    first[length] = time.perf_counter() - start
llama.reset()
llama.eval([1000 + i for i in range(lengths[0])])
start = time.perf_counter()
for i in range(decoded):
    llama.eval([2000 + i])
print(json.dumps({"tokens_per_second": decoded / (time.perf_counter() - start), "first_token_seconds": first}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versus", choices=["llama.cpp"])
    parser.add_argument("--gguf", type=Path, help="the file that nano's base was made from")
    parser.add_argument("--llama-python", default=sys.executable, help="an interpreter with llama-cpp-python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, nargs="+", default=[200, 2000], help="lengths in tokens")
    options = parser.parse_args()
    if options.versus and options.gguf is None:
        parser.error("--versus llama.cpp needs --gguf")

    cold = [cold_start() for _ in range(options.rounds)]
    ming = Ming.load("nano")
    ours, theirs = [], []
    for _ in range(options.rounds):
        ours.append(time_ming(ming, options.prompts))
        if options.versus:
            for threads in sorted({1, os.cpu_count()}):
                theirs.append(time_llama(options, threads))
    report = {
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg()[0], "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        **best(ours),
        "cold_start_seconds": round(min(seconds for seconds, _ in cold), 2),
        "memory_megabytes": {"ask": round(max(memory for _, memory in cold)), "after_longest_prompt": peak_memory()},
        "where_a_token_goes_milliseconds": breakdown(ming),
    }
    if options.versus:
        report["llama.cpp"] = best(theirs)
        report["times_llama.cpp"] = round(report["tokens_per_second"] / report["llama.cpp"]["tokens_per_second"], 2)
    print(json.dumps(report, indent=2))


def time_ming(ming: Ming, lengths: list[int]) -> dict:
    """Through the engine, as chat and server use it; every prompt is new to its cache."""
    first = {}
    for length in lengths:
        start = time.perf_counter()
        stream = iter(submit(ming, length, 1))
        next(stream)
        first[length] = time.perf_counter() - start
    stream = iter(submit(ming, lengths[0], DECODED + 1))
    next(stream)
    start = time.perf_counter()
    count = sum(1 for _ in stream)
    return {"tokens_per_second": count / (time.perf_counter() - start), "first_token_seconds": first}


def submit(ming: Ming, length: int, max_tokens: int):
    """A greedy answer to `length` random tokens that no stop token ends."""
    ids = torch.randint(1000, 20_000, (1, length))
    prompt = read_prompt(ming.model, {"input_ids": ids})
    return ming.engine.submit(Request(prompt, ming.sampling, max_tokens))


def time_llama(options: argparse.Namespace, threads: int) -> dict:
    arguments = [str(options.gguf), str(threads), str(DECODED), json.dumps(options.prompts)]
    done = subprocess.run([options.llama_python, "-c", LLAMA, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"llama.cpp did not run: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def cold_start() -> tuple[float, float]:
    """Seconds and megabytes of a whole `ming ask`, from the shell and back."""
    command = [sys.executable, "-m", "ming_omni.cli", "ask", "What is the capital of France?", "--max-tokens", "8"]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


def best(rounds: list[dict]) -> dict:
    lengths = rounds[0]["first_token_seconds"]
    return {
        "tokens_per_second": round(max(r["tokens_per_second"] for r in rounds), 1),
        "first_token_seconds": {n: round(min(r["first_token_seconds"][n] for r in rounds), 3) for n in lengths},
    }


@torch.no_grad()
def breakdown(ming: Ming) -> dict:
    """One token after 200, without the engine: all layers, the products with packed weights among them, the logits."""
    thinker = ming.model.thinker
    kept = thinker.new_cache()
    ids = torch.randint(1000, 20_000, (1, 201))
    embeddings, places = thinker.embed(ids), torch.arange(201).expand(3, 1, -1)
    thinker(embeddings[:, :200], places[:, :, :200], cache=kept)
    lengths = dict(kept.lengths)

    def layers():
        kept.lengths = dict(lengths)
        return thinker(embeddings[:, 200:], places[:, :, 200:], cache=kept).hidden

    hidden = layers()
    parts = [(b.attention.qkv, b.attention.out, b.mlp.gate_up, b.mlp.down) for b in thinker.blocks]
    matrices = [matrix for block in parts for matrix in block]
    inputs = {m.shape[-1]: torch.randn(1, m.shape[-1]).bfloat16() for m in matrices}
    times = {
        "layers": milliseconds(layers),
        "of_these_products": milliseconds(lambda: [matrix(inputs[matrix.shape[-1]]) for matrix in matrices]),
        "logits": milliseconds(lambda: thinker.logits(hidden)),
    }
    return {name: round(value, 2) for name, value in times.items()}


def milliseconds(work, repeats: int = 30) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds) * 1000


def peak_memory() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
