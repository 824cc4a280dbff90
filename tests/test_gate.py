"""Keys, origins, hosts, rates, ids and logs: who gets in, and what is written down about it."""

import logging
import re
import time

import httpx
import openai
import pytest
import websockets.sync.client

from ming_omni.errors import InputError
from ming_omni.serve.api import log_requests
from ming_omni.serve.gate import Bucket
from ming_omni.serve.rules import Rules, rules_for
from tests.serving import serving, tiny_ming
from tests.test_server import chat

KEYS = ("first-key-123", "second-key-456")


@pytest.fixture(scope="module")
def ming():
    return tiny_ming()


@pytest.fixture(scope="module")
def locked(ming):
    with serving(ming, rules=Rules(api_keys=KEYS, origins=("https://friend.example",))) as served:
        yield served


@pytest.fixture(scope="module")
def local():
    with serving(tiny_ming(), rules=Rules(is_local=True)) as served:
        yield served


@pytest.mark.parametrize("key", KEYS)
def test_every_key_opens(locked, key):
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key=key, max_retries=0) as client:
        assert client.chat.completions.create(**chat()).usage.completion_tokens == 4


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer first-key-12", "Basic first-key-123", "Bearer \xff"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/v1/nothing", "/metrics"])
def test_without_the_right_key_nothing_opens(locked, authorization, path):
    headers = {"authorization": authorization.encode("latin-1")} if authorization else {}
    answer = httpx.request("POST" if "chat" in path else "GET", f"{locked.url}{path}", headers=headers, json=chat())
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_the_official_client_calls_it_an_authentication_error(locked):
    with (
        openai.OpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="asks for an API key"),
    ):
        client.models.list()


@pytest.mark.parametrize("path", ["/", "/health", "/page/page.js"])
def test_the_page_and_the_health_need_no_key(locked, path):
    assert httpx.get(f"{locked.url}{path}").status_code == 200


def test_only_a_befriended_site_may_send_requests(locked):
    for origin, status in (
        ("https://friend.example", 200),
        ("https://other.example", 403),
        ("null", 403),
        ("http://[", 403),
    ):
        headers = {"origin": origin, "authorization": f"Bearer {KEYS[0]}"}
        answer = httpx.get(f"{locked.url}/v1/models", headers=headers)
        assert answer.status_code == status
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == (origin if status == 200 else None)


def test_a_befriended_site_learns_why_it_is_refused(locked):
    answer = httpx.get(f"{locked.url}/v1/models", headers={"origin": "https://friend.example"})
    assert answer.status_code == 401 and answer.headers["access-control-allow-origin"] == "https://friend.example"


