"""The endpoint's client against a real server: what is answered, kept, paid, repeated and given up."""

import hashlib
import io
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.chat_server import ChatServer, chat_server
from vl3.config.endpoint import EndpointConfig
from vl3.endpoint.answer import Outcome
from vl3.endpoint.answers import AnswerStore
from vl3.endpoint.client import Endpoint
from vl3.endpoint.question import EndpointQuestion, Picture
from vl3.errors import ClusterError, ConfigError, DataError, StorageError

LOOP = "a dog and a cat, " * 40


@pytest.fixture(scope="module")
def running() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


@pytest.fixture
def server(running: ChatServer) -> ChatServer:
    running.asked, running.faults, running.key = [], [], ""
    running.most_at_once, running.delay_seconds = 0, 0.0
    return running


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


def config(server: ChatServer, **changes: Any) -> EndpointConfig:
    settings: dict[str, Any] = {
        "url": server.url, "model": "tiny", "version": "1", "timeout_seconds": 300.0, "tries": 3,
        "first_pause_seconds": 0.01, "longest_pause_seconds": 0.02, **changes,
    }  # fmt: skip
    return EndpointConfig(**settings)


def question(text: str, *pictures: Picture, **changes: Any) -> EndpointQuestion:
    return EndpointQuestion(**{"name": text, "parts": (*pictures, text), "max_tokens": 50, **changes})


def picture(colour: tuple[int, int, int], loads: list[str] | None = None) -> Picture:
    def load() -> tuple[str, bytes]:
        if loads is not None:
            loads.append(str(colour))
        file = io.BytesIO()
        Image.new("RGB", (32, 16), colour).save(file, "png")
        return "image/png", file.getvalue()

    return Picture(sha256=hashlib.sha256(repr(colour).encode()).hexdigest(), load=load)


def test_answers_come_in_order_and_the_model_sees_the_pictures(server: ChatServer, store: Path) -> None:
    questions = [question(f"What is it? {index}", picture((index, 0, 255))) for index in range(12)]
    with Endpoint(config(server, max_concurrent=4), store) as endpoint:
        answers = list(endpoint.ask(questions))
    assert [answer.text for answer in answers] == [
        f"1 pictures; the first has 32x16 px and colour {index},0,255." for index in range(12)
    ]
    assert {answer.outcome for answer in answers} == {Outcome.ANSWERED}
    assert server.most_at_once <= 4
    body = server.asked[0].body
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("tiny", 0.0, 0, 50)


def test_a_second_run_asks_nothing_and_makes_no_picture(server: ChatServer, store: Path) -> None:
    loads: list[str] = []
    asked = [question("What?", picture((1, 2, 3), loads)), question("Where?", picture((1, 2, 3), loads))]
    for _ in range(2):
        with Endpoint(config(server), store) as endpoint:
            answers = list(endpoint.ask(asked))
    assert (len(server.asked), len(loads)) == (2, 2)
    assert [answer.is_stored for answer in answers] == [True, True]
    assert answers[0].text == "1 pictures; the first has 32x16 px and colour 1,2,3."


@pytest.mark.parametrize(
    ("of_question", "of_config"),
    [
        ({"system": "Be brief."}, {}),
        ({"max_tokens": 51}, {}),
        ({"parts": ("What? ",)}, {}),
        ({"schema": {"type": "object"}}, {}),
        ({}, {"model": "other"}),
        ({}, {"version": "2"}),
        ({}, {"temperature": 0.5}),
        ({}, {"extra": {"top_k": 1}}),
    ],
)
def test_what_can_change_an_answer_asks_again(
    server: ChatServer, store: Path, of_question: dict[str, Any], of_config: dict[str, Any]
) -> None:
    with Endpoint(config(server), store) as endpoint:
        list(endpoint.ask([question("What?")]))
    with Endpoint(config(server, **of_config), store) as endpoint:
        list(endpoint.ask([question("What?", **of_question)]))
    assert len(server.asked) == 2


