"""The load test in its short form; `python -m benchmarks.load --seconds 600` is the long one."""

from benchmarks.load import load


def test_two_hundred_clients_each_hear_their_own_answer_and_leave_nothing_behind():
    report = load("tiny", num_streams=200, seconds=4, num_tokens=16)
    assert report["answers_wrong"] == report["refused"] == 0
    assert report["answers_right"] >= 100
    assert report["vanished"] >= 10
    assert report["different_answers_expected"] > 500
    assert report["left_running"] == report["left_pages_held"] == 0
