"""The answers of an evaluation that is not finished: what a process has answered, none asks again after a kill.

Each process appends a line an item to a file of its own and syncs it. Where the work is kept in files, that is where it
stays; where it is kept in an object store, a thread copies the file there every few seconds, so that a killed pod loses
the answers since then and those on their way. The first line of each file says what its answers follow from.
"""

import json
import logging
import os
import secrets
import shutil
import threading
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from vl3.errors import StorageError
from vl3.evaluation.items import ItemRecord, item_from_fields
from vl3.store.objects import open_store
from vl3.store.uris import join_uri, scheme_of
from vl3.system.files import open_to_append, storage_errors
from vl3.system.folders import scratch_folder
from vl3.system.uris import file_path

log = logging.getLogger(__name__)

ANSWERS = "answers"
"""Folder of the files below the work URI."""
_UPLOAD_SECONDS = 5.0

Answers = dict[str, dict[str, ItemRecord]]
"""Records by model and item."""


class Journal:
    """The file of one process. Use it as a context manager: the last answers are stored when it ends."""

    def __init__(self, work_uri: str, identity: str, rank: int) -> None:
        """Begin a file; nobody else has its name."""
        self._uri, self._identity = join_uri(work_uri, ANSWERS), identity
        self._name = f"rank{rank}-{secrets.token_hex(8)}.jsonl"
        self._is_local = scheme_of(work_uri) == "file"
        self._wake, self._ending = threading.Event(), threading.Event()
        self._uploaded_bytes = 0

    def __enter__(self) -> Self:
        self._scratch = None if self._is_local else scratch_folder(None, "answers")
        folder = file_path(self._uri) if self._scratch is None else self._scratch.__enter__()
        self._path = folder / self._name
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(open_to_append(self._path), "ab")
        self._write({"identity": self._identity})
        if not self._is_local:
            self._uploader = threading.Thread(target=self._keep_uploading, name="answers", daemon=True)
            self._uploader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._scratch is None:
            return
        self._ending.set()
        self._wake.set()
        self._uploader.join()
        try:
            self._upload()
        except StorageError as storage_error:
            if error is None:
                raise
            log.warning("the last answers are lost and will be asked for again: %s", storage_error)
        finally:
            self._scratch.__exit__(None, None, None)

    def add(self, model: str, item: ItemRecord) -> None:
        """Keep an answer.

        Raises:
            StorageError: it cannot be written.
        """
        self._write({"model": model, "item": asdict(item)})

    def _write(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        with storage_errors(self._path, needed_bytes=len(data)):
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())

    def _keep_uploading(self) -> None:
        while not self._ending.is_set():
            self._wake.wait(timeout=_UPLOAD_SECONDS)
            if self._ending.is_set():
                return
            try:
                self._upload()
            except StorageError as error:
                log.warning("answers could not be stored; trying again later: %s", error)

    def _upload(self) -> None:
        """Store a copy of the file, which may grow meanwhile, if it has grown."""
        size = self._path.stat().st_size
        if size == self._uploaded_bytes:
            return
        copy = self._path.with_suffix(".copy")
        with storage_errors(copy):
            shutil.copyfile(self._path, copy)
        open_store(self._uri).put_file(copy, self._name)
        self._uploaded_bytes = size


def read_answers(work_uri: str, identity: str) -> Answers:
    """The answers that all processes have kept so far.

    A line that a killed process did not finish is left out; so are answers of another identity.

    Raises:
        StorageError: the store cannot be read.
    """
    store = open_store(join_uri(work_uri, ANSWERS))
    found: Answers = {}
    for key in store.list():
        if not key.endswith(".jsonl"):
            continue
        first, *lines = map(_parse, (store.read(key) or b"").splitlines() or [b""])
        if first is None or first.get("identity") != identity:
            log.info("%s has answers to another question: they are not used", key)
            continue
        for line in lines:
            item = None if line is None else _item(line)
            if line is not None and item is not None:
                found.setdefault(str(line.get("model")), {}).setdefault(item.item_id, item)
    return found


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _item(line: dict[str, Any]) -> ItemRecord | None:
    try:
        return item_from_fields(line["item"])
    except (KeyError, TypeError, ValueError):
        return None
