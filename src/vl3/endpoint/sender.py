"""Sends one request and reads what comes back; the only module that knows OpenAI's client.

The client's own retries are off: they know neither the limits of others nor what a request has cost.
"""

import asyncio
import email.utils
import os
import time
from collections.abc import Mapping
from typing import Any

from vl3.config.endpoint import EndpointConfig
from vl3.endpoint.answer import Outcome, Reply, plain
from vl3.errors import ConfigError
from vl3.system.documents import parse_object

_LONGEST_ASKED_SECONDS = 600.0
"""A server that asks for more will not answer in this run."""
_MAX_REPLY_BYTES = 16 * 2**20
_PASSING = frozenset({408, 409, 425, 429})
_SETUP = frozenset({401, 403, 404})
_NO_KEY = "none"  # the client wants one; servers without keys do not look at it


class SendError(Exception):
    """A request without a reply.

    Attributes:
        outcome: what becomes of the question if no later try succeeds.
        reason: what went wrong.
        may_pass: whether sending it again can succeed.
        wait_seconds: how long the server asked to wait.
        may_be_paid: whether the model may have worked, so that nobody knows what it cost.
        is_setup: whether it is the address, key or model that is wrong, which no other question can mend.
    """

    def __init__(
        self,
        outcome: Outcome,
        reason: str,
        *,
        may_pass: bool = True,
        wait_seconds: float = 0.0,
        may_be_paid: bool = False,
        is_setup: bool = False,
    ) -> None:
        super().__init__(reason)
        self.outcome, self.reason, self.may_pass, self.wait_seconds = outcome, reason, may_pass, wait_seconds
        self.may_be_paid, self.is_setup = may_be_paid, is_setup


class RequestSender:
    """A client of one endpoint. Make and use it within one event loop; `close` it."""

    def __init__(self, config: EndpointConfig, environment: Mapping[str, str] = os.environ) -> None:
        """Nothing is sent yet.

        Raises:
            ConfigError: the variable of the key is not set.
        """
        self._config = config
        self._key = api_key(config, environment)

        import openai  # takes half a second, which only who asks should pay

        self._openai = openai
        self._client = openai.AsyncOpenAI(
            api_key=self._key or _NO_KEY, base_url=config.url, timeout=config.timeout_seconds, max_retries=0
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    async def send(self, request: dict[str, Any]) -> Reply:
        """Send a request once.

        Raises:
            SendError: there is no reply, or none that can be read.
        """
        openai, limit_seconds = self._openai, self._config.timeout_seconds
        try:
            async with asyncio.timeout(limit_seconds):  # the client's own limit is on each read: a drip would pass it
                raw = await self._client.chat.completions.with_raw_response.create(**request)
                content = raw.content
        except (TimeoutError, openai.APITimeoutError) as error:
            reason = f"no answer within {limit_seconds:g} s"
            raise SendError(Outcome.STALLED, reason, may_be_paid=True) from error
        except openai.APIStatusError as error:
            raise self._status_error(error) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            reason = f"the connection failed ({type(cause).__name__}: {self._safe(str(cause))})"
            raise SendError(Outcome.FAILED, reason, may_be_paid=type(cause).__name__ != "ConnectError") from error
        except openai.OpenAIError as error:
            raise SendError(Outcome.FAILED, self._safe(str(error)), may_be_paid=True) from error
        if len(content) > _MAX_REPLY_BYTES:
            reason = f"the reply has {len(content)} bytes, more than any answer"
            raise SendError(Outcome.FAILED, reason, may_pass=False, may_be_paid=True)
        try:
            return _parse(content)
        except (ValueError, TypeError, LookupError) as error:
            reason = f"the reply is no chat completion ({self._safe(str(error))})"
            raise SendError(Outcome.FAILED, reason, may_be_paid=True) from error

    def _status_error(self, error: Any) -> SendError:
        status = error.status_code
        reason = f"HTTP {status}: {self._safe(error.message)}"
        if status == 429 and getattr(error, "code", None) == "insufficient_quota":
            return SendError(Outcome.FAILED, reason, may_pass=False, is_setup=True)
        if status in _PASSING or status >= 500:
            wait_seconds = _retry_after(error.response.headers.get("retry-after", ""))
            may_pass = wait_seconds <= _LONGEST_ASKED_SECONDS
            return SendError(Outcome.FAILED, reason, may_pass=may_pass, wait_seconds=wait_seconds)
        return SendError(Outcome.REJECTED, reason, may_pass=False, is_setup=status in _SETUP)

    def _safe(self, text: str) -> str:
        """What a server says, without the key, which some repeat in their errors."""
        return plain(text.replace(self._key, "***") if self._key else text)


def api_key(config: EndpointConfig, environment: Mapping[str, str]) -> str:
    """The key from the variable that the configuration names; empty if it names none.

    Raises:
        ConfigError: the variable is not set.
    """
    if config.api_key_env is None:
        return ""
    key = environment.get(config.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {config.api_key_env} is not set, and the endpoint {config.url} wants its key. "
            "Set it, or set endpoint.api_key_env to null for a server without keys."
        )
    return key


def _parse(content: bytes) -> Reply:
    data = parse_object(content)
    if "error" in data and "choices" not in data:
        raise ValueError(f"an error with status 200: {data['error']}")
    choice = data["choices"][0]
    message = choice["message"]
    text = message.get("content") or ""
    if isinstance(text, list):
        text = "".join(part.get("text", "") for part in text)
    if not isinstance(text, str):
        raise TypeError(f"its content is a {type(text).__name__}")
    usage = data.get("usage") or {}
    return Reply(
        text=text,
        refusal=str(message.get("refusal") or ""),
        finish_reason=str(choice.get("finish_reason") or ""),
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
    )


def _count(value: Any) -> int:
    """A number of tokens; -1 if the server does not say."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else -1


def _retry_after(value: str) -> float:
    """Seconds that a server asks for, as a number or as a date; 0 if it says nothing that can be read."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
