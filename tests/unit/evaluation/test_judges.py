"""A judge over real HTTP: what it is asked, what it costs, and what happens if it does not answer."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from vl3.config.endpoint import EndpointConfig
from vl3.endpoint.answers import AnswerStore
from vl3.errors import DataError
from vl3.evaluation.judge_gateway import JudgeGateway
from vl3.evaluation.judges import EndpointJudge, JudgeVerdict, Message, read_question

QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "Is it right?"}]


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


def config_of(url: str, **limits: Any) -> EndpointConfig:
    quick = {"first_pause_seconds": 0.001, "longest_pause_seconds": 0.002, "api_key_env": "JUDGE_KEY"}
    return EndpointConfig(url=url, model="m", version="1", **quick | limits)


def ask(server: Server, folder: Path, question: list[dict[str, Any]] = QUESTION, **limits: Any) -> JudgeVerdict:
    config, environment = config_of(server.url, **limits), {"JUDGE_KEY": "secret-key"}
    with closing(EndpointJudge(config, folder / "judge.sqlite", environment=environment)) as judge:
        return judge.ask(question)


def test_a_verdict_is_asked_once_and_kept_with_its_question(server: Server, tmp_path: Path) -> None:
    first = ask(server, tmp_path)
    assert (first.text, first.tokens, first.cached) == ("Correct", 10, False)
    again = ask(server, tmp_path)
    assert (again.text, again.cached) == ("Correct", True)
    assert len(server.asked) == 1
    assert server.asked[0]["temperature"] == 0.0
    with closing(AnswerStore(tmp_path / "judge.sqlite")) as store:
        (record,) = store.records()
    assert (record["question"]["parts"], record["reply"]["text"]) == (["Is it right?"], "Correct")
    assert b"secret-key" not in (tmp_path / "judge.sqlite").read_bytes()


def test_what_passes_is_tried_again_and_what_does_not_is_not(server: Server, tmp_path: Path) -> None:
    server.replies = [503, 429, "", "Correct"]
    assert ask(server, tmp_path).text == "Correct"
    assert len(server.asked) == 4
    server.replies = [401, "Correct"]
    verdict = ask(server, tmp_path / "other")
    assert verdict.text is None
    assert "does not take questions to 'm' (" in verdict.why
    assert len(server.asked) == 5


def test_a_slow_judge_gives_no_verdict(server: Server, tmp_path: Path) -> None:
    server.replies = [2.0]
    verdict = ask(server, tmp_path, timeout_seconds=0.2, tries=1)
    assert verdict.text is None
    assert verdict.why.startswith("the judge gave no verdict: ")


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"{}", b'{"choices": []}', b"null"])
def test_a_reply_that_is_no_completion_gives_no_verdict(body: bytes, server: Server, tmp_path: Path) -> None:
    server.replies = [body] * 4
    assert ask(server, tmp_path, tries=1).text is None


def test_a_judge_that_is_down_is_not_asked_for_ever(server: Server, tmp_path: Path) -> None:
    server.replies = [503] * 100
    config = config_of(server.url, tries=2, max_failures_in_a_row=3)
    with closing(EndpointJudge(config, tmp_path / "judge.sqlite", environment={"JUDGE_KEY": "k"})) as judge:
        verdicts = [judge.ask([{"role": "user", "content": str(number)}]) for number in range(5)]
    assert [verdict.text for verdict in verdicts] == [None] * 5
    assert len(server.asked) == 6
    assert "gave no answer to 3 questions in a row" in verdicts[-1].why


def test_a_missing_key_is_named_and_nothing_is_judged(server: Server, tmp_path: Path) -> None:
    with closing(EndpointJudge(config_of(server.url), tmp_path / "judge.sqlite", environment={})) as judge:
        assert "JUDGE_KEY" in judge.ask(QUESTION).why
    assert server.asked == []


def test_a_limit_of_spending_ends_the_judging(server: Server, tmp_path: Path) -> None:
    config = config_of(server.url, usd_per_million_output_tokens=1000.0, spend_limit_usd=0.53)
    with closing(EndpointJudge(config, tmp_path / "judge.sqlite", environment={"JUDGE_KEY": "k"})) as judge:
        verdicts = [judge.ask([{"role": "user", "content": str(number)}]) for number in range(10)]
    # An answer costs 0.003 USD and may cost 0.512, so seven are asked: before the eighth 0.021 are spent.
    assert [verdict.text is not None for verdict in verdicts] == [True] * 7 + [False] * 3
    assert "the spend limit of 0.53 USD leaves no room" in verdicts[-1].why


def test_messages_keep_their_texts_and_pictures_and_what_is_neither_is_refused() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
    content = [{"type": "text", "text": "Is it?"}, picture]
    question = read_question([{"role": "system", "content": "Judge."}, {"role": "user", "content": content}])
    assert (question.system, question.parts[0]) == ("Judge.", "Is it?")
    shown = question.parts[1]
    assert not isinstance(shown, str)
    assert shown.load() == ("image/png", b"\x89PNG")
    with pytest.raises(DataError, match="the judge 'audio', which is neither text nor a picture"):
        read_question([{"role": "user", "content": [{"type": "audio"}]}])


class _Words:
    """A judge that repeats the question, and knows how it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def ask(self, messages: Sequence[Message]) -> JudgeVerdict:
        (verdict,) = self.ask_all([messages])
        return verdict

    def ask_all(self, questions: Sequence[Sequence[Message]]) -> list[JudgeVerdict]:
        self.asked.append([one[0]["content"] for one in questions])
        return [JudgeVerdict(text=one[0]["content"], tokens=1) for one in questions]

    def close(self) -> None:
        pass


