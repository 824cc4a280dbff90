from collections import Counter

import numpy as np
import pytest

from ming_omni.engine.pages import Pages
from ming_omni.engine.request import Busy, Prompt, Request, Sequence
from ming_omni.engine.scheduler import Rotation, Scheduler


def sequence(length: int, user: str = "", first_id: int = 0) -> Sequence:
    ids = np.arange(first_id, first_id + length)
    return Sequence(Request(Prompt(ids.tolist(), np.stack([ids] * 3), 0, np.zeros_like(ids), ids), user=user))


def scheduler(num_pages: int = 64, **options) -> Scheduler:
    options = {"step_tokens": 32, "shared_step_tokens": 8, "max_running": 8, "max_waiting": 100} | options
    return Scheduler(Pages(num_pages, 4), **options)


def run(scheduler: Scheduler) -> Counter[Sequence]:
    """One step as the engine makes it, with token 1 for everyone; returns the rows each request got."""
    spans = scheduler.plan()
    for span in spans:
        is_last = span.is_last
        scheduler.advance(span)
        if is_last:
            span.sequence.ids.append(1)
    return Counter({span.sequence: span.num_rows for span in spans})


def test_users_take_turns_and_a_user_is_served_in_order():
    line = Rotation()
    a, b, c = sequence(1, "greedy"), sequence(1, "greedy"), sequence(1, "other")
    for one in (a, b, c):
        line.add(one)
    served = []
    while len(line):
        served.append(next(line.heads()))
        line.remove(served[-1])
    assert served == [a, c, b]


def test_a_line_has_an_end():
    full = scheduler(max_running=1, max_waiting=1)
    full.add(sequence(3))
    full.add(sequence(3))
    with pytest.raises(Busy, match="waiting"):
        full.add(sequence(3))


def test_a_long_prompt_is_read_in_chunks():
    s, long = scheduler(), sequence(70)
    s.add(long)
    assert [run(s)[long] for _ in range(4)] == [32, 32, 6, 1]


def test_decoding_goes_on_in_every_step_while_a_long_prompt_is_read():
    s, short, long = scheduler(), sequence(3), sequence(60, first_id=100)
    s.add(short)
    run(s)
    s.add(long)
    steps = [run(s) for _ in range(8)]
    assert [step[short] for step in steps] == [1] * 8
    assert sum(step[long] for step in steps) == 60


def test_a_short_prompt_does_not_wait_for_a_long_one():
    s, long, short = scheduler(), sequence(160), sequence(5, first_id=500)
    s.add(long)
    run(s)
    s.add(short)
    done = [run(s)[short] for _ in range(3)]
    assert sum(done) >= 5


def test_a_user_with_many_prompts_does_not_shut_out_another():
    s = scheduler(max_running=2)
    for i in range(10):
        s.add(sequence(8, "many", first_id=100 * i))
    late = sequence(8, "one", first_id=5000)
    s.add(late)
    run(s)
    assert late in s.running


def test_an_equal_prompt_waits_for_the_page_that_is_being_filled_and_shares_it():
    s, first, second = scheduler(), sequence(9), sequence(9)
    s.add(first)
    s.add(second)
    assert run(s)[second] == 0
    assert run(s)[second] == 1  # two pages of four tokens are shared
    assert second.pages[:2] == first.pages[:2]


def test_waiting_for_a_page_ends_when_its_maker_is_cancelled():
    s, first, second = scheduler(step_tokens=4), sequence(9), sequence(9)
    s.add(first)
    s.add(second)
    run(s)
    s.drop(first)
    assert run(s)[second]


def test_the_oldest_always_advances_when_pages_run_out():
    s = scheduler(num_pages=4, max_running=3)
    old, young = sequence(5), sequence(5, first_id=100)
    s.add(old)
    s.add(young)
    for _ in range(8):
        run(s)
    assert len(old) >= 5 + 7
    assert young in s.waiting and not young.pages
    s.drop(old)
    run(s)
    assert young in s.running


def test_a_dropped_request_leaves_nothing_behind():
    s, one, two = scheduler(), sequence(40), sequence(7, first_id=100)
    s.add(one)
    s.add(two)
    run(s)
    s.drop(one)
    s.drop(two)
    assert len(s.pages.idle) == s.pages.num_pages
    assert not s.running and not s.promised and not len(s.waiting) and not len(s.prefilling)


def test_many_requests_all_finish_whatever_their_users_and_sizes():
    rng = np.random.default_rng(0)
    s = scheduler(num_pages=16, max_running=4)
    left = {sequence(int(n), f"user {n % 3}", first_id=int(n) * 7): int(n) % 9 + 1 for n in rng.integers(1, 40, 40)}
    for one in left:
        s.add(one)
    for _ in range(1500):
        run(s)
        for one in [one for one in s.running if one.num_answered >= left[one]]:
            s.drop(one)
            del left[one]
        if not left:
            break
    assert not left
    assert len(s.pages.idle) == 16
