import asyncio
import json
import socket
import threading
import time

import httpx
import pytest

from ming_omni.serve.api import run
from ming_omni.serve.rules import Rules
from tests.serving import serving, tiny_ming, until


@pytest.fixture(scope="module")
def served():
    with serving(tiny_ming(max_running=2, max_waiting=6), rules=Rules(max_body_bytes=200_000)) as served:
        yield served


@pytest.fixture(scope="module")
def http(served):
    with httpx.Client(base_url=served.url, timeout=60) as http:
        yield http


def chat(text: str = "hi", **options) -> dict:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 4} | options


def metrics(http: httpx.Client) -> dict[str, float]:
    lines = http.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def slow_request(url: str, path: str = "/v1/chat/completions", body: bytes | None = None, **options) -> socket.socket:
    """Ask for a long answer over a bare socket, which can be cut at any moment."""
    body = body or json.dumps(chat(max_tokens=4000, **options)).encode()
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def test_a_healthy_server_says_so(http):
    answer = http.get("/health")
    assert answer.status_code == 200 and answer.json() == {"status": "ok"}


def test_metrics_count_what_was_done(http):
    before = metrics(http)
    http.post("/v1/chat/completions", json=chat())
    after = metrics(http)
    assert after["ming_answer_tokens_total"] - before["ming_answer_tokens_total"] == 4
    assert after['ming_requests_total{end="length"}'] - before.get('ming_requests_total{end="length"}', 0) == 1
    assert after["ming_first_token_seconds_count"] - before["ming_first_token_seconds_count"] == 1
    assert after['ming_first_token_seconds_bucket{le="+Inf"}'] == after["ming_first_token_seconds_count"]
    assert after["ming_running_requests"] == 0 and after["ming_cache_pages_held"] == 0


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "message"),
    [
        ("GET", "/v1/nothing", None, 404, "there is nothing at /v1/nothing"),
        ("GET", "/v1/chat/completions", None, 405, "/v1/chat/completions does not take GET"),
        ("GET", "/v1/models/other", None, 404, "there is no model 'other' here; this server has 'tiny'"),
        ("POST", "/v1/chat/completions", b"{", 400, "the body is not valid JSON"),
        ("POST", "/v1/chat/completions", b"[]", 400, "the body is a JSON object"),
        ("POST", "/v1/chat/completions", b"{}", 400, "model is missing"),
        ("POST", "/v1/chat/completions", b'{"model": "tiny", "messages": 1}', 400, "messages: input should be a valid"),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": []}', 400, "prompt holds 1 to 128 prompts for n=1"),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": ""}', 400, "a request is one prompt of one token"),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": [400]}', 400, "token ids are 0 to 319"),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": [-1]}', 400, "token ids are whole numbers"),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": [[1], [2147483648]]}', 400, "token ids are whole"),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": "\\ud800"}', 400, "the text holds half a character"),
        ("POST", "/v1/completions", b'{"model": "tiny", "\\ud800": 1}', 400, "there is no parameter \\ud800"),
    ],
)  # fmt: skip
def test_errors_have_one_form_and_one_sentence(http, method, path, content, status, message):
    headers = {"content-type": "application/json"}
    answer = http.request(method, path, content=content, headers=headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["message"].startswith(message)
    assert error.keys() == {"message", "type", "param", "code"}


def test_a_body_that_does_not_say_it_is_json_is_refused(http):
    """A page of another origin can send plain text without asking, but not JSON."""
    answer = http.post("/v1/chat/completions", content=json.dumps(chat()), headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    assert "Content-Type is application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("content", ["\ud800", [{"type": "text", "text": "\ud800"}]])
def test_half_a_character_is_refused_and_breaks_nothing(http, content):
    body = json.dumps(chat(content)).encode()
    answer = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("the text holds half a character")


@pytest.mark.parametrize("path", ["/", "/health"])
def test_monitors_may_ask_for_the_head_alone(http, path):
    answer = http.head(path)
    assert answer.status_code == 200 and answer.content == b""


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/page/page.css"])
def test_a_browser_asks_again_for_every_file_of_the_page(http, path):
    """Otherwise the old script of an upgraded server meets its new page."""
    headers = http.get(path).headers
    assert headers["cache-control"] == "no-cache" and headers["x-content-type-options"] == "nosniff"
    assert http.get(path, headers={"if-none-match": headers["etag"]}).status_code in (200, 304)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_prompts_are_read_beside_the_loop_so_that_a_long_one_stops_nobody(http, served, monkeypatch, path):
    threads, tokenizer = set(), served.ming.processor.tokenizer
    encode = tokenizer.encode

    def encode_noted(text: str) -> list[int]:
        threads.add(threading.current_thread().name)
        return encode(text)

    monkeypatch.setattr(tokenizer, "encode", encode_noted)
    prompt = {"prompt": "hi"} if path == "/v1/completions" else {"messages": chat()["messages"]}
    assert http.post(path, json={"model": "tiny", "max_tokens": 1} | prompt).status_code == 200
    assert threads and all(name.startswith("AnyIO worker") for name in threads)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_above_the_limit_is_refused_however_it_arrives(http, is_chunked):
    body = json.dumps(chat("x" * 300_000)).encode()
    content = (body[i : i + 10_000] for i in range(0, len(body), 10_000)) if is_chunked else body
    answer = http.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == "the body is larger than 0.2 MB"


@pytest.mark.parametrize("stream", [False, True])
def test_work_stops_when_the_client_is_gone(http, served, stream):
    before = metrics(http).get('ming_requests_total{end="cancelled"}', 0)
    connection = slow_request(served.url, stream=stream)
    until(lambda: served.engine.counts.steps and served.engine.scheduler.running)
    connection.close()
    until(lambda: served.is_idle)
    assert metrics(http)['ming_requests_total{end="cancelled"}'] == before + 1


def test_all_choices_stop_when_the_client_is_gone(served):
    connection = slow_request(served.url, stream=True, n=3, temperature=1)
    until(lambda: len(served.engine.streams) == 3)
    connection.close()
    until(lambda: served.is_idle)


def test_a_full_server_says_busy_and_when_to_come_back(http, served):
    connections = [slow_request(served.url, user=f"user {i}") for i in range(8)]
    until(lambda: len(served.engine.streams) == 8)
    before = metrics(http)["ming_refused_total"]
    answer = http.post("/v1/chat/completions", json=chat())
    assert metrics(http)["ming_refused_total"] == before + 1
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == "busy"
    for connection in connections:
        connection.close()
    until(lambda: served.is_idle)
    assert http.post("/v1/chat/completions", json=chat()).status_code == 200


def test_none_of_several_choices_runs_when_there_is_no_room_for_all(http, served):
    answer = http.post("/v1/chat/completions", json=chat(n=9, temperature=1))
    assert answer.status_code == 429
    until(lambda: served.is_idle)


def test_an_answer_that_fails_inside_ends_its_stream_with_an_error(served, http, monkeypatch):
    def fail(*_):
        raise RuntimeError("a secret of the machine room")

    monkeypatch.setattr(served.engine.runner, "step", fail)
    lines = http.post("/v1/chat/completions", json=chat(stream=True)).text.split("\n\n")
    assert json.loads(lines[-3].removeprefix("data: "))["error"]["type"] == "server_error"
    assert "secret" not in "".join(lines)
    assert http.post("/v1/chat/completions", json=chat()).status_code == 500
    monkeypatch.undo()
    assert http.post("/v1/chat/completions", json=chat()).status_code == 200


def test_an_address_is_announced_only_once_it_answers(capsys):
    with serving(tiny_ming()) as served:
        assert capsys.readouterr().out == f"tiny on {served.url}\n"
        with pytest.raises(SystemExit):
            run(served.ming, port=int(served.url.rsplit(":", 1)[1]))
    assert capsys.readouterr().out == ""


def test_answers_at_work_are_finished_and_new_ones_refused_while_shutting_down():
    with serving(tiny_ming(), grace_seconds=100) as served, httpx.Client(base_url=served.url, timeout=60) as http:
        got = {}

        def ask() -> None:
            answer = httpx.post(f"{served.url}/v1/chat/completions", json=chat(max_tokens=300), timeout=100)
            got.update(answer.json())

        thread = threading.Thread(target=ask)
        http.get("/health")  # so that a connection is open
        thread.start()
        until(lambda: served.engine.scheduler.running)
        served.server.handle_exit(15, None)
        refused = http.post("/v1/chat/completions", json=chat())
        assert refused.status_code == 503 and "shutting down" in refused.json()["error"]["message"]
        assert http.get("/health").status_code == 503
        thread.join(100)
        assert got["choices"][0]["finish_reason"] == "length" and got["usage"]["completion_tokens"] == 300
        until(lambda: not served.server.started or served.server.should_exit)


def test_answers_that_outlast_the_grace_are_cut_with_an_error():
    with serving(tiny_ming(), grace_seconds=0.3) as served:
        with httpx.stream(
            "POST", f"{served.url}/v1/chat/completions", json=chat(max_tokens=8000, stream=True), timeout=60
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            started = time.monotonic()
            served.server.handle_exit(15, None)
            last = [line for line in lines if line][-2]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "closing"
        assert time.monotonic() - started < 10
        assert served.is_idle


def test_a_second_signal_ends_the_grace():
    with serving(tiny_ming(), grace_seconds=1000) as served:
        connection = slow_request(served.url)
        until(lambda: served.engine.scheduler.running)
        served.server.handle_exit(2, None)
        served.server.handle_exit(2, None)
        until(lambda: served.server.should_exit)
        connection.close()


def test_a_user_with_many_requests_does_not_make_another_wait_for_all_of_them(served):
    async def ask() -> list[str]:
        order = []
        async with httpx.AsyncClient(base_url=served.url, timeout=60) as http:

            async def one(user: str, num_tokens: int = 60) -> None:
                await http.post("/v1/chat/completions", json=chat(user, user=user, max_tokens=num_tokens))
                order.append(user)

            many = [asyncio.create_task(one("many")) for _ in range(7)]
            while len(served.engine.streams) < 7:
                await asyncio.sleep(0.001)
            await asyncio.gather(one("single", 4), *many)
        return order

    assert asyncio.run(ask()).index("single") <= 3  # after the two that ran