def post(gateway: JudgeGateway, content: str) -> str:
    url = gateway.environment["OPENAI_API_URL"]
    reply = requests.post(url, json={"messages": [{"role": "user", "content": content}]}, timeout=10)
    return reply.json()["choices"][0]["message"]["content"]


def test_the_gateway_passes_verdicts_on_and_remembers_what_has_none() -> None:
    with JudgeGateway(_Words()) as gateway:
        gateway.expect("correct|incorrect")
        why = gateway.watch("item-1")
        assert post(gateway, "Correct") == "Correct"
        assert why() == ""
        why = gateway.watch("item-2")
        post(gateway, "blah blah")
        assert why() == "not judged: the judge's words have no verdict: 'blah blah'"
        assert gateway.watch("item-3")() == ""


def test_what_is_asked_ahead_is_asked_at_once_and_not_again() -> None:
    judge, kept = _Words(), list[int]()
    with JudgeGateway(judge, keep=lambda: kept.append(len(judge.asked))) as gateway:
        gateway.expect("correct|incorrect")
        with gateway.asking_ahead():
            assert "Incorrect" in post(gateway, "Correct, I think")
            post(gateway, "blah blah")
            post(gateway, "Correct, I think")
        assert judge.asked == [["Correct, I think", "blah blah"]]
        assert kept == [1], "paid for, so it is stored at once"
        why = gateway.watch("item-1")
        assert (post(gateway, "Correct, I think"), why()) == ("Correct, I think", "")
        why = gateway.watch("item-2")
        post(gateway, "blah blah")
        assert why() == "not judged: the judge's words have no verdict: 'blah blah'"
        assert post(gateway, "Incorrect") == "Incorrect"  # what nobody foresaw
        assert judge.asked[1:] == [["Incorrect"]]


def test_many_questions_are_in_flight_together_and_a_judge_that_goes_leaves_the_rest_without_a_verdict(
    server: Server, tmp_path: Path
) -> None:
    questions = [[{"role": "user", "content": f"Is {number} right?"}] for number in range(6)]
    server.replies = ["yes", "yes", *[401] * 40]
    config = config_of(server.url, max_concurrent=1)
    with closing(EndpointJudge(config, tmp_path / "judge.sqlite", environment={"JUDGE_KEY": "k"})) as judge:
        verdicts = judge.ask_all([*questions, [{"role": "user", "content": [{"type": "audio"}]}]])
    assert [one.text for one in verdicts] == ["yes", "yes", None, None, None, None, None]
    assert "neither text nor a picture" in verdicts[-1].why
    assert len({one.why for one in verdicts[2:6]}) == 1


def test_without_a_judge_nothing_is_judged() -> None:
    with JudgeGateway(None) as gateway:
        why = gateway.watch("item-1")
        assert "Incorrect" in post(gateway, "Correct?")  # so that a task goes on; its score is dropped
        assert why() == "not judged: no judge is configured"
