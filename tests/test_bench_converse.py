"""The benchmark of conversations talks to the tiny model, and says what it promises."""

import asyncio
import os

from benchmarks.converse import converse, summary
from tests.serving import serving, tiny_ming


def test_the_benchmark_times_each_turn_and_counts_what_it_computes(capsys):
    with serving(tiny_ming()) as served:
        port = int(served.url.rpartition(":")[2])
        turns = asyncio.run(converse(port, os.getpid(), "tiny", num_turns=3, max_tokens=8))
    assert [turn["turn"] for turn in turns] == [0, 1, 2]
    assert all(0.4 < turn["first_text_s"] < turn["first_sound_s"] for turn in turns)  # the silence counts
    assert turns[2]["prompt_tokens"] > turns[1]["prompt_tokens"] + 30 > turns[2]["computed_tokens"] + 30
    told = summary("tiny", turns)
    assert told["hears_and_speaks"] and told["most_computed_tokens"] < told["most_prompt_tokens"]
    assert capsys.readouterr().out.count("first_sound_s") == 3
