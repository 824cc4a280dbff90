import asyncio
import threading
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ming_omni.engine.engine import Engine, Options
from ming_omni.engine.request import Busy, Closing, Request, content_numbers, read_prompt
from ming_omni.errors import InputError
from ming_omni.model.sampling import Sampling
from tests.recipes import tiny_inputs, tiny_model

GREEDY = Sampling()
TEXT, LONG_TEXT = (("text", 1),), (("text", 3), ("text", 5), ("text", 8))


@cache
def plain(recipe: tuple, sampling: Sampling = GREEDY, max_tokens: int = 8, stop_ids: tuple[int, ...] = ()) -> list[int]:
    """The definition: the model's own slow loop."""
    steps = tiny_model().steps(tiny_inputs(recipe), sampling, max_new_tokens=max_tokens, eos_token_id=list(stop_ids))
    return [int(step.ids) for step in steps if int(step.ids) not in stop_ids]


def request(recipe: tuple, sampling: Sampling = GREEDY, max_tokens: int | None = 8, **settings) -> Request:
    return Request(read_prompt(tiny_model(), tiny_inputs(recipe)), sampling, max_tokens, **settings)


def engine(**options) -> Engine:
    return Engine(tiny_model(), Options(**{"cache_tokens": 512, "page_tokens": 4} | options))


def finish(engine: Engine, *streams) -> list[list[int]]:
    while engine.step():
        pass
    return [[token.id for token in stream] for stream in streams]


def assert_all_free(engine: Engine) -> None:
    assert len(engine.pages.idle) == engine.pages.num_pages
    assert not engine.streams and not engine.scheduler.promised
    assert not len(engine.scheduler.waiting) and not engine.scheduler.running


