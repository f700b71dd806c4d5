"""What a failure of an S3 request means: retry, read the credentials again, or report it to the person who acts."""

from enum import Enum
from typing import Any
from xml.etree import ElementTree

from vl3.store.s3.connection import S3Connection


class RetryVerdict(Enum):
    """What to do about a failed request."""

    RETRY = "retry"
    """Transient: connection, timeout, load, a damaged body."""
    CREDENTIALS = "credentials"
    """The account was refused, but newer credentials may be available."""
    FINAL = "final"
    """A retry would fail in the same way."""


class BrokenBodyError(Exception):
    """A body that is shorter than announced, or not the range that was asked for."""


class DeadlineError(Exception):
    """The time for a request with all its retries is up and its body is still arriving."""


_TRANSIENT = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "InternalFailure",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}
_CREDENTIALS = {
    "AccessDenied",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)


def failures() -> tuple[type[Exception], ...]:
    """Every error that one request through the minio client can end with."""
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    # ParseError and UnicodeDecodeError: an XML answer that was truncated or damaged on the way.
    return (MinioException, HTTPError, ElementTree.ParseError, UnicodeDecodeError, BrokenBodyError, DeadlineError)


def code_of(error: BaseException) -> str:
    """The S3 error code, or an empty text."""
    return str(getattr(error, "code", None) or "")


def status_of(error: BaseException) -> int:
    """The HTTP status that an error reports, or 0."""
    response = getattr(error, "response", None)
    status = getattr(response, "status", None) or getattr(error, "_code", None) or getattr(error, "status_code", None)
    return status if isinstance(status, int) else 0


def verdict_of(error: BaseException) -> RetryVerdict:
    """What to do about the error of one request."""
    from urllib3.exceptions import LocationValueError

    if code_of(error) in _CREDENTIALS:
        return RetryVerdict.CREDENTIALS
    if isinstance(error, DeadlineError | LocationValueError) or _is_untrusted(error):
        return RetryVerdict.FINAL
    status = status_of(error)
    if status and code_of(error) not in _TRANSIENT and status not in _TRANSIENT_STATUS:
        return RetryVerdict.FINAL
    return RetryVerdict.RETRY


def wait_asked_for(error: BaseException) -> float:
    """Seconds of a Retry-After header, or 0."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def explain(error: BaseException, where: str, connection: S3Connection, account: str, tries: str) -> str:
    """The message for the person who acts: where, what, why and what to do.

    Args:
        error: the last failure.
        where: s3://bucket/key.
        connection: the service.
        account: where the credentials came from.
        tries: how many tries in how many seconds, such as `8 tries in 20.3 s`; shown for failures that are retried.
    """
    bucket, endpoint = where.removeprefix("s3://").partition("/")[0], connection.endpoint
    known = {
        "NoSuchBucket": f"the bucket {bucket!r} does not exist at {endpoint}. Create it or correct the URI.",
        "NoSuchKey": "the object is missing. Run the step that makes it again.",
        "AccessDenied": f"access denied for the account from {account}. Allow it to read, write and list "
        f"in the bucket {bucket!r}, or use another account.",
        "SignatureDoesNotMatch": f"the secret of the account from {account} is wrong. Correct AWS_SECRET_ACCESS_KEY "
        "or the file with the secret.",
        "InvalidAccessKeyId": f"the account from {account} is unknown at {endpoint}. Correct AWS_ACCESS_KEY_ID or the "
        "endpoint.",
        "RequestTimeTooSkewed": "the clock of this machine and the server's differ by too much. Correct the clock "
        "(NTP) and run again.",
        "QuotaExceeded": f"the quota of the bucket {bucket!r} is used up. Free space there or raise the quota.",
    }
    for expired in ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"):
        known[expired] = (
            f"the token of the account from {account} has expired or is invalid. Renew it: a changed file is picked up "
            "while running, changed variables need a restart."
        )
    text = known.get(code_of(error)) or _explain_other(error, connection, tries)
    return f"{where}: {text}"


def _explain_other(error: BaseException, connection: S3Connection, tries: str) -> str:
    from urllib3.exceptions import HTTPError

    endpoint = connection.endpoint
    if _is_untrusted(error):
        trusted = f"{connection.ca_bundle} and the system's" if connection.ca_bundle else "the system's"
        return (
            f"the certificate of {endpoint} is not trusted by {trusted} certificates ({_reason(error)}). "
            "Add the server's CA certificate to the file that AWS_CA_BUNDLE names."
        )
    if isinstance(error, HTTPError):
        return (
            f"the S3 server at {endpoint} does not answer ({_reason(error)}; {tries}). Check AWS_ENDPOINT_URL, that "
            "the server runs and that the network lets this machine reach it, then run again."
        )
    if isinstance(error, DeadlineError | BrokenBodyError):
        return f"the transfer from {endpoint} did not finish ({error}; {tries}). Check the network and the server."
    status = status_of(error)
    reason = " ".join(str(part) for part in (status or "", code_of(error), getattr(error, "message", "")) if part)
    return (
        f"the S3 server at {endpoint} refused or failed ({reason[:300] or type(error).__name__}; {tries}). "
        "Check the server and its log, then run again."
    )


def _is_untrusted(error: BaseException) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error) or "certificate verify failed" in str(error)


def _reason(error: Any) -> str:
    """The innermost text of a nested network error, on one line."""
    inner = error.__cause__ or error.__context__ or error
    text = str(inner).replace("\n", " ")
    return f"{type(error).__name__}: {text}"[:300]
