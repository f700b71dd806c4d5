"""A judge: a model that says whether an answer is right, or none.

Every question to the judge and its answer is kept in a file, which is also the cache: the same question is never paid
for twice. What got no answer has no score: `JudgeVerdict.text` is None, with the reason, and nobody makes a zero of it.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from vl3.config.endpoint import EndpointConfig
from vl3.endpoint.answer import EndpointAnswer, Outcome
from vl3.endpoint.client import Endpoint
from vl3.endpoint.question import EndpointQuestion, Part, Picture
from vl3.errors import DataError, Vl3Error

Message = Mapping[str, Any]
"""`role` and `content`, as the chat API has them."""
VERDICT_TOKENS = 512
"""Maximum tokens of a verdict."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeVerdict:
    """What a judge answered."""

    text: str | None
    """Its words; None if there are none."""
    why: str = ""
    """Why there are none."""
    tokens: int = 0
    cached: bool = False


class AnswerJudge(Protocol):
    """Says its words on a question."""

    def ask(self, messages: Sequence[Message]) -> JudgeVerdict:
        """The judge's words, or why there are none; several threads may ask."""
        ...

    def ask_all(self, questions: Sequence[Sequence[Message]]) -> list[JudgeVerdict]:
        """The same for many questions, as many of them at the same time as the judge takes."""
        ...

    def close(self) -> None:
        """Close its records."""
        ...


class EndpointJudge:
    """A judge behind an endpoint, within the endpoint's limits."""

    def __init__(self, config: EndpointConfig, records: Path, *, environment: Mapping[str, str] = os.environ) -> None:
        """Nothing is asked yet.

        Args:
            config: where the judge is, and what it may cost.
            records: file of questions and answers; made if it does not exist.
            environment: where its key is.

        Raises:
            StorageError: the file cannot be used.
        """
        self._endpoint = Endpoint(config, records, environment=environment)
        self._gone = ""

    def ask(self, messages: Sequence[Message]) -> JudgeVerdict:
        """See AnswerJudge."""
        (verdict,) = self.ask_all([messages])
        return verdict

    def ask_all(self, questions: Sequence[Sequence[Message]]) -> list[JudgeVerdict]:
        """See AnswerJudge. An endpoint that is gone, or refuses the key, is not asked any more."""
        read = [_read(messages) for messages in questions]
        verdicts = iter(self._verdicts([one for one in read if isinstance(one, EndpointQuestion)]))
        return [next(verdicts) if isinstance(one, EndpointQuestion) else one for one in read]

    def _verdicts(self, questions: Sequence[EndpointQuestion]) -> list[JudgeVerdict]:
        verdicts: list[JudgeVerdict] = []
        try:
            if not self._gone:
                verdicts.extend(map(_verdict, self._endpoint.ask(questions)))
        except Vl3Error as error:
            self._gone = str(error)
        return [*verdicts, *[JudgeVerdict(text=None, why=self._gone)] * (len(questions) - len(verdicts))]

    def close(self) -> None:
        """See AnswerJudge."""
        self._endpoint.close()


def _read(messages: Sequence[Message]) -> EndpointQuestion | JudgeVerdict:
    try:
        return read_question(messages)
    except DataError as error:
        return JudgeVerdict(text=None, why=str(error))


def _verdict(answer: EndpointAnswer) -> JudgeVerdict:
    if answer.outcome is not Outcome.ANSWERED:
        return JudgeVerdict(text=None, why=f"the judge gave no verdict: {answer.reason}")
    tokens = answer.input_tokens + answer.output_tokens
    return JudgeVerdict(text=answer.text, tokens=tokens, cached=answer.is_stored)


def read_question(messages: Sequence[Message]) -> EndpointQuestion:
    """The messages of a task as one question: systems' texts before, everything else in its order.

    Raises:
        DataError: a content is neither text nor a picture.
    """
    system = [part for one in messages if one["role"] == "system" for part in _parts(one)]
    parts = [part for one in messages if one["role"] != "system" for part in _parts(one)]
    return EndpointQuestion(
        name=hashlib.sha256(json.dumps(list(messages), sort_keys=True).encode()).hexdigest()[:16],
        system="\n".join(part for part in system if isinstance(part, str)),
        parts=tuple(parts),
        max_tokens=VERDICT_TOKENS,
    )


def _parts(message: Message) -> list[Part]:
    content = message["content"]
    if isinstance(content, str):
        return [content]
    return [_part(one) for one in content]


def _part(content: Mapping[str, Any]) -> Part:
    if content.get("type") == "text":
        return str(content["text"])
    head, _, data = str((content.get("image_url") or {}).get("url", "")).partition(";base64,")
    if not data:
        raise DataError(
            f"a benchmark shows the judge {content.get('type')!r:.100}, which is neither text nor a picture."
        )
    digest = hashlib.sha256(data.encode()).hexdigest()
    return Picture(sha256=digest, load=partial(_picture, head.removeprefix("data:"), data))


def _picture(kind: str, data: str) -> tuple[str, bytes]:
    try:
        return kind, base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise DataError(f"a benchmark shows the judge a picture that cannot be read ({error}).") from error
