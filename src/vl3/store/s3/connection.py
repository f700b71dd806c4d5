"""How to reach an S3 service: from arguments, or from the environment variables that every AWS tool reads."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from vl3.errors import ConfigError

_AWS_ENDPOINT = "https://s3.amazonaws.com"


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Connection:
    """How to reach an S3 service. Its repr leaves out secrets."""

    endpoint: str = _AWS_ENDPOINT
    """Address of the service, http:// or https://, without a path."""
    access_key: str | None = field(default=None, repr=False)
    """Key of the account; None takes it from the environment: a credentials file, a token or a role."""
    secret_key: str | None = field(default=None, repr=False)
    """Secret of the account."""
    session_token: str | None = field(default=None, repr=False)
    """Token of a temporary account."""
    region: str | None = None
    """Region of the bucket; None asks Amazon for it, and is us-east-1 elsewhere."""
    ca_bundle: Path | None = None
    """Certificates (PEM) to trust in addition to the system's."""
    request_timeout_seconds: float = 60.0
    """Longest silence of the server within one request."""
    deadline_seconds: float = 300.0
    """Longest time for one request with all its retries; a large transfer is many requests of 16 MiB."""

    def __post_init__(self) -> None:
        if self.ca_bundle is not None and not self.ca_bundle.is_file():
            raise ConfigError(
                f"AWS_CA_BUNDLE: the file {self.ca_bundle} does not exist. Mount it, or correct the variable."
            )
        if (self.access_key is None) != (self.secret_key is None):
            raise ConfigError("only one of the S3 access key and its secret is set. Set both or neither.")
        parts = _split(self.endpoint)
        if parts is None:
            raise ConfigError(
                f"the S3 endpoint {_without_account(self.endpoint)!r} is malformed. "
                "Write AWS_ENDPOINT_URL as http://host:port or https://host:port, without account or path."
            )

    @property
    def host(self) -> str:
        """Host and port of the endpoint."""
        return urlsplit(self.endpoint).netloc

    @property
    def is_https(self) -> bool:
        """Whether the endpoint speaks TLS."""
        return self.endpoint.startswith("https://")

    @property
    def is_aws(self) -> bool:
        """Whether the service is Amazon's own."""
        return (urlsplit(self.endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def connection_from_environment(environment: Mapping[str, str] = os.environ) -> S3Connection:
    """The connection that the AWS-standard variables describe, read again at each call.

    Raises:
        ConfigError: an endpoint is malformed or the CA bundle is missing.
    """
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or _AWS_ENDPOINT
    bundle = environment.get("AWS_CA_BUNDLE")
    return S3Connection(
        endpoint=endpoint.rstrip("/"),
        access_key=environment.get("AWS_ACCESS_KEY_ID") or None,
        secret_key=environment.get("AWS_SECRET_ACCESS_KEY") or None,
        session_token=environment.get("AWS_SESSION_TOKEN") or None,
        region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or None,
        ca_bundle=Path(bundle) if bundle else None,
    )


def _split(endpoint: str) -> tuple[str, int | None] | None:
    """(host, port) of a well-formed endpoint."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    surplus = parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password
    if parts.scheme not in ("http", "https") or not host or surplus or any(letter.isspace() for letter in endpoint):
        return None
    return host, port


def _without_account(endpoint: str) -> str:
    """The endpoint for messages, without an account: it may contain a password."""
    return endpoint.rpartition("@")[2] if "@" in endpoint else endpoint
