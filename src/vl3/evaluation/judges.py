"""A judge: a model behind an OpenAI-compatible endpoint that says whether an answer is right, or none.

Every question to the judge and its answer is kept in a file, which is also the cache: the same question is never paid
for twice. What got no answer has no score: `Verdict.text` is None, with the reason, and nobody makes a zero of it.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vl3.errors import ConfigError

Message = Mapping[str, Any]
"""`role` and `content`, as the chat API has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeConfig:
    """Where a judge is, and what it may cost."""

    url: str
    """Base of the API, such as https://judge.example/v1; a vLLM server of one's own is as good."""
    model: str
    """The model that is asked, whatever model a benchmark names."""
    timeout_seconds: float = 60.0
    tries: int = 4
    """Tries of one question, with growing pauses."""
    requests_per_minute: int = 0
    """Most requests a minute; 0 for as many as it takes."""
    max_requests: int = 0
    """Most requests of an evaluation; 0 for no limit. What is over it is not judged."""
    max_tokens_total: int = 0
    """Most tokens of an evaluation, questions and answers; 0 for no limit."""
    max_answer_tokens: int = 512
    failures_until_down: int = 5
    """After so many questions in a row without an answer the judge is taken for down, and is not asked any more."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if not self.url.startswith(("http://", "https://")) or not self.model:
            raise ConfigError(
                f"the judge's url is {self.url!r} and its model {self.model!r}. Give the address of an "
                "OpenAI-compatible API, such as http://localhost:8000/v1, and the name of a model there."
            )
        for name in ("tries", "failures_until_down", "max_answer_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"judge.{name}={getattr(self, name)} must be at least 1. Raise it.")
        for name in ("requests_per_minute", "max_requests", "max_tokens_total"):
            if getattr(self, name) < 0:
                raise ConfigError(f"judge.{name}={getattr(self, name)} must not be negative. Use 0 for no limit.")
        if not self.timeout_seconds > 0:
            raise ConfigError(f"judge.timeout_seconds={self.timeout_seconds:g} must be above 0. Raise it.")


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeVerdict:
    """What a judge answered."""

    text: str | None
    """Its words; None if there are none."""
    why: str = ""
    """Why there are none."""
    tokens: int = 0
    cached: bool = False


class Endpoint(Protocol):
    """Sends one question; returns the answer's text and the number of tokens of both."""

    def __call__(self, messages: Sequence[Message]) -> tuple[str, int]:
        """Raise JudgeFailure if there is no answer."""
        ...