def test_equal_questions_at_once_are_paid_once(server: ChatServer, store: Path) -> None:
    server.delay_seconds = 0.2
    with Endpoint(config(server), store) as endpoint:
        answers = list(endpoint.ask([question("What?"), question("What?")]))
    assert len(server.asked) == 1
    assert answers[0].text == answers[1].text != ""
    assert [answer.is_stored for answer in answers] == [False, True]


@pytest.mark.parametrize(
    ("action", "value"),
    [("status", 429), ("status", 500), ("status", 503), ("cut", None), ("broken_json", None), ("body", {"error": "x"}),
     ("body", {"choices": []}), ("body", [1])],
)  # fmt: skip
def test_a_failure_that_passes_is_tried_again(server: ChatServer, store: Path, action: str, value: Any) -> None:
    server.fault(action, times=2, value=value)
    with Endpoint(config(server), store) as endpoint:
        (answer,) = endpoint.ask([question("What?")])
    assert answer.outcome is Outcome.ANSWERED
    assert len(server.asked) == 3


def test_a_question_that_always_fails_is_named_and_asked_again_by_the_next_run(server: ChatServer, store: Path) -> None:
    server.fault("status", times=3, match="bad", value=500)
    with Endpoint(config(server), store) as endpoint:
        good, bad = endpoint.ask([question("good"), question("bad")])
    assert (good.outcome, bad.outcome, bad.name, bad.text) == (Outcome.ANSWERED, Outcome.FAILED, "bad", "")
    assert "HTTP 500" in bad.reason
    with Endpoint(config(server), store) as endpoint:
        again = list(endpoint.ask([question("good"), question("bad")]))
    assert [(answer.outcome, answer.is_stored) for answer in again] == [
        (Outcome.ANSWERED, True),
        (Outcome.ANSWERED, False),
    ]


@pytest.mark.parametrize("action", ["hang", "drip"])
def test_a_server_that_stalls_is_given_up(server: ChatServer, store: Path, action: str) -> None:
    server.fault(action, times=2)
    with Endpoint(config(server, timeout_seconds=0.4, tries=2), store) as endpoint:
        (answer,) = endpoint.ask([question("What?")])
    assert answer.outcome is Outcome.STALLED
    assert answer.reason == "no answer within 0.4 s"


def test_all_wait_as_long_as_the_server_asks_one_to(server: ChatServer, store: Path) -> None:
    server.fault("status", value=(429, "1"))
    started = time.monotonic()
    with Endpoint(config(server, max_concurrent=1), store) as endpoint:
        answers = list(endpoint.ask([question("a"), question("b")]))
    assert time.monotonic() - started > 1
    assert [answer.outcome for answer in answers] == [Outcome.ANSWERED] * 2


def test_a_server_that_asks_for_hours_is_not_waited_for(server: ChatServer, store: Path) -> None:
    server.fault("status", value=(429, "86400"))
    with Endpoint(config(server), store) as endpoint:
        (answer,) = endpoint.ask([question("a")])
    assert (answer.outcome, len(server.asked)) == (Outcome.FAILED, 1)


def test_requests_keep_to_the_rate(server: ChatServer, store: Path) -> None:
    started = time.monotonic()
    with Endpoint(config(server, requests_per_minute=600), store) as endpoint:
        list(endpoint.ask([question(str(index)) for index in range(6)]))
    assert time.monotonic() - started > 0.5


@pytest.mark.parametrize(
    ("action", "value", "outcome", "words"),
    [
        ("refuse", None, Outcome.REFUSED, "I cannot describe this."),
        ("say", "I'm sorry, but I can't help with that.", Outcome.REFUSED, "the model declined"),
        ("say", ("...", "content_filter"), Outcome.REFUSED, "content filter"),
        ("say", "  \n", Outcome.EMPTY, "the answer is empty"),
        ("say", LOOP, Outcome.REPEATED, "stood in it before"),
        ("say", ("A dog that runs and", "length"), Outcome.CUT_OFF, "cut off after 10 tokens"),
    ],
)
def test_a_reply_that_is_no_answer(
    server: ChatServer, store: Path, action: str, value: Any, outcome: Outcome, words: str
) -> None:
    server.fault(action, times=9, value=value)
    with Endpoint(config(server), store) as endpoint:
        (answer,) = endpoint.ask([question("What?")])
    assert (answer.outcome, answer.text) == (outcome, "")
    assert words in answer.reason
    assert len(server.asked) == (1 if outcome is Outcome.REFUSED else 2)


