"""Where S3 credentials come from, and how a changed file or token is noticed while running.

A source is what minio calls a provider: the client asks it before every request. No secret appears in a message.
Given keys and the role of a machine use minio's own providers; docs/adr/0009-own-s3-credentials.md says why files and
tokens do not.
"""

import configparser
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

from vl3.errors import StorageError
from vl3.store.s3.connection import S3Connection

if TYPE_CHECKING:
    from minio.credentials import Credentials

_ROLE_SESSION = "vl3"
_REMEDY = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE (and AWS_PROFILE), or "
    "AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CredentialFiles:
    """What the environment says about credentials other than keys."""

    credentials_file: Path | None
    """File of profiles with keys; None if no variable names one and there is none in the home folder."""
    profile: str
    """Profile in that file."""
    token_file: Path | None
    """File with a web identity token, as Kubernetes mounts it."""
    role: str | None
    """Role to assume with that token."""
    sts_endpoint: str | None
    """Service that exchanges the token for keys; None derives it from the S3 endpoint."""
    has_container_role: bool
    """Whether the platform serves keys to this container."""


class CredentialSource(Protocol):
    """Gives the credentials for the next request."""

    name: str
    """Where it looks, for messages."""

    def retrieve(self) -> "Credentials":
        """The current credentials. StorageError if there are none."""

    def refresh(self) -> None:
        """Make the next retrieve read the source again, even if nothing seems to have changed."""


def files_from_environment() -> CredentialFiles:
    """The AWS-standard variables about credential files and roles."""
    token = os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    given = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    usual = Path(os.environ.get("HOME") or "/", ".aws", "credentials")  # a container's user may have no home
    return CredentialFiles(
        credentials_file=Path(given) if given else usual if usual.is_file() else None,
        profile=os.environ.get("AWS_PROFILE") or "default",
        token_file=Path(token) if token else None,
        role=os.environ.get("AWS_ROLE_ARN") or None,
        sts_endpoint=os.environ.get("AWS_ENDPOINT_URL_STS") or None,
        has_container_role=any(name.startswith("AWS_CONTAINER_CREDENTIALS_") for name in os.environ),
    )


def choose_source(connection: S3Connection, files: CredentialFiles, http: Any) -> CredentialSource:
    """The first available source, in the order of the AWS tools: keys, web identity, file, role of the machine.

    Raises:
        StorageError: there is none.
    """
    if connection.access_key is not None and connection.secret_key is not None:
        return StaticSource(connection.access_key, connection.secret_key, connection.session_token)
    if files.token_file is not None and files.role is not None:
        return FileSource(files.token_file, "the web identity token", _assume_role(connection, files, http))
    if files.credentials_file is not None:
        return FileSource(
            files.credentials_file, f"profile {files.profile!r}", lambda text: _from_profile(text, files.profile)
        )
    if files.has_container_role or connection.is_aws:
        return MachineSource()
    raise StorageError(f"{connection.endpoint}: no credentials for this S3 server were found. {_REMEDY}")


class StaticSource:
    """Keys from an argument or the environment."""

    name = "AWS_ACCESS_KEY_ID"

    def __init__(self, access_key: str, secret_key: str, session_token: str | None) -> None:
        from minio.credentials import StaticProvider

        self.retrieve = StaticProvider(access_key, secret_key, session_token).retrieve

    def refresh(self) -> None:
        """Do nothing: given keys do not change."""


class FileSource:
    """Keys read from a file, or exchanged for the token in it; read again when the file changes or the keys expire.

    How a rotation goes: keys A were read at mtime 100. The file is rewritten at 200 with keys B, so the next retrieve
    reads it again. If it is incomplete at that moment, A stays in use (unless expired), and since the stamp is still
    100, the retrieve after that tries again and returns B.
    """

    def __init__(self, path: Path, what: str, read: Callable[[str], Any]) -> None:
        """Remember where to look; nothing is read yet.

        Args:
            path: the file; Kubernetes updates a mounted secret by switching a link.
            what: what it contains, for messages.
            read: makes credentials from the file's text. ValueError if it cannot.
        """
        self.name = f"{what} in {path}"
        self._path, self._read = path, read
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] | None = None
        self._credentials: Any = None

    def retrieve(self) -> "Credentials":
        """See CredentialSource."""
        with self._lock:
            stamp = self._current_stamp()
            if self._credentials is None or stamp != self._stamp or self._credentials.is_expired():
                self._load(stamp)
            return self._credentials

    def refresh(self) -> None:
        """See CredentialSource."""
        with self._lock:
            self._stamp = None

    def _current_stamp(self) -> tuple[int, ...] | None:
        try:
            facts = self._path.stat()
        except OSError:
            return None
        return facts.st_mtime_ns, facts.st_ino, facts.st_size

    def _load(self, stamp: tuple[int, ...] | None) -> None:
        try:
            self._credentials = self._read(self._path.read_text(encoding="utf-8"))
            self._stamp = stamp
        except (OSError, ValueError, configparser.Error) as error:
            if self._credentials is not None and not self._credentials.is_expired():
                return  # the file is just being replaced: keep what was read before until the server refuses it
            reason = type(error).__name__ if isinstance(error, configparser.Error) else error
            raise StorageError(f"no S3 credentials from {self.name} ({reason}). {_REMEDY}") from None


