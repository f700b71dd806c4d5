"""Artifact URIs and object keys: their scheme and folder, and which characters are allowed."""

import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from vl3.errors import ConfigError
from vl3.system.uris import file_path, file_uri

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_KEY_BYTES = 1024


def scheme_of(uri: str) -> str:
    """`file` or `s3`.

    Raises:
        ConfigError: the URI has another scheme or none.
    """
    scheme = _split(uri).scheme
    if scheme not in ("file", "s3"):
        raise ConfigError(
            f"artifact URI {uri!r} has the scheme {scheme!r}. Use file:///absolute/folder or s3://bucket/key."
        )
    return scheme


def _split(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise ConfigError(f"{uri!r} is not a URI ({error}). Use file:///absolute/folder or s3://bucket/key.") from error


def join_uri(uri: str, *parts: str) -> str:
    """`uri` with path parts appended; in a file URI they are quoted, in an S3 key nothing is special.

    `file:///runs` and `a#1` give `file:///runs/a%231`; `s3://bucket/runs` and `a#1` give `s3://bucket/runs/a#1`.
    """
    if scheme_of(uri) == "file":
        return file_uri(Path("/".join([str(file_path(uri)), *parts])))
    return "/".join([uri.rstrip("/"), *parts])


def split_s3(uri: str) -> tuple[str, str]:
    """(bucket, key prefix without surrounding slashes) of an s3:// URI; nothing in a key is special, not even `#`.

    `s3://bucket/a b#c?d%20/` gives ("bucket", "a b#c?d%20").

    Raises:
        ConfigError: the bucket is missing or not valid, or check_key refuses the key.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise ConfigError(f"{uri!r} names no bucket. Write it as s3://bucket/key.")
    if not _BUCKET.fullmatch(bucket):
        shown = bucket.rpartition("@")[2]  # there may be an account in front of it
        raise ConfigError(
            f"s3://{shown}/{key}: {shown!r} is not a valid bucket name. Use 3 to 63 lower-case letters, digits, dots "
            "and hyphens, without an account."
        )
    key = key.strip("/")
    return bucket, check_key(key, uri) if key else ""


def check_key(key: str, where: str) -> str:
    """The key, if it stays below its root and every server accepts it; keys may come from data.

    Raises:
        ConfigError: it is empty, absolute, too long, or has `.`, `..` or empty parts or control characters.
    """
    reason = None
    if not key or key.startswith("/"):
        reason = "is empty or absolute"
    elif any(part in ("", ".", "..") for part in key.removesuffix("/").split("/")):
        reason = "has an empty part, '.' or '..'"
    elif _CONTROL.search(key):
        reason = "has control characters"
    elif len(key.encode(errors="surrogatepass")) > _MAX_KEY_BYTES:
        reason = f"is longer than {_MAX_KEY_BYTES} bytes"
    if reason:
        raise ConfigError(f"{where}: the key {key[:200]!r} {reason}. Use plain relative paths: folder/file.")
    return key