def test_a_second_attempt_is_another_sample_and_both_are_kept(server: ChatServer, store: Path) -> None:
    server.fault("say", value=LOOP)
    for _ in range(2):
        with Endpoint(config(server), store) as endpoint:
            (answer,) = endpoint.ask([question("What?")])
        assert answer.outcome is Outcome.ANSWERED
    assert [(asked.body["seed"], asked.body["temperature"]) for asked in server.asked] == [(0, 0.0), (1, 0.7)]


def test_the_spend_limit_is_kept_and_a_higher_one_goes_on(server: ChatServer, store: Path) -> None:
    # A reply costs 100 + 10 tokens at 1000 USD a million: 0.11. It can cost 0.152. Four fit: 0.33 + 0.152 < 0.5.
    priced = {"usd_per_million_input_tokens": 1000.0, "usd_per_million_output_tokens": 1000.0, "image_tokens": 100}
    questions = [question(f"{index}", picture((0, 0, index))) for index in range(10)]
    with Endpoint(config(server, spend_limit_usd=0.5, **priced), store) as endpoint:
        first = list(endpoint.ask(questions))
        assert endpoint.spent_usd == pytest.approx(0.44)
    outcomes = [answer.outcome for answer in first]
    assert (outcomes.count(Outcome.ANSWERED), outcomes.count(Outcome.OVER_LIMIT)) == (4, 6)
    over = next(answer for answer in first if answer.outcome is Outcome.OVER_LIMIT)
    assert "the spend limit of 0.5 USD" in over.reason
    assert "0.44 USD are spent" in over.reason
    with Endpoint(config(server, spend_limit_usd=5.0, **priced), store) as endpoint:
        second = list(endpoint.ask(questions))
        assert endpoint.spent_usd == pytest.approx(1.1)
    assert [answer.outcome for answer in second] == [Outcome.ANSWERED] * 10
    assert len(server.asked) == 10


def test_two_clients_of_one_store_share_its_limit(server: ChatServer, store: Path) -> None:
    priced = {"usd_per_million_input_tokens": 1000.0, "usd_per_million_output_tokens": 1000.0}
    shared = config(server, spend_limit_usd=1.0, **priced)  # 0.11 for each reply, of at most 0.177

    def ask(first: int) -> int:
        with Endpoint(shared, store) as endpoint:
            answers = endpoint.ask(question(f"{index}" + "?" * 250) for index in range(first, first + 10))
            return sum(answer.outcome is Outcome.ANSWERED for answer in answers)

    with ThreadPoolExecutor(2) as threads:
        answered = sum(threads.map(ask, (10, 50)))
    opened = AnswerStore(store)
    assert opened.spent_usd() == pytest.approx(0.11 * answered)
    assert opened.spent_usd() <= 1.0
    assert answered == len(server.asked) >= 4
    opened.close()


def test_an_estimate_that_is_too_low_is_corrected(server: ChatServer, store: Path) -> None:
    # One token is expected and 100 are counted, so from the second question on 0.15 is reserved: 0.44 + 0.15 > 0.5.
    priced = {"usd_per_million_input_tokens": 1000.0, "usd_per_million_output_tokens": 1000.0, "max_concurrent": 1}
    with Endpoint(config(server, spend_limit_usd=0.5, **priced), store) as endpoint:
        answers = list(endpoint.ask(question(str(index)) for index in range(8)))
        assert endpoint.spent_usd == pytest.approx(0.44)
    assert [answer.outcome for answer in answers].count(Outcome.ANSWERED) == 4


def test_what_may_have_been_paid_counts(server: ChatServer, store: Path) -> None:
    server.fault("hang")
    priced = {"usd_per_million_output_tokens": 1000.0}
    with Endpoint(config(server, timeout_seconds=0.3, tries=1, **priced), store) as endpoint:
        (answer,) = endpoint.ask([question("What?")])
        assert endpoint.spent_usd == pytest.approx(0.05)
    assert answer.usd == pytest.approx(0.05)


