"""Joins two lists of a JSON file that are too long for memory, such as COCO's images and annotations.

The annotations go into a file of SQLite, in a temporary folder, and come out by image:

    images 1, 2      annotations {"image_id": 2, ..}, {"image_id": 1, ..}, {"image_id": 2, ..}
    1: one annotation      2: two annotations, in their order
"""

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Joined:
    """Values by key, on disk. Use `joined`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def of(self, key: Any) -> list[Any]:
        """The values of a key in the order in which they came."""
        found = self._connection.execute("SELECT value FROM pairs WHERE key = ? ORDER BY place", (str(key),))
        return [json.loads(value) for (value,) in found]


@contextmanager
def joined(pairs: Iterable[tuple[Any, Any]]) -> Iterator[Joined]:
    """All pairs of key and value, by key."""
    with tempfile.TemporaryDirectory(prefix="vl3-join-") as folder:
        connection = sqlite3.connect(Path(folder) / "pairs.db")
        try:
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("CREATE TABLE pairs (place INTEGER PRIMARY KEY, key TEXT, value TEXT)")
            rows = ((str(key), json.dumps(value)) for key, value in pairs)
            connection.executemany("INSERT INTO pairs (key, value) VALUES (?, ?)", rows)
            connection.execute("CREATE INDEX by_key ON pairs (key)")
            yield Joined(connection)
        finally:
            connection.close()