class MachineSource:
    """The role that the platform gave to the machine or the pod."""

    name = "the role of this machine"

    def __init__(self) -> None:
        from minio.credentials import IamAwsProvider
        from urllib3 import PoolManager, Retry, Timeout

        # The metadata service is on the same machine or does not exist, so do not wait long for it.
        self._make = lambda: IamAwsProvider(http_client=PoolManager(timeout=Timeout(2.0), retries=Retry(1)))
        self._provider = self._make()
        self._lock = threading.Lock()

    def retrieve(self) -> "Credentials":
        """See CredentialSource."""
        from urllib3.exceptions import HTTPError

        with self._lock:
            try:
                return self._provider.retrieve()
            except (HTTPError, OSError, ValueError, KeyError) as error:
                raise StorageError(
                    f"no S3 credentials: none are set, and {self.name} gave none ({type(error).__name__}). {_REMEDY}"
                ) from None

    def refresh(self) -> None:
        """See CredentialSource."""
        with self._lock:
            self._provider = self._make()


def _from_profile(text: str, profile: str) -> "Credentials":
    from minio.credentials import Credentials

    parser = configparser.RawConfigParser()
    parser.read_string(text)
    access_key, secret_key, session_token = (
        parser.get(profile, f"aws_{name}", fallback="")
        for name in ("access_key_id", "secret_access_key", "session_token")
    )
    if not (access_key and secret_key):
        raise ValueError("aws_access_key_id or aws_secret_access_key is missing")
    return Credentials(access_key, secret_key, session_token or None)


def _assume_role(connection: S3Connection, files: CredentialFiles, http: Any) -> Callable[[str], "Credentials"]:
    """A function that exchanges a web identity token for keys. The token is in the body, because URLs are logged."""
    if files.sts_endpoint:
        endpoint = files.sts_endpoint
    elif connection.is_aws:
        endpoint = (
            f"https://sts.{connection.region}.amazonaws.com" if connection.region else "https://sts.amazonaws.com"
        )
    else:
        endpoint = connection.endpoint

    def assume(token: str) -> "Credentials":
        from urllib3.exceptions import HTTPError

        body = urlencode(
            {
                "Action": "AssumeRoleWithWebIdentity",
                "Version": "2011-06-15",
                "RoleArn": files.role,
                "RoleSessionName": _ROLE_SESSION,
                "WebIdentityToken": token.strip(),
            }
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            response = http.request("POST", f"{endpoint.rstrip('/')}/", body=body, headers=headers)
        except HTTPError as error:
            host = urlsplit(endpoint).netloc
            raise ValueError(f"the token service at {host} does not answer: {type(error).__name__}") from None
        return _parse_role(response.status, response.data)

    return assume


def _parse_role(status: int, data: bytes) -> "Credentials":
    """Credentials from an answer of the token service; they count as expired a minute early.

    An answer with `<Expiration>2026-01-31T12:00:00Z</Expiration>` gives keys that are renewed from 11:59:00 on.
    """
    from minio.credentials import Credentials
    from minio.time import from_iso8601utc

    try:
        root = ElementTree.fromstring(data)  # noqa: S314 (the answer of a service that we trust with our token)
    except ElementTree.ParseError:
        raise ValueError(f"the token service answered {status} with something other than XML") from None
    found = {element.tag.rpartition("}")[2]: element.text or "" for element in root.iter()}
    if status != 200 or "AccessKeyId" not in found:
        raise ValueError(f"the token service refused the token with {status} {found.get('Code', '')}")
    missing = [name for name in ("AccessKeyId", "SecretAccessKey", "Expiration") if not found.get(name)]
    if missing:
        raise ValueError(f"the token service answered without {', '.join(missing)}")
    expires = from_iso8601utc(found["Expiration"])
    assert expires is not None  # minio returns None only for no text
    session_token = found.get("SessionToken") or None
    return Credentials(found["AccessKeyId"], found["SecretAccessKey"], session_token, expires - timedelta(seconds=60))