def test_a_wrong_key_ends_the_run_and_is_nowhere_shown(
    server: ChatServer, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.key = "right"
    environment = {"CAPTION_KEY": "sk-secret-and-wrong"}
    with (
        Endpoint(config(server, api_key_env="CAPTION_KEY"), store, environment=environment) as endpoint,
        pytest.raises(ConfigError, match=r"does not take questions to 'tiny'.*HTTP 401.*CAPTION_KEY") as raised,
    ):
        list(endpoint.ask([question("What?")]))
    assert server.asked[0].key == "sk-secret-and-wrong"
    assert "sk-secret" not in str(raised.value)
    assert "sk-secret" not in caplog.text
    assert b"sk-secret" not in store.read_bytes()


def test_a_key_that_is_not_set_is_said_before_anything_is_sent(server: ChatServer, store: Path) -> None:
    with (
        Endpoint(config(server, api_key_env="CAPTION_KEY"), store, environment={}) as endpoint,
        pytest.raises(ConfigError, match="environment variable CAPTION_KEY is not set"),
    ):
        list(endpoint.ask([question("What?")]))
    assert server.asked == []


def test_an_endpoint_that_is_gone_ends_the_run_soon(server: ChatServer, store: Path) -> None:
    server.fault("status", times=1000, match="late", value=500)
    asked = [question(f"early {index}") for index in range(3)] + [question(f"late {index}") for index in range(100)]
    found = []
    with (
        Endpoint(config(server, max_failures_in_a_row=5, tries=1, max_concurrent=2), store) as endpoint,
        pytest.raises(ClusterError, match=r"gave no answer to [56] questions in a row, the last time: HTTP 500"),
    ):
        found += [answer.outcome for answer in endpoint.ask(asked)]
    assert found == []
    assert len(server.asked) < 20
    with Endpoint(config(server), store) as endpoint:
        again = list(endpoint.ask(asked[:3]))
    assert [answer.is_stored for answer in again] == [True] * 3


def test_a_port_where_nobody_listens(server: ChatServer, store: Path) -> None:
    settings = config(server, url="http://127.0.0.1:9/v1", tries=2, usd_per_million_output_tokens=1000.0)
    with Endpoint(settings, store) as endpoint:
        (answer,) = endpoint.ask([question("What?")])
        assert endpoint.spent_usd == 0
    assert answer.outcome is Outcome.FAILED
    assert answer.reason.startswith("the connection failed (ConnectError")


def test_a_picture_that_cannot_be_made_is_not_asked_about(server: ChatServer, store: Path) -> None:
    def load() -> tuple[str, bytes]:
        raise DataError("a.png: it is no picture")

    with Endpoint(config(server), store) as endpoint:
        bad, good = endpoint.ask([question("What?", Picture(sha256="0", load=load)), question("Where?")])
    assert (bad.outcome, bad.reason, good.outcome) == (Outcome.NO_PICTURE, "a.png: it is no picture", Outcome.ANSWERED)


def test_the_store_says_what_was_asked_and_answered(server: ChatServer, store: Path) -> None:
    with Endpoint(config(server), store) as endpoint:
        (answer,) = endpoint.ask([question("What?", picture((9, 9, 9)), system="Be brief.")])
    opened = AnswerStore(store)
    (record,) = opened.records()
    opened.close()
    assert record["key"] == answer.key
    assert record["name"] == "What?"
    assert record["question"]["system"] == "Be brief."
    assert record["question"]["parts"][0].keys() == {"sha256"}
    assert record["reply"]["text"] == answer.text
    assert record["seconds"] > 0


def test_a_damaged_store_is_refused_and_not_replaced(store: Path) -> None:
    store.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    with pytest.raises(StorageError, match=r"answers\.sqlite, the store of answers, cannot be used"):
        AnswerStore(store)
    assert len(store.read_bytes()) == 5016
