"""Artifact URIs: which scheme, which folder."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from vl3.errors import ConfigError


def scheme_of(uri: str) -> str:
    """`file` or `s3`.

    Raises:
        ConfigError: the URI has another scheme or none.
    """
    scheme = urlsplit(uri).scheme
    if scheme not in ("file", "s3"):
        raise ConfigError(
            f"artifact URI {uri!r} has the scheme {scheme!r}. Use file:///absolute/folder or s3://bucket/key."
        )
    return scheme


def file_path(uri: str) -> Path:
    """The absolute path of a file:// URI.

    Raises:
        ConfigError: the URI names a host or a relative path.
    """
    parts = urlsplit(uri)
    path = Path(unquote(parts.path))
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not path.is_absolute():
        raise ConfigError(f"{uri!r} does not name a folder of this machine. Write it as file:///absolute/folder.")
    return path


def file_uri(path: Path) -> str:
    """The file:// URI of a path."""
    return path.absolute().as_uri()


def join_uri(uri: str, *parts: str) -> str:
    """`uri` with path parts appended."""
    return "/".join([uri.rstrip("/"), *parts])


def split_s3(uri: str) -> tuple[str, str]:
    """(bucket, key prefix without slashes around it) of an s3:// URI.

    Raises:
        ConfigError: the bucket is missing.
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise ConfigError(f"{uri!r} names no bucket. Write it as s3://bucket/key.")
    return parts.netloc, parts.path.strip("/")
