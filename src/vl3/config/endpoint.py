"""An endpoint that answers questions about text and pictures: any server that speaks OpenAI's chat completions.

`vllm serve MODEL` is one, and so is the server of a provider. What is asked is in `vl3.endpoint`.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from vl3.config.checks import Count, Range, Seconds, check_fields
from vl3.config.codec import from_dict
from vl3.errors import ConfigError
from vl3.system.secrets import holds_secret, masked
from vl3.system.strict_yaml import parse_yaml

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DECISIVE = ("model", "version", "temperature", "seed", "extra", "attempts", "attempt_temperature")
_OURS = frozenset({"model", "messages", "max_tokens", "temperature", "seed", "response_format", "stream", "n"})


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointConfig:
    """Where a model is served, how it is asked, and what that may cost."""

    url: str
    """Address of the API, such as `http://localhost:8000/v1`; never with a password or key."""
    model: str
    """Name by which the server knows the model."""
    version: str
    """Which weights it serves: a revision or date. Part of the key of an answer, as the name may move on to others."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; None if the server wants none."""
    temperature: Annotated[float, Range(at_least=0, at_most=2)] = 0.0
    """Sampling temperature of the first attempt; 0 takes the likeliest token."""
    seed: Annotated[int, Range(at_least=0, at_most=2**31)] = 0
    """Sent with each question; a further attempt takes the next one."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of the request, such as vLLM's `mm_processor_kwargs`. Part of the key of an answer."""
    attempts: Count = 2
    """How often a question is put whose answer is empty, is cut off or repeats itself. Each attempt is paid."""
    attempt_temperature: Annotated[float, Range(at_least=0, at_most=2)] = 0.7
    """Sampling temperature of further attempts: at 0 a model repeats its answer."""
    max_concurrent: Count = 16
    """Questions in flight at once."""
    requests_per_minute: Annotated[float, Range(above=0, at_most=1e9)] | None = None
    """What the server allows; None for no limit but its own."""
    timeout_seconds: Seconds = 120.0
    """How long one request may take, whole."""
    tries: Count = 4
    """How often a request is sent that the server fails to answer."""
    first_pause_seconds: Seconds = 1.0
    """Longest pause after the first failure; it doubles with each."""
    longest_pause_seconds: Seconds = 60.0
    """Upper limit of those pauses. A server that asks for up to ten minutes gets them."""
    max_failures_in_a_row: Count = 20
    """So many questions in a row without any answer mean that the endpoint is gone, and end the run."""
    usd_per_million_input_tokens: Annotated[float, Range(at_least=0, at_most=1e6)] = 0.0
    """Price; 0 where the machine is paid by the hour."""
    usd_per_million_output_tokens: Annotated[float, Range(at_least=0, at_most=1e6)] = 0.0
    """Price; 0 where the machine is paid by the hour."""
    image_tokens: Count = 3328
    """Tokens that a picture counts for when spending is planned. InternVL2: 256 for each of 13 tiles."""
    spend_limit_usd: Annotated[float, Range(above=0, at_most=1e9)] | None = None
    """What all runs that share the store of answers may spend together; None for no limit."""

    def __post_init__(self) -> None:
        """Refuse what could not work, or would publish a key."""
        check_fields(self, "endpoint")
        if holds_secret(self.url, is_address=True):
            raise ConfigError(
                f"endpoint.url {masked(self.url)!r} has a password or key, which would be written to logs and records. "
                "Put it into an environment variable and name that in endpoint.api_key_env."
            )
        try:
            parts = urlsplit(self.url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_address = False
        if not is_address:
            raise ConfigError(f"endpoint.url {self.url!r:.200} is no address. Write it as http(s)://host:port/v1.")
        for name in ("model", "version"):
            if not getattr(self, name).strip():
                raise ConfigError(f"endpoint.{name} is empty, so answers could not be told apart by it. Write it.")
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            # Not shown: it may be the key itself.
            raise ConfigError(
                "endpoint.api_key_env is not the name of an environment variable. Name the variable that holds the "
                "key; never write the key itself."
            )
        if taken := sorted(_OURS & self.extra.keys()):
            raise ConfigError(f"endpoint.extra has {', '.join(taken)}, which vl3 writes itself. Leave it out there.")
        if self.spend_limit_usd is not None and not (
            self.usd_per_million_input_tokens or self.usd_per_million_output_tokens
        ):
            raise ConfigError(
                f"endpoint.spend_limit_usd={self.spend_limit_usd:g} would never be reached, because both prices are 0. "
                "Write what the tokens cost, or set it to null."
            )

    def decisive(self) -> dict[str, Any]:
        """What of it decides an answer: neither the address nor limits nor prices."""
        return {name: getattr(self, name) for name in _DECISIVE}


def read_endpoint(path: Path) -> EndpointConfig:
    """The endpoint of a YAML file with the fields of `EndpointConfig`.

    Raises:
        ConfigError: the file cannot be read, or a field is unknown, missing or wrong.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}). Name a YAML file of an endpoint.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} has no fields of an endpoint. Write at least url, model and version.")
    return from_dict(EndpointConfig, data)
