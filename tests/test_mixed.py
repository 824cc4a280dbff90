"""The mixed load in a short form; `python -m benchmarks.mixed` is the long one."""

import pytest

from benchmarks.mixed import KINDS, fairness, mixed


def test_the_index_is_one_for_equals_and_a_fifth_where_one_bears_all():
    assert fairness([2.0] * 5) == pytest.approx(1.0)
    assert fairness([0, 0, 7.0, 0, 0]) == pytest.approx(0.2)


@pytest.mark.slow
def test_everybody_is_served_beside_everybody_else():
    report = mixed("tiny", alone_seconds=0.5, mixed_seconds=20)
    assert report["kinds"].keys() == KINDS.keys()
    for kind, figures in report["kinds"].items():
        assert figures["mixed"]["count"] >= 1 and figures["mixed"]["p99_s"] < 20, kind
    assert 0.2 <= report["fairness"] <= 1
