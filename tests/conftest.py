"""One thread a test process; property tests that draw the same examples in every run, without a clock; the page.

What the page's tests share is imported when one of them runs: the others need no browser.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: more threads only fight over the cores

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")


@pytest.fixture(scope="module")
def browser():
    from tests.browsing import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with every part of the tiny model."""
    from tests.serving import serving, whole_ming

    with serving(whole_ming(tmp_path_factory.mktemp("voices"))) as served:
        yield served


@pytest.fixture
def page(browser, served, request):
    """The server's page, at the tab that a test names (`on`)."""
    from tests.browsing import opened

    with opened(browser, served, getattr(request, "param", "chat")) as page:
        yield page
