"""One minio client per service and account in this process: pooled, thread safe, with retries and deadlines."""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vl3.errors import ConfigError, StorageError
from vl3.store.s3.connection import S3Connection
from vl3.store.s3.credentials import CredentialFiles, choose_source, files_from_environment
from vl3.store.s3.errors import (
    DeadlineError,
    RetryVerdict,
    code_of,
    explain,
    failures,
    status_of,
    verdict_of,
    wait_asked_for,
)
from vl3.system.retry import Pauses, retry

if TYPE_CHECKING:
    from minio.credentials import Provider

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
FIRST_CONTACT_TRIES = 8
"""About 20 s: if the server never answered, the endpoint is probably wrong."""
MAX_TRIES = 40
"""More than fit into a deadline: a server that answered before may be restarting, so only the deadline ends it."""
PAUSES = Pauses(first_seconds=0.2, longest_seconds=10.0)
_LONGEST_WISH_SECONDS = 60.0
_POOL_CONNECTIONS = 16

T = TypeVar("T")


class Deadline:
    """The end of one request with all its retries."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._started = time.monotonic()

    @property
    def spent_seconds(self) -> float:
        """Time since the first try."""
        return time.monotonic() - self._started

    def check(self) -> None:
        """Raise DeadlineError when time is up: a body that arrives slowly enough never hits a socket timeout."""
        if self.spent_seconds > self.seconds:
            raise DeadlineError(f"more than {self.seconds:.0f} s")


class S3Client:
    """Calls of the minio client, retried if the error is transient, with errors that say what to do."""

    def __init__(self, connection: S3Connection, files: CredentialFiles) -> None:
        """Open the pool; nothing is sent yet.

        Raises:
            StorageError: no credentials are set.
            ConfigError: the CA bundle is not a file of certificates.
        """
        from minio import Minio

        self.connection = connection
        http = _pool(connection)
        self._source = choose_source(connection, files, http)
        self.minio = Minio(
            connection.host,
            secure=connection.is_https,
            region=connection.region or (None if connection.is_aws else "us-east-1"),  # saves a request
            credentials=cast("Provider", self._source),  # minio calls only retrieve()
            http_client=http,
        )
        self.num_retries = 0
        """Retries so far, for tests and measurements."""
        self._has_answered = False

    def call(self, where: str, operation: Callable[[Any, Deadline], T]) -> T:
        """Run one idempotent request until it succeeds, its error is final, or tries or time are used up.

        Args:
            where: s3://bucket/key for messages.
            operation: gets the minio client and the deadline; called again after a transient failure.

        Raises:
            StorageError: with the place, the reason and the remedy.
        """
        deadline, tries = Deadline(self.connection.deadline_seconds), 0

        def attempt() -> T:
            nonlocal tries
            tries += 1
            used = self._source.retrieve()
            try:
                result = operation(self.minio, deadline)
            except failures() as error:
                self._has_answered |= status_of(error) != 0
                # A rotated key is no reason to wait: the one in the file now is tried at once.
                if verdict_of(error) is RetryVerdict.CREDENTIALS and self._has_newer_account(used):
                    log.info("%s: refused, but credentials from %s have changed; retrying", where, self._source.name)
                    tries += 1
                    return operation(self.minio, deadline)
                raise
            self._has_answered = True
            return result

        def may_pass(error: BaseException) -> bool:
            limit = MAX_TRIES if self._has_answered else FIRST_CONTACT_TRIES
            return isinstance(error, failures()) and verdict_of(error) is RetryVerdict.RETRY and tries < limit

        def note(error: BaseException, _: int, pause_seconds: float) -> None:
            self.num_retries += 1
            name = type(error).__name__
            log.info("%s: try %d failed (%s); retrying in %.1f s", where, tries, name, pause_seconds)

        try:
            return retry(
                attempt,
                may_pass=may_pass,
                pauses=PAUSES,
                deadline_seconds=deadline.seconds,
                asked_for=lambda error: min(wait_asked_for(error), _LONGEST_WISH_SECONDS),
                note=note,
            )
        except failures() as error:
            spent = f"{tries} {'try' if tries == 1 else 'tries'} in {deadline.spent_seconds:.1f} s"
            raise StorageError(explain(error, where, self.connection, self._source.name, spent)) from error

    def _has_newer_account(self, used: Any) -> bool:
        """Whether the source of credentials, read again, gives different ones from those that were refused."""
        self._source.refresh()
        return bool(self._source.retrieve() != used)


def refusal_of(error: StorageError) -> str:
    """The S3 error code behind a StorageError of `call`, or an empty text."""
    return code_of(error.__cause__) if error.__cause__ is not None else ""


_clients: dict[tuple[S3Connection, CredentialFiles], S3Client] = {}
_clients_lock = threading.Lock()


def client_for(connection: S3Connection) -> S3Client:
    """The client of this process for a service and account; the environment's credentials are read when it is made."""
    key = (connection, files_from_environment())
    with _clients_lock:
        if key not in _clients:
            _clients[key] = S3Client(*key)
        return _clients[key]


def _forget_clients() -> None:
    """Drop the clients in a forked child: it must not share its parent's connections."""
    global _clients, _clients_lock  # in the child, a lock that another thread held at the fork is never released
    _clients, _clients_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_forget_clients)


def _pool(connection: S3Connection) -> Any:
    import ssl

    import certifi
    from urllib3 import PoolManager, Timeout

    context = None
    if connection.is_https:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        if connection.ca_bundle is not None:
            try:
                context.load_verify_locations(connection.ca_bundle)
            except (ssl.SSLError, OSError) as error:
                raise ConfigError(
                    f"AWS_CA_BUNDLE: {connection.ca_bundle} has no readable certificates ({error}). "
                    "Use a file with PEM certificates."
                ) from error
    pool = PoolManager(
        timeout=Timeout(connect=CONNECT_SECONDS, read=connection.request_timeout_seconds),
        maxsize=_POOL_CONNECTIONS,
        retries=False,
        ssl_context=context,
    )
    pool.pool_classes_by_scheme = _patient_pools(connection.request_timeout_seconds)
    return pool


def _patient_pools(send_seconds: float) -> dict[str, Any]:
    """Pools whose connections may take longer to send than to connect.

    urllib3 leaves the short connect timeout on the socket for the first request of a connection, and Python applies a
    socket's timeout to a whole send: a part of 16 MiB would have to be sent within those 10 seconds.
    """
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

    def patient(connection_class: Any) -> Any:
        class PatientConnection(connection_class):
            def connect(self) -> None:
                super().connect()
                self.sock.settimeout(send_seconds)

        return PatientConnection

    pools = {}
    for scheme, pool_class in (("http", HTTPConnectionPool), ("https", HTTPSConnectionPool)):
        pools[scheme] = type(
            f"Patient{pool_class.__name__}", (pool_class,), {"ConnectionCls": patient(pool_class.ConnectionCls)}
        )
    return pools
