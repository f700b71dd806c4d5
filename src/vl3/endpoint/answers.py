"""The store of answers: one SQLite file with each question that was paid, what came back, and what all has cost.

Processes of one machine may share it. Money is reserved before a question is sent, at what it can cost at most, and
corrected when its end is known. A process that is killed in between leaves what it reserved: it may have been paid.

limit 1.00 USD, spent 0.90, a question that can cost 0.05:   spent 0.95, sent, it costs 0.02:   spent 0.92
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vl3.endpoint.answer import Reply
from vl3.errors import StorageError
from vl3.system.clock import now
from vl3.system.files import storage_errors

_WAIT_SECONDS = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, name TEXT NOT NULL, question TEXT NOT NULL, reply TEXT NOT NULL,
    usd REAL NOT NULL, seconds REAL NOT NULL, at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (id INTEGER PRIMARY KEY CHECK (id = 1), usd REAL NOT NULL);
INSERT OR IGNORE INTO spent VALUES (1, 0);
"""


class AnswerStore:
    """Answers by the digest of their question. Use it from one thread; `close` it."""

    def __init__(self, path: Path) -> None:
        """Open the file, which is created if it is missing.

        Raises:
            StorageError: it cannot be opened or written, or is no store of answers.
        """
        self._path = path
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            # Autocommit: each answer is on disk before the next question is sent. No WAL, which network disks lack.
            self._database = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = PERSIST")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def find(self, key: str) -> Reply | None:
        """The reply to a question that was asked before.

        Raises:
            StorageError: the file cannot be read or is damaged.
        """
        with self._errors():
            row = self._database.execute("SELECT reply FROM answers WHERE key = ?", (key,)).fetchone()
            return None if row is None else Reply(**json.loads(row[0]))

    def keep(self, key: str, name: str, facts: dict[str, Any], reply: Reply, *, usd: float, seconds: float) -> None:
        """Write down a reply with its question.

        Raises:
            StorageError: the file cannot be written.
        """
        row = (key, name, json.dumps(facts), json.dumps(asdict(reply)), usd, seconds, now())
        with self._errors():
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def reserve(self, usd: float, limit_usd: float | None) -> bool:
        """Count an amount as spent, unless that would be more than the limit; returns whether it is counted.

        Raises:
            StorageError: the file cannot be written.
        """
        with self._errors():
            done = self._database.execute(
                "UPDATE spent SET usd = usd + ?1 WHERE ?2 IS NULL OR usd + ?1 <= ?2", (usd, limit_usd)
            )
            return done.rowcount == 1

    def correct(self, usd: float) -> None:
        """Add to what is spent; less than 0 gives back what was reserved.

        Raises:
            StorageError: the file cannot be written.
        """
        with self._errors():
            self._database.execute("UPDATE spent SET usd = max(0, usd + ?)", (usd,))

    def spent_usd(self) -> float:
        """What all runs with this file have spent or reserved."""
        with self._errors():
            return float(self._database.execute("SELECT usd FROM spent").fetchone()[0])

    def records(self) -> Iterator[dict[str, Any]]:
        """All questions with their replies, in the order of their keys, for a report or a check.

        Raises:
            StorageError: the file cannot be read or is damaged.
        """
        with self._errors():
            for row in self._database.execute("SELECT * FROM answers ORDER BY key"):
                key, name, question, reply, usd, seconds, at = row
                yield {
                    "key": key, "name": name, "question": json.loads(question), "reply": json.loads(reply),
                    "usd": usd, "seconds": seconds, "at": at,
                }  # fmt: skip

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise StorageError(
                f"{self._path}, the store of answers, cannot be used ({error}). Without it each question would be paid "
                "again. Check the disk; if the file is damaged, `sqlite3 FILE .recover` saves what is left of it."
            ) from error
