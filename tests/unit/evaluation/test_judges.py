"""A judge over real HTTP: what it is asked, what it costs, and what happens if it does not answer."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from vl3.errors import ConfigError
from vl3.evaluation.judge_gateway import JudgeGateway
from vl3.evaluation.judges import JudgeClient, JudgeConfig, JudgeFailure, openai_endpoint

QUESTION = [{"role": "user", "content": "Is it right?"}]


class Server:
    """A chat API on this machine that does what `replies` says: a status, a text, or seconds to wait."""

    def __init__(self) -> None:
        self.replies: list[int | str | float | bytes] = []
        self.asked: list[dict] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                reply = server.replies.pop(0) if server.replies else "Correct"
                if isinstance(reply, float):
                    time.sleep(reply)
                    reply = "late"
                if isinstance(reply, int):
                    self.send_error(reply)
                    return
                message = {"role": "assistant", "content": reply}
                completion = {
                    "id": "1", "object": "chat.completion", "created": 0, "model": "m",
                    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
                    "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                }  # fmt: skip
                body = reply if isinstance(reply, bytes) else json.dumps(completion).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    threading.Thread(target=found.http.serve_forever, daemon=True).start()
    yield found
    found.http.shutdown()
    found.http.server_close()


def client(server: Server, folder: Path, **limits: float) -> JudgeClient:
    pytest.importorskip("openai", reason="openai is not installed (extra `eval`)")
    config = JudgeConfig(url=server.url, model="m", **limits)
    return JudgeClient(config, folder / "judge.jsonl", openai_endpoint(config, "secret-key"), sleep=lambda _: None)


def test_a_verdict_is_asked_once_and_kept_with_its_question(server: Server, tmp_path: Path) -> None:
    first = client(server, tmp_path).ask(QUESTION)
    assert (first.text, first.tokens, first.cached) == ("Correct", 10, False)
    again = client(server, tmp_path).ask(QUESTION)
    assert (again.text, again.cached) == ("Correct", True)
    assert len(server.asked) == 1
    assert server.asked[0]["temperature"] == 0.0
    record = json.loads((tmp_path / "judge.jsonl").read_text())
    assert (record["messages"], record["answer"], record["model"]) == (QUESTION, "Correct", "m")
    assert "secret-key" not in (tmp_path / "judge.jsonl").read_text()


def test_what_passes_is_tried_again_and_what_does_not_is_not(server: Server, tmp_path: Path) -> None:
    server.replies = [503, 429, "", "Correct"]
    assert client(server, tmp_path).ask(QUESTION).text == "Correct"
    assert len(server.asked) == 4
    server.replies = [401, "Correct"]
    verdict = client(server, tmp_path / "other").ask(QUESTION)
    assert (verdict.text, verdict.why) == (None, "the judge refused with HTTP 401")
    assert len(server.asked) == 5


def test_a_slow_judge_gives_no_verdict(server: Server, tmp_path: Path) -> None:
    server.replies = [2.0]
    verdict = client(server, tmp_path, timeout_seconds=0.2, tries=1).ask(QUESTION)
    assert (verdict.text, verdict.why) == (None, "the judge did not answer within 0.2 s")


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"{}", b'{"choices": []}', b"null"])
def test_a_reply_that_is_no_completion_gives_no_verdict(body: bytes, server: Server, tmp_path: Path) -> None:
    server.replies = [body]
    verdict = client(server, tmp_path, tries=1).ask(QUESTION)
    assert verdict.text is None
    assert verdict.why.startswith("the judge's reply ") or verdict.why.startswith("the judge cannot be reached")


def test_a_judge_that_is_down_is_not_asked_for_ever(tmp_path: Path) -> None:
    tries = []

    def down(messages: list) -> tuple[str, int]:
        tries.append(messages)
        raise JudgeFailure("the judge cannot be reached (APIConnectionError)")

    config = JudgeConfig(url="http://judge.example/v1", model="m", tries=2, failures_until_down=3)
    judge = JudgeClient(config, tmp_path / "judge.jsonl", down, sleep=lambda _: None)
    verdicts = [judge.ask([{"role": "user", "content": str(number)}]) for number in range(5)]
    assert [verdict.text for verdict in verdicts] == [None] * 5
    assert len(tries) == 6
    assert verdicts[-1].why == "the judge at judge.example gave no answer 3 times in a row"


def test_limits_of_requests_and_tokens_end_the_judging(tmp_path: Path) -> None:
    def ask(judge: JudgeClient, number: int) -> str:
        return judge.ask([{"role": "user", "content": str(number)}]).why

    few = JudgeConfig(url="http://j/v1", model="m", max_requests=2)
    judge = JudgeClient(few, tmp_path / "a.jsonl", lambda _: ("yes", 100))
    assert [ask(judge, number)[:27] for number in range(3)] == ["", "", "the limit of 2 requests to "]
    cheap = JudgeConfig(url="http://j/v1", model="m", max_tokens_total=150)
    judge = JudgeClient(cheap, tmp_path / "b.jsonl", lambda _: ("yes", 100))
    assert [bool(ask(judge, number)) for number in range(3)] == [False, False, True]


def test_requests_keep_to_the_rate(tmp_path: Path) -> None:
    waits: list[float] = []
    config = JudgeConfig(url="http://j/v1", model="m", requests_per_minute=60)
    judge = JudgeClient(config, tmp_path / "j.jsonl", lambda _: ("yes", 1), sleep=waits.append, clock=lambda: 100.0)
    for number in range(3):
        judge.ask([{"role": "user", "content": str(number)}])
    assert waits == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": "judge.example"}, "OpenAI-compatible"),
        ({"model": ""}, "its model ''"),
        ({"tries": 0}, "judge.tries=0 must be at least 1"),
        ({"max_requests": -1}, "judge.max_requests=-1 must not be negative"),
        ({"timeout_seconds": 0.0}, "must be above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JudgeConfig(**{"url": "http://j/v1", "model": "m", **values})


def post(gateway: JudgeGateway, content: str) -> str:
    url = gateway.environment["OPENAI_API_URL"]
    reply = requests.post(url, json={"messages": [{"role": "user", "content": content}]}, timeout=10)
    return reply.json()["choices"][0]["message"]["content"]


def test_the_gateway_passes_verdicts_on_and_remembers_what_has_none(tmp_path: Path) -> None:
    config = JudgeConfig(url="http://j/v1", model="m")
    judge = JudgeClient(config, tmp_path / "j.jsonl", lambda messages: (messages[0]["content"], 1))
    with JudgeGateway(judge) as gateway:
        gateway.expect("correct|incorrect")
        why = gateway.watch("item-1")
        assert post(gateway, "Correct") == "Correct"
        assert why() == ""
        why = gateway.watch("item-2")
        post(gateway, "blah blah")
        assert why() == "not judged: the judge's words have no verdict: 'blah blah'"
        assert gateway.watch("item-3")() == ""


def test_without_a_judge_nothing_is_judged(tmp_path: Path) -> None:
    with JudgeGateway(None) as gateway:
        why = gateway.watch("item-1")
        assert "Incorrect" in post(gateway, "Correct?")  # so that a task goes on; its score is dropped
        assert why() == "not judged: no judge is configured"
