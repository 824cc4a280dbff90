"""benchmarks/paint.py runs at tiny size on a CPU, and its sweep supports the threshold that `segment` uses."""

import json
import sys

from benchmarks import paint
from ming_omni.paint.segment import THRESHOLD


def test_every_part_and_picture_is_timed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["paint", "--steps", "2", "--rounds", "1", "--size", "32x48"])
    paint.main()
    figures = {}
    for line in capsys.readouterr().out.splitlines():
        figures |= json.loads(line)
    times = ("condition_ms", "encode_ms", "step_ms", "decode_ms", "picture_seconds", "edit_seconds")
    assert all(figures[name] > 0 for name in times)
    assert figures["tiny_against_cpu"] < 1e-3 or figures["device"] != "cpu"


def test_the_threshold_is_within_two_points_of_the_best_swept():
    overlaps = paint.sweep()
    assert overlaps[str(THRESHOLD)] >= max(overlaps.values()) - 0.02