def test_a_preflight_needs_no_key(locked):
    headers = {
        "origin": "https://friend.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    answer = httpx.options(f"{locked.url}/v1/chat/completions", headers=headers)
    assert answer.status_code == 200 and "authorization" in answer.headers["access-control-allow-headers"]


def test_other_sites_get_no_preflight_where_nobody_is_befriended(local):
    headers = {"origin": "https://other.example", "access-control-request-method": "POST"}
    answer = httpx.options(f"{local.url}/v1/chat/completions", headers=headers)
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


def test_a_form_of_another_site_is_refused_though_browsers_send_it_unasked(local):
    answer = httpx.post(
        f"{local.url}/v1/audio/transcriptions", headers={"origin": "https://evil.example"}, files={"file": b"x"}
    )
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "wrong_origin"


def test_the_servers_own_page_is_welcome(local):
    assert httpx.post(f"{local.url}/v1/chat/completions", json=chat(), headers={"origin": local.url}).is_success


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:80", 200), ("evil.example", 403), ("", 403), ("[::1", 403)],
)
def test_a_name_from_elsewhere_that_leads_here_is_a_trick(local, host, status):
    """A page of evil.example may let its name point to 127.0.0.1; browsers then take this server for its own."""
    assert httpx.get(f"{local.url}/v1/models", headers={"host": host}).status_code == status


def test_requests_beyond_the_rate_wait_and_the_page_does_not_count():
    with serving(tiny_ming(), rules=Rules(requests_per_minute=3)) as served:
        got = [httpx.get(f"{served.url}/v1/models") for _ in range(4)]
        assert [answer.status_code for answer in got] == [200, 200, 200, 429]
        assert 1 <= int(got[-1].headers["retry-after"]) <= 21
        assert got[-1].json()["error"]["code"] == "rate_limit_exceeded"
        assert httpx.get(f"{served.url}/health").status_code == 200


def test_a_bucket_fills_up_again():
    now = [0.0]  # a clock of its own: a server that ran on this one would wait for the time to come
    bucket = Bucket(60, lambda: now[0])
    assert [bucket.take() for _ in range(60)] == [0.0] * 60
    assert bucket.take() == pytest.approx(1.0)
    now[0] = 1.0
    assert bucket.take() == 0.0 and bucket.take() > 0


def test_each_key_has_its_own_rate():
    with serving(tiny_ming(), rules=Rules(api_keys=KEYS, requests_per_minute=1)) as served:
        headers = [{"authorization": f"Bearer {key}"} for key in (*KEYS, *KEYS)]
        assert [httpx.get(f"{served.url}/v1/models", headers=h).status_code for h in headers] == [200, 200, 429, 429]


def test_every_answer_has_an_id_and_a_given_one_comes_back(locked):
    ids = [httpx.get(f"{locked.url}{path}").headers["x-request-id"] for path in ("/health", "/v1/models", "/nothing")]
    assert len(set(ids)) == 3 and all(re.fullmatch("[0-9a-f]{32}", id_) for id_ in ids)
    given = httpx.get(f"{locked.url}/health", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    bad = httpx.get(f"{locked.url}/health", headers={"x-request-id": "a b\tc"})
    assert re.fullmatch("[0-9a-f]{32}", bad.headers["x-request-id"])


def test_the_log_tells_route_status_and_time_and_nothing_a_user_wrote(locked, capsys):
    log_requests()
    try:
        secret = chat("my secret question", user="secret user")
        headers = {"authorization": f"Bearer {KEYS[1]}", "x-request-id": "known-id"}
        httpx.post(f"{locked.url}/v1/chat/completions?secret=1", json=secret, headers=headers)
        httpx.delete(f"{locked.url}/v1/audio/voices/secret", headers=headers)
        httpx.get(f"{locked.url}/secret")
        time.sleep(0.1)
    finally:
        logging.getLogger("ming_omni.access").handlers.clear()
    lines = capsys.readouterr().err.splitlines()
    assert re.search(r" known-id key-2 POST /v1/chat/completions 200 \d+\.\d{3}s$", lines[0])
    assert re.search(r" known-id key-2 DELETE /v1/audio/voices/\{name\} 404 ", lines[1])
    assert re.search(r" 127.0.0.1 GET - 404 ", lines[2])
    assert not any("secret" in line or KEYS[1] in line for line in lines)


def test_a_failure_is_logged_with_its_place_and_without_its_words(ming, locked, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError(" ".join(("own", "words")))

    monkeypatch.setattr(ming.processor, "prepare", fail)
    headers = {"authorization": f"Bearer {KEYS[0]}", "x-request-id": "failing"}
    answer = httpx.post(f"{locked.url}/v1/chat/completions", json=chat(), headers=headers)
    assert answer.status_code == 500
    [record] = [r for r in caplog.records if r.name == "ming_omni.serve.door"]
    assert "request failing failed: RuntimeError" in record.getMessage() and "own words" not in caplog.text


@pytest.mark.parametrize(
    ("host", "options", "message"),
    [
        ("0.0.0.0", {}, "give an API key"),
        ("192.168.0.7", {}, "give an API key"),
        ("127.0.0.1", {"api_keys": ("long-enough",), "no_api_key": True}, "not both"),
        ("127.0.0.1", {"api_keys": ("short",)}, "8 or more ASCII characters"),
        ("127.0.0.1", {"origins": ("example.com",)}, "an origin is a scheme and a host"),
        ("127.0.0.1", {"origins": ("https://example.com/",)}, "an origin is a scheme and a host"),
        ("127.0.0.1", {"requests_per_minute": 0}, "requests_per_minute is more than 0"),
    ],
)
def test_rules_that_make_no_sense_are_refused(host, options, message):
    with pytest.raises(InputError, match=message):
        rules_for(host, **{"api_keys": ()} | options)


def test_a_key_is_asked_for_wherever_others_can_come():
    assert rules_for("127.0.0.1", ()).is_local and rules_for("::1", ()).is_local
    assert not rules_for("0.0.0.0", ("long-enough",)).is_local
    assert rules_for("0.0.0.0", (), no_api_key=True).api_keys == ()


def test_beyond_this_machine_there_is_a_rate_unless_another_is_given():
    assert rules_for("127.0.0.1", ()).requests_per_minute is None
    assert rules_for("0.0.0.0", ("long-enough",)).requests_per_minute == 600
    assert rules_for("0.0.0.0", ("long-enough",), requests_per_minute=5).requests_per_minute == 5


@pytest.mark.parametrize(
    ("options", "is_open"),
    [
        ({}, False),
        ({"additional_headers": {"authorization": f"Bearer {KEYS[0]}"}}, True),
        ({"subprotocols": ["realtime", f"openai-insecure-api-key.{KEYS[1]}"]}, True),
        ({"subprotocols": ["realtime", "openai-insecure-api-key.wrong"]}, False),
        ({"additional_headers": {"authorization": f"Bearer {KEYS[0]}"}, "origin": "https://other.example"}, False),
    ],
)
def test_a_conversation_needs_a_key_and_a_known_origin_too(locked, options, is_open):
    url = locked.url.replace("http", "ws") + "/v1/realtime?model=tiny"
    if is_open:
        with websockets.sync.client.connect(url, **options) as socket:
            assert "session.created" in socket.recv(10)
    else:
        with pytest.raises(websockets.exceptions.InvalidStatus, match="403"):
            websockets.sync.client.connect(url, **options)