segments = st.one_of(
    st.tuples(st.just("text"), st.integers(0, 3)),
    st.tuples(st.just("image"), st.integers(0, 3)),
    st.tuples(st.just("audio"), st.integers(0, 3)),
)
recipes = st.lists(segments, min_size=1, max_size=4).map(lambda parts: (*parts, ("text", 2)))
samplings = st.sampled_from(
    [
        GREEDY,
        Sampling(0.9, seed=1),
        Sampling(1.2, top_p=0.8, top_k=20, repetition_penalty=1.3, seed=7),
        Sampling(repetition_penalty=1.5, penalize_prompt=False),
    ]
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    jobs=st.lists(st.tuples(recipes, samplings, st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=6),
    page_tokens=st.sampled_from([1, 4, 16]),
    step_tokens=st.integers(1, 60),
    shared_step_tokens=st.integers(1, 20),
    max_running=st.integers(1, 6),
    spare_pages=st.integers(0, 20),
)
def test_answers_equal_the_plain_loop_in_any_company(
    jobs, page_tokens, step_tokens, shared_step_tokens, max_running, spare_pages
):
    longest = max(tiny_inputs(recipe)["input_ids"].shape[1] + num for recipe, _, num, _ in jobs)
    crowd = engine(
        page_tokens=page_tokens,
        step_tokens=step_tokens,
        shared_step_tokens=shared_step_tokens,
        max_running=max_running,
        cache_tokens=longest + spare_pages * page_tokens,  # little more than one request needs
    )
    streams = []
    for recipe, sampling, num_tokens, steps_before in jobs:
        for _ in range(steps_before):
            crowd.step()
        streams.append(crowd.submit(request(recipe, sampling, num_tokens, user=str(num_tokens % 2))))
    answers = finish(crowd, *streams)
    assert answers == [plain(recipe, sampling, 9)[:num_tokens] for recipe, sampling, num_tokens, _ in jobs]
    assert_all_free(crowd)


@pytest.mark.parametrize("recipe", [LONG_TEXT, (("image", 0), ("text", 3)), (("audio", 0), ("image", 2), ("text", 3))])
def test_a_second_request_reuses_the_first_ones_prompt_and_answers_alike(recipe):
    e = engine()
    assert finish(e, e.submit(request(recipe))) == [plain(recipe)]
    before = e.scheduler.num_reused_tokens
    assert finish(e, e.submit(request(recipe))) == [plain(recipe)]
    length = tiny_inputs(recipe)["input_ids"].shape[1]
    assert e.scheduler.num_reused_tokens - before == (length - 1) // 4 * 4


def test_a_picture_in_reused_pages_is_not_encoded_again():
    e, recipe = engine(), (("image", 2), ("text", 3))
    finish(e, e.submit(request(recipe)))
    again = request((*recipe, ("text", 5)))
    finish(e, e.submit(again))
    assert [media.tokens for media in again.prompt.media] == [None]


def test_the_next_turn_reuses_the_answer_too():
    e = engine()
    first = request(LONG_TEXT)
    answer = finish(e, e.submit(first))[0]
    before = e.scheduler.num_reused_tokens
    turn = {"input_ids": torch.tensor([first.prompt.ids + answer + [50, 51, 52]])}
    finish(e, e.submit(Request(read_prompt(tiny_model(), turn), max_tokens=1)))
    computed = len(first.prompt) + len(answer) - 1  # the last token of an answer is never read
    assert e.scheduler.num_reused_tokens - before == computed // 4 * 4


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_different_media_never_share_pages_though_their_tokens_look_alike(kind):
    e = engine()
    first, second = ((kind, 0), ("text", 3)), ((kind, 3), ("text", 3))  # equal sizes, other content
    assert torch.equal(tiny_inputs(first)["input_ids"], tiny_inputs(second)["input_ids"])
    assert finish(e, e.submit(request(first))) == [plain(first)]
    assert finish(e, e.submit(request(second))) == [plain(second)]
    assert e.scheduler.num_reused_tokens == 0


def test_a_clip_heard_with_more_padding_is_not_mistaken_for_itself():
    e = engine()
    alone, beside_longer = (("audio", 0), ("text", 3)), (("audio", 0), ("text", 3), ("audio", 1))
    finish(e, e.submit(request(alone)))
    assert finish(e, e.submit(request(beside_longer))) == [plain(beside_longer)]
    assert e.scheduler.num_reused_tokens == 0


def test_content_numbers_never_equal_a_token_id():
    numbers = content_numbers(100, torch.randn(3, 4))
    assert (numbers < 0).all() and len(set(numbers.tolist())) == 100


def test_a_seed_gives_the_same_answer_in_company():
    e, warm = engine(), Sampling(1.5, seed=3)
    company = [e.submit(request((("text", i),), Sampling(1.0, seed=i))) for i in range(5)]
    seeded = e.submit(request(TEXT, warm))
    assert finish(e, seeded, *company)[0] == plain(TEXT, warm)


def test_an_answer_ends_before_a_stop_id():
    stop = plain(TEXT)[3]
    e = engine()
    stream = e.submit(request(TEXT, stop_ids=frozenset({stop})))
    assert finish(e, stream) == [plain(TEXT)[:3]]
    assert stream.finish == "stop"


def test_logprobs_are_those_of_the_model_and_the_likeliest_come_first():
    e = engine()
    stream = e.submit(request(TEXT, num_likeliest=3))
    while e.step():
        pass
    steps = tiny_model().steps(tiny_inputs(TEXT), max_new_tokens=8, eos_token_id=[])
    for token, step in zip(stream, steps, strict=True):
        assert token.logprob == pytest.approx(float(step.logprobs), abs=1e-4)
        assert token.likeliest[0] == (token.id, pytest.approx(token.logprob))
        assert [logprob for _, logprob in token.likeliest] == sorted((p for _, p in token.likeliest), reverse=True)


@pytest.mark.parametrize("step_tokens", [1, 5, 100])
def test_a_scored_prompt_has_the_logprobs_of_one_plain_pass(step_tokens):
    e = engine(step_tokens=step_tokens)
    finish(e, e.submit(request(LONG_TEXT)))  # scores are complete although pages could be reused
    stream = e.submit(request(LONG_TEXT, max_tokens=0, score_prompt=True, num_likeliest=2))
    assert finish(e, stream) == [[]]
    inputs = tiny_inputs(LONG_TEXT)
    expected = tiny_model()(**inputs).logits[0].detach().log_softmax(-1)
    scores = stream.sequence.prompt_scores
    assert [s.id for s in scores] == inputs["input_ids"][0].tolist()
    assert scores[0].logprob is None
    for place, score in enumerate(scores[1:]):
        assert score.logprob == pytest.approx(float(expected[place, score.id]), abs=1e-4)
        assert score.likeliest[0][1] == pytest.approx(float(expected[place].max()), abs=1e-4)


def test_cancelling_frees_everything_within_one_step():
    e = engine(max_running=2, step_tokens=5)
    streams = [e.submit(request((("text", i), ("image", i)), max_tokens=50)) for i in range(4)]
    for _ in range(6):
        e.step()
    for stream in streams:
        stream.cancel()
    e.step()
    assert_all_free(e)
    for stream in streams:
        list(stream)
        assert stream.finish == "cancelled"


def test_cancelling_one_leaves_the_others_as_they_were():
    e = engine()
    keep, leave = e.submit(request(TEXT)), e.submit(request(LONG_TEXT, max_tokens=100))
    e.step()
    leave.cancel()
    assert finish(e, keep) == [plain(TEXT)]


def test_too_long_a_request_is_refused_at_the_door():
    e = engine(cache_tokens=16)
    with pytest.raises(InputError, match="max_tokens is 0 to"):
        e.submit(request(TEXT, max_tokens=100))
    with pytest.raises(InputError, match="reads fewer than 16"):
        e.submit(request(LONG_TEXT))


def test_a_full_line_says_busy():
    e = engine(max_running=1, max_waiting=1)
    e.submit(request(TEXT))
    e.submit(request(TEXT))
    with pytest.raises(Busy):
        e.submit(request(TEXT))


def test_without_a_limit_an_answer_fills_the_room_there_is():
    e = engine(cache_tokens=16)
    stream = e.submit(request(TEXT, max_tokens=None))
    assert finish(e, stream) == [plain(TEXT, max_tokens=16 - 4)]
    assert stream.finish == "length"


def test_a_broken_request_fails_alone():
    e = engine()
    good, bad = e.submit(request(TEXT)), request((("image", 1), ("text", 3)))
    bad.prompt.media[0].inputs = (torch.zeros(1, 1), torch.ones(1, 3, dtype=torch.long))
    broken = e.submit(bad)
    assert finish(e, good) == [plain(TEXT)]
    with pytest.raises(InputError):
        list(broken)
    assert_all_free(e)


def test_a_draining_engine_finishes_its_work_and_takes_no_more():
    e = engine().start()
    stream = e.submit(request(TEXT))
    e.drain()
    with pytest.raises(Closing):
        e.submit(request(TEXT))
    assert [token.id for token in stream] == plain(TEXT)
    e.stop()


def test_stopping_ends_open_streams():
    e = engine().start()
    stream = e.submit(request(TEXT, max_tokens=400))
    next(iter(stream))
    e.stop()
    list(stream)
    assert stream.finish == "cancelled"
    assert_all_free(e)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_engine_tells_whoever_waits_refuses_others_and_can_be_stopped(monkeypatch):
    e = engine()
    monkeypatch.setattr(e.scheduler, "advance", lambda _: 1 / 0)
    stream = e.start().submit(request(TEXT))
    with pytest.raises(ZeroDivisionError):
        list(stream)
    assert not e.is_alive
    with pytest.raises(Closing):
        e.submit(request(TEXT))
    e.stop()


def test_work_ends_when_the_loop_that_listened_is_closed():
    e, loop = engine(), asyncio.new_event_loop()
    e.submit(request(TEXT, max_tokens=100), loop)
    loop.close()
    e.step()
    e.step()
    assert_all_free(e)
    assert e.counts.answer_tokens == 1


def test_threads_and_tasks_can_ask_at_the_same_time():
    e, answers = engine().start(), {}

    def ask(i: int) -> None:
        answers[i] = [token.id for token in e.submit(request((("text", i),)))]

    async def ask_all() -> list[list[int]]:
        async def one(i: int) -> list[int]:
            return [token.id async for token in e.submit(request((("text", i),)), asyncio.get_running_loop())]

        return await asyncio.gather(*(one(i) for i in range(6, 12)))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    answers |= dict(enumerate(asyncio.run(ask_all()), 6))
    for thread in threads:
        thread.join()
    e.stop()
    assert answers == {i: plain((("text", i),)) for i in range(12)}
    assert_all_free(e)