class JudgeFailure(Exception):
    """One try got no answer."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        """Keep the reason, and whether another try would end alike."""
        super().__init__(reason)
        self.is_final = is_final


class JudgeClient:
    """Asks a judge, within its limits, once for each different question. Several threads may ask."""

    def __init__(
        self,
        config: JudgeConfig,
        records: Path,
        endpoint: Endpoint,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read what was asked before.

        Args:
            config: limits.
            records: file of questions and answers, a JSON line each; made if it does not exist.
            endpoint: sends one question.
            sleep: waits, in seconds.
            clock: the time in seconds.
        """
        self._config, self._records, self._endpoint = config, records, endpoint
        self._sleep, self._clock = sleep, clock
        self._lock = threading.Lock()
        self._known = _read_records(records, config.model)
        self._next_seconds = 0.0
        self._failures_in_a_row = 0
        self.requests, self.tokens = 0, 0
        """Requests sent, and tokens used, by this client."""

    def ask(self, messages: Sequence[Message]) -> JudgeVerdict:
        """The judge's words on a question, from the records if it was asked before."""
        key = question_key(self._config.model, messages)
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            return JudgeVerdict(text=known, cached=True)
        failure = self._refusal()
        if failure:
            return JudgeVerdict(text=None, why=failure)
        text, tokens, why = self._try(messages)
        with self._lock:
            self.tokens += tokens
            self._failures_in_a_row = self._failures_in_a_row + 1 if text is None else 0
            if text is not None:
                self._known[key] = text
            self._keep(key, messages, text, why, tokens)
        return JudgeVerdict(text=text, why=why, tokens=tokens)

    def _refusal(self) -> str:
        """Why the judge is not asked any more; empty if it is."""
        config = self._config
        with self._lock:
            if self._failures_in_a_row >= config.failures_until_down:
                return f"the judge at {_host(config.url)} gave no answer {self._failures_in_a_row} times in a row"
            if config.max_requests and self.requests >= config.max_requests:
                return f"the limit of {config.max_requests} requests to the judge is used up (judge.max_requests)"
            if config.max_tokens_total and self.tokens >= config.max_tokens_total:
                return f"the limit of {config.max_tokens_total} tokens of the judge is used up (judge.max_tokens_total)"
        return ""

    def _try(self, messages: Sequence[Message]) -> tuple[str | None, int, str]:
        why = ""
        for number in range(self._config.tries):
            if number:
                self._sleep(min(2.0**number, 30.0))
            self._wait_for_turn()
            try:
                text, tokens = self._endpoint(messages)
            except JudgeFailure as failure:
                why = str(failure)
                if failure.is_final:
                    break
                continue
            if text.strip():
                return text, tokens, ""
            why = "the judge's answer is empty"
        return None, 0, why

    def _wait_for_turn(self) -> None:
        """Count a request, and keep to the rate: at 60 a minute the third one starts 2 s after the first."""
        with self._lock:
            self.requests += 1
            if not self._config.requests_per_minute:
                return
            now = self._clock()
            turn = max(now, self._next_seconds)
            self._next_seconds = turn + 60.0 / self._config.requests_per_minute
        self._sleep(turn - now)

    def _keep(self, key: str, messages: Sequence[Message], text: str | None, why: str, tokens: int) -> None:
        self._records.parent.mkdir(parents=True, exist_ok=True)
        line = {
            "key": key,
            "model": self._config.model,
            "messages": list(messages),
            "answer": text,
            "why": why,
            "tokens": tokens,
        }
        with self._records.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def question_key(model: str, messages: Sequence[Message]) -> str:
    """Digest of a model and a question."""
    return hashlib.sha256(json.dumps([model, list(messages)], sort_keys=True).encode()).hexdigest()


def openai_endpoint(config: JudgeConfig, api_key: str | None) -> Endpoint:
    """Asks through the openai client; retries are the caller's.

    Args:
        config: where the judge is.
        api_key: None for a server that asks for none.

    Raises:
        ConfigError: the openai package is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise ConfigError(
            "a judge is asked through the openai package, which is missing. Install vl3's extra `eval`."
        ) from error
    client = openai.OpenAI(
        base_url=config.url, api_key=api_key or "none", timeout=config.timeout_seconds, max_retries=0
    )

    def ask(messages: Sequence[Message]) -> tuple[str, int]:
        try:
            reply = client.chat.completions.create(
                model=config.model,
                messages=list(messages),  # type: ignore[arg-type]
                temperature=0.0,
                max_tokens=config.max_answer_tokens,
            )
        except openai.APIStatusError as error:
            # 408, 409, 429 and the server's own errors pass; a wrong key or model does not.
            final = error.status_code < 500 and error.status_code not in (408, 409, 429)
            raise JudgeFailure(f"the judge refused with HTTP {error.status_code}", is_final=final) from error
        except openai.APITimeoutError as error:
            raise JudgeFailure(f"the judge did not answer within {config.timeout_seconds:g} s") from error
        except openai.OpenAIError as error:
            raise JudgeFailure(f"the judge cannot be reached ({type(error).__name__})") from error
        except ValueError as error:  # not the JSON of a chat completion
            raise JudgeFailure("the judge's reply is not a chat completion") from error
        return _content(reply)

    return ask


def _content(reply: Any) -> tuple[str, int]:
    choices = getattr(reply, "choices", None)
    text = getattr(getattr(choices[0], "message", None), "content", None) if choices else None
    if not isinstance(text, str):
        raise JudgeFailure("the judge's reply has no text")
    usage = getattr(reply, "usage", None)
    return text, int(getattr(usage, "total_tokens", 0) or 0)


def _read_records(path: Path, model: str) -> dict[str, str]:
    """Answers by question's key; lines that a kill cut short are left out."""
    known: dict[str, str] = {}
    if not path.is_file():
        return known
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if fields.get("model") == model and isinstance(fields.get("answer"), str):
            known[fields["key"]] = fields["answer"]
    return known


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(url).hostname or url
