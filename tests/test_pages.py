import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ming_omni.engine.pages import Pages, page_keys


def rows(*ids: int) -> np.ndarray:
    return np.array(ids)[:, None]


def test_a_page_is_named_only_when_it_is_full():
    assert len(page_keys(rows(1, 2, 3), 2)) == 1
    assert len(page_keys(rows(1, 2, 3, 4), 2)) == 2


def test_equal_pages_after_different_beginnings_have_different_names():
    first, second = page_keys(rows(1, 2, 7, 8), 2), page_keys(rows(1, 3, 7, 8), 2)
    assert first[1] != second[1]


def test_names_continue_from_a_parent_as_if_named_at_once():
    whole = page_keys(rows(1, 2, 3, 4, 5, 6), 2)
    assert page_keys(rows(3, 4, 5, 6), 2, parent=whole[0]) == whole[1:]


def test_a_published_page_is_found_again_after_its_holder_let_go():
    pages = Pages(4, 2)
    page = pages.take()
    pages.publish(page, b"a")
    pages.release([page])
    assert pages.share([b"a", b"b"]) == [page]


def test_a_held_page_is_never_given_to_somebody_else():
    pages = Pages(2, 2)
    held = pages.take()
    pages.publish(held, b"a")
    assert pages.share([b"a"]) == [held]
    pages.release([held])  # one of two holders
    assert pages.take() != held
    assert pages.take() is None


def test_the_page_unused_for_longest_is_given_up_first():
    pages = Pages(3, 2)
    for key in (b"a", b"b", b"c"):
        page = pages.take()
        pages.publish(page, key)
        pages.release([page])
    pages.release(pages.share([b"a"]))
    pages.take()
    assert pages.share([b"b"]) == []
    assert pages.share([b"a"]) and pages.share([b"c"])


def test_the_end_of_a_prompt_is_given_up_before_its_beginning():
    pages = Pages(3, 2)
    held = [pages.take() for _ in range(3)]
    for page, key in zip(held, (b"a", b"b", b"c"), strict=True):
        pages.publish(page, key)
    pages.release(held)
    pages.take()
    assert pages.share([b"a", b"b", b"c"]) == held[:2]


def test_a_page_that_nobody_can_share_is_reused_before_one_that_somebody_might():
    pages = Pages(2, 2)
    shared, private = pages.take(), pages.take()
    pages.publish(shared, b"a")
    pages.release([private, shared])
    assert pages.take() == private


def test_a_lone_request_gets_neighbouring_pages():
    pages = Pages(8, 2)
    held = [pages.take()]
    while len(held) < 5:
        held.append(pages.take(after=held[-1]))
    assert held == [0, 1, 2, 3, 4]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "share", "publish", "release"]), st.integers(0, 5)), max_size=60))
def test_books_balance_after_any_history(history):
    pages, held = Pages(6, 2), []
    for what, number in history:
        if what == "take" and (page := pages.take(after=number)) is not None:
            held.append([page])
        elif what == "share" and (found := pages.share([bytes([number])])):
            held.append(found)
        elif what == "publish" and held:
            page = held[number % len(held)][0]
            if pages.key_of[page] is None:
                pages.publish(page, bytes([number]))
        elif what == "release" and held:
            pages.release(held.pop(number % len(held)))
        owners = [sum(page in own for own in held) for page in range(6)]
        assert pages.num_holders == owners
        assert set(pages.idle) == {page for page in range(6) if not owners[page]}
        assert all(pages.key_of[page] == key for key, page in pages.page_of.items())
