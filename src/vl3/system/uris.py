"""The one place where a path becomes a URI and back, for folders (file://) and for SQLite files (sqlite:///).

The two are quoted differently. In a file URI `#`, `?` and `%` are written `%23`, `%3F` and `%25`. Of an SQLite URI
MLflow decodes the path when it opens the file, and does not when it makes the file's folder, so that only a path that
both read alike can be used: without `?` and `%`.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from vl3.errors import ConfigError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_SQLITE = re.compile(r"[\x00-\x1f\x7f?%]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SQLITE = "sqlite:///"


def file_uri(path: Path) -> str:
    """The file:// URI of a path, which is made absolute: `/my data/a#1` gives `file:///my%20data/a%231`."""
    return path.absolute().as_uri()


def file_path(uri: str) -> Path:
    """The absolute path of a file:// URI; file_uri's inverse.

    Raises:
        ConfigError: the URI names a host or a relative path, or has a character that a URI must quote: a part of the
            path would be lost, and files would be written beside the folder that was meant.
    """
    unquoted = next((character for character in "#?" if character in uri), None)
    if unquoted is None and _BAD_ESCAPE.search(uri):
        unquoted = "%"
    if uri.startswith("file:") and unquoted:
        raise ConfigError(
            f"{uri!r} has a {unquoted!r}, which has another meaning in a URI than in a path. Write it as "
            f"%{ord(unquoted):02X}, or give the plain path of the folder."
        )
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise ConfigError(f"{uri!r} is not a URI ({error}). Write it as file:///absolute/folder.") from error
    path = Path(os.fsdecode(unquote_to_bytes(parts.path)))
    is_local = parts.scheme == "file" and parts.netloc in ("", "localhost")
    if not is_local or not path.is_absolute() or _CONTROL.search(str(path)):
        raise ConfigError(f"{uri!r} does not name a folder of this machine. Write it as file:///absolute/folder.")
    return path


def sqlite_uri(path: Path) -> str:
    """The tracking URI of an SQLite file: `/my runs/a#1/mlflow.db` gives `sqlite:////my runs/a#1/mlflow.db`.

    Raises:
        ConfigError: the absolute path has a `?`, a `%` or control characters.
    """
    absolute = str(path.absolute())
    if _NOT_IN_SQLITE.search(absolute):
        raise ConfigError(
            f"{absolute!r} has a '?', a '%' or a control character, so MLflow would look for the file elsewhere. Use "
            "a folder without them."
        )
    return f"{_SQLITE}{absolute}"


def sqlite_path(uri: str) -> Path:
    """The file of a `sqlite:///path` URI; sqlite_uri's inverse. Options after a `?` are left out.

    Raises:
        ConfigError: the URI names no file, so what is tracked would be lost with the process.
    """
    path = unquote(uri.removeprefix(_SQLITE).partition("?")[0])
    if not uri.startswith(_SQLITE) or not path or path == ":memory:" or _CONTROL.search(path):
        raise ConfigError(f"tracking URI {uri!r} names no file. Write it as sqlite:////absolute/mlflow.db.")
    return Path(path)
