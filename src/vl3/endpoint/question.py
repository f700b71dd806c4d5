"""What is asked: text and pictures, and the digest by which an answer is found again.

A picture is named by the digest of what it was made from and of how; its bytes are made only when the question is
really sent. So a run that finds all its answers decodes no picture.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from vl3.config.endpoint import EndpointConfig

_FORMAT = 1
"""Changes when equal questions are sent otherwise than before."""
_BYTES_PER_TOKEN = 2
"""Few: an estimate of what a question costs should not be too low."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture that is shown."""

    sha256: str
    """Digest of the file that it is made from, with all that decides how it is made."""
    load: Callable[[], tuple[str, bytes]]
    """Makes it: its type, such as `image/jpeg`, and its bytes. A DataError says that it cannot be made."""


Part: TypeAlias = "str | Picture"


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointQuestion:
    """One question of its own, without a history."""

    name: str
    """What it is about, for messages and records; does not count for the answer."""
    parts: tuple[Part, ...]
    """Texts and pictures in the order in which they are shown."""
    max_tokens: int
    """Of the answer."""
    system: str = ""
    """Instruction that goes before; empty for none."""
    schema: dict[str, Any] | None = None
    """JSON schema that the answer has to follow, for servers that enforce it (vLLM does)."""
    check: Callable[[str], str] = field(default=lambda _: "")
    """Says why a text is no answer to this question; empty if it is one."""

    def facts(self, config: EndpointConfig, attempt: int) -> dict[str, Any]:
        """What the answer depends on: of a picture the digest, of the server the model and how it samples."""
        return {
            "format": _FORMAT,
            "model": config.model,
            "version": config.version,
            "system": self.system,
            "parts": [part if isinstance(part, str) else {"sha256": part.sha256} for part in self.parts],
            **self._sampling(config, attempt),
        }

    def request(self, config: EndpointConfig, attempt: int) -> dict[str, Any]:
        """The arguments of the client's call; makes the pictures.

        Raises:
            DataError: a picture cannot be made.
        """
        sampling = self._sampling(config, attempt)
        system = [{"role": "system", "content": self.system}] if self.system else []
        user = {"role": "user", "content": [_content(part) for part in self.parts]}
        schema = sampling.pop("schema")
        if schema is not None:
            named = {"name": "answer", "schema": schema, "strict": True}
            sampling["response_format"] = {"type": "json_schema", "json_schema": named}
        extra = sampling.pop("extra")
        return {"model": config.model, "messages": [*system, user], "extra_body": extra or None, **sampling}

    def input_tokens(self, config: EndpointConfig) -> int:
        """About how many tokens the question has: rather too many than too few."""
        texts = [self.system, *(part for part in self.parts if isinstance(part, str))]
        size_bytes = sum(len(text.encode()) for text in texts)
        pictures = sum(isinstance(part, Picture) for part in self.parts)
        return size_bytes // _BYTES_PER_TOKEN + pictures * config.image_tokens + 1

    def _sampling(self, config: EndpointConfig, attempt: int) -> dict[str, Any]:
        return {
            "temperature": config.attempt_temperature if attempt else config.temperature,
            "seed": config.seed + attempt,
            "max_tokens": self.max_tokens,
            "schema": self.schema,
            "extra": config.extra,
        }


def key_of(facts: dict[str, Any]) -> str:
    """SHA-256 of the facts as JSON, whatever the order of their names."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _content(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind, data = part.load()
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}
