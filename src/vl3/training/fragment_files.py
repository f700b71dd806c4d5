"""The files of fragments: safetensors, written from a snapshot and read back by range, a few at a time."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from torch import Tensor

from vl3.errors import StorageError
from vl3.store.manifest import FileEntry
from vl3.store.objects import Store
from vl3.system.documents import parse_object
from vl3.training.checkpoint import Part, PartFile, StoredCheckpoint, read_verified
from vl3.training.fragments import NUMBER_BYTES, WEIGHTS, Copy, Fragment, Piece, copies, cut_to_files
from vl3.training.snapshot import Snapshot

_FILES_OF_A_SHARE = 64
_MIN_FILE_BYTES, _MAX_FILE_BYTES = 2**20, 16 * 2**20
"""A file is sent in one request from a copy in memory; four at a time are then a small part of a rank's share."""
_AT_ONCE = 4


def file_numbers(share_bytes: int) -> int:
    """Values of one file: a 64th of the rank's share, between 1 and 16 MiB. 500 MB give files of 7.8 MB."""
    return min(max(share_bytes // _FILES_OF_A_SHARE, _MIN_FILE_BYTES), _MAX_FILE_BYTES) // NUMBER_BYTES


def write_files(
    snapshot: Snapshot,
    kinds: Sequence[str],
    store: Store,
    *,
    prefix: str,
    done: Part,
    folder: str,
    at_once: int = _AT_ONCE,
    is_cancelled: Callable[[], bool],
) -> None:
    """Store a snapshot in files below `folder`, named `<prefix>-<kind>-<number>.safetensors`.

    Args:
        snapshot: what is written.
        kinds: which kinds of it.
        store: the checkpoint's folder.
        prefix: the rank's name in file names.
        done: files that are stored already; each further one is added.
        folder: the attempt's folder in the store.
        at_once: files that are sent at the same time.
        is_cancelled: whether to stop before the next file.

    Raises:
        StorageError: the store fails.
    """
    numbers = file_numbers(snapshot.size_bytes)

    def write(kind: str, number: int, pieces: list[Piece]) -> None:
        name = f"{prefix}-{kind}-{number:04d}.safetensors"
        if name in done or is_cancelled():
            return
        fragments = tuple(Fragment(kind=kind, name=p.name, start=p.start, stop=p.stop) for p in pieces)
        views = [snapshot.view(kind, piece) for piece in pieces]
        entry = store.write(f"{folder}/{name}", [header(fragments), *views])
        done[name] = PartFile(entry=entry, fragments=fragments)

    jobs = [(kind, *job) for kind in kinds for job in enumerate(cut_to_files(snapshot.pieces, numbers))]
    _in_threads([lambda job=job: write(*job) for job in jobs], at_once)  # type: ignore[misc]


def header(fragments: Sequence[Fragment]) -> bytes:
    """The beginning of a safetensors file: the length of a JSON text, and the text, padded to a multiple of 8."""
    entries, at = {}, 0
    for fragment in fragments:
        size = fragment.stop - fragment.start
        offsets = [at, at + size * NUMBER_BYTES]
        entries[fragment.tensor_name] = {"dtype": "F32", "shape": [size], "data_offsets": offsets}
        at = offsets[1]
    text = json.dumps(entries, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_pieces(
    found: StoredCheckpoint, store: Store, kind: str, pieces: Iterable[Piece], rows: Sequence[Tensor]
) -> int:
    """Fill rows in host memory from the fragments of a checkpoint; only files that have wanted values are read.

    Args:
        found: the checkpoint.
        store: its folder.
        kind: weights, exp_avg or exp_avg_sq.
        pieces: what is wanted, and where it goes: `flat` is the number of the row.
        rows: fp32 rows in host memory.

    Returns:
        Bytes read.

    Raises:
        StorageError: a file is missing or damaged; with its name.
    """
    file_of = {fragment: name for name, file in found.files.items() for fragment in file.fragments}
    wanted: dict[str, list[Copy]] = {}
    for copy in copies(kind, pieces, file_of):
        wanted.setdefault(file_of[copy.fragment], []).append(copy)

    def read(name: str) -> int:
        values = read_file(store, found.uri, name, found.files[name].entry, found.files[name].fragments)
        for copy in wanted[name]:
            source = values[copy.fragment][copy.skip : copy.skip + copy.size]
            rows[copy.flat].numpy()[copy.offset : copy.offset + copy.size] = source
        return found.files[name].entry.size_bytes

    return sum(_in_threads([lambda name=name: read(name) for name in wanted], _AT_ONCE))  # type: ignore[misc]


def read_file(
    store: Store, uri: str, name: str, entry: FileEntry, fragments: Sequence[Fragment]
) -> dict[Fragment, np.ndarray]:
    """The values of each fragment of a file, verified.

    Raises:
        StorageError: it is missing or damaged, or its header is not that of these fragments.
    """
    data = read_verified(store, uri, name, entry)
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        entries: dict[str, Any] = parse_object(data[8:start])
        begins = {one: start + entries[one.tensor_name]["data_offsets"][0] for one in fragments}
        return {
            one: np.frombuffer(data, dtype="<f4", count=one.stop - one.start, offset=begin)
            for one, begin in begins.items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{uri}/{name}: is not the file of {', '.join(one.tensor_name for one in fragments)[:300]} ({error})."
        ) from error


def _in_threads(jobs: Sequence[Callable[[], Any]], at_once: int) -> list[Any]:
    """Run jobs in threads; the first failure ends the rest and is raised."""
    if not jobs:
        return []
    pool = ThreadPoolExecutor(min(at_once, len(jobs)), thread_name_prefix="fragments")
    try:
        futures = [pool.submit(job) for job in jobs]
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def whole_parameter(found: StoredCheckpoint, store: Store, name: str, row: Tensor) -> int:
    """Read the weights of one parameter into a flat row; returns the bytes read."""
    piece = Piece(name=name, start=0, stop=math.prod(found.shapes[name]), flat=0, offset=0)
    return read_pieces(found, store, WEIGHTS, [piece], [row])
