"""Large bodies to and from S3: parts in parallel, bounded memory, every byte checked in both directions."""

import base64
import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vl3.errors import StorageError
from vl3.store.manifest import FileEntry, file_sha256
from vl3.store.s3.client import Deadline, S3Client, refusal_of
from vl3.store.s3.errors import BrokenBodyError
from vl3.system.files import sibling, storage_errors

log = logging.getLogger(__name__)

PART_BYTES = 16 * 2**20
_MAX_PARTS = 10_000
_LARGEST_BYTES = 5 << 40
_WORKERS = 4
_CHUNK_BYTES = 2**20
_MAX_TRANSFERS = 3
"""How often a whole object is transferred before damaged content counts as final."""
SHA256_FIELD = "x-amz-meta-vl3-sha256"


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Object:
    """An object, for requests and for messages."""

    client: S3Client
    bucket: str
    name: str
    """Its whole key in the bucket."""

    @property
    def where(self) -> str:
        """Its URI."""
        return f"s3://{self.bucket}/{self.name}"

    def call(self, operation: Callable[[Any, Deadline], Any]) -> Any:
        """Run one request on it; see S3Client.call."""
        return self.client.call(self.where, operation)


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectFacts:
    """What the server says about an object."""

    size_bytes: int
    etag: str
    sha256: str | None
    """As recorded at upload; None if another program wrote the object."""


def content_md5(data: bytes) -> str:
    """The value of Content-MD5, which makes every server check a body: not all of them check the signed SHA-256."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def put_bytes(target: S3Object, data: bytes, sha256: str, *, only_new: bool = False) -> None:
    """Put a small object; with `only_new` the server refuses (PreconditionFailed) if one exists."""
    headers = {"Content-Type": "application/octet-stream", "Content-MD5": content_md5(data), SHA256_FIELD: sha256}
    if only_new:
        headers["If-None-Match"] = "*"
    target.call(lambda minio, _: minio._put_object(target.bucket, target.name, data, dict(headers)))


def upload(target: S3Object, path: Path, entry: FileEntry | None = None) -> None:
    """Put a file and check that the server stored what was hashed.

    Args:
        target: where to.
        path: the file.
        entry: its size and digest, if known.

    Raises:
        StorageError: it changed while it was read, or the server does not store it.
    """
    with storage_errors(path):
        if path.stat().st_size <= PART_BYTES:
            data = path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            _require_unchanged(path, sha256, entry)
            put_bytes(target, data, sha256)
            return
        entry = entry or FileEntry(size_bytes=path.stat().st_size, sha256=file_sha256(path))
    for _ in range(_MAX_TRANSFERS):
        _upload_parts(target, path, entry)
        facts = facts_of(target)
        if facts is not None and facts.size_bytes == entry.size_bytes and facts.sha256 == entry.sha256:
            return
    raise StorageError(
        f"{target.where}: the server does not store what is uploaded: it has {facts}, expected {entry.size_bytes} "
        f"bytes with sha256 {entry.sha256}. Check the server, and any proxy in between."
    )


def _upload_parts(target: S3Object, path: Path, entry: FileEntry) -> None:
    headers = {SHA256_FIELD: entry.sha256}
    upload_id = target.call(lambda minio, _: minio._create_multipart_upload(target.bucket, target.name, dict(headers)))
    try:
        parts = _send_parts(target, path, entry, upload_id)
        _complete(target, upload_id, parts, entry)
    except BaseException:  # even an interrupt must not leave parts, which cost money and which no listing shows
        abort_upload(target, upload_id)
        raise


def _send_parts(target: S3Object, path: Path, entry: FileEntry, upload_id: str) -> list[Any]:
    """Read in order, send in parallel; the memory holds at most _WORKERS + 1 parts.

    A server takes at most 10,000 parts, so parts are 16 MiB until a file is larger than that allows:
    40 MiB are two parts of 16 MiB and one of 8 MiB; 200 GB are 10,000 parts of 20,000,000 bytes.
    """
    from minio.datatypes import Part

    def send(data: bytes, number: int) -> Any:
        headers = {"Content-MD5": content_md5(data)}
        etag = target.call(
            lambda minio, _: minio._upload_part(target.bucket, target.name, data, dict(headers), upload_id, number)
        )
        return Part(number, etag)

    part_bytes = max(PART_BYTES, -(-entry.size_bytes // _MAX_PARTS))
    parts: list[Any] = []
    waiting: deque[Future[Any]] = deque()
    digest = hashlib.sha256()
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="s3-put") as pool, path.open("rb") as file:
        try:
            while data := file.read(part_bytes):
                digest.update(data)
                waiting.append(pool.submit(send, data, len(parts) + len(waiting) + 1))
                if len(waiting) >= _WORKERS:  # the oldest first: the parts of an upload are listed in order
                    parts.append(waiting.popleft().result())
            parts += [future.result() for future in waiting]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    _require_unchanged(path, digest.hexdigest(), entry)
    return parts


def _complete(target: S3Object, upload_id: str, parts: list[Any], entry: FileEntry) -> None:
    try:
        target.call(lambda minio, _: minio._complete_multipart_upload(target.bucket, target.name, upload_id, parts))
    except StorageError as error:
        if refusal_of(error) != "NoSuchUpload":
            raise
        facts = facts_of(target)  # an earlier try may have succeeded although its answer was lost
        if facts is None or facts.sha256 != entry.sha256:
            raise


def abort_upload(target: S3Object, upload_id: str) -> None:
    """Remove the parts of an unfinished upload; a failure is only logged, so that it does not hide the first error."""
    try:
        target.call(lambda minio, _: minio._abort_multipart_upload(target.bucket, target.name, upload_id))
    except StorageError as error:
        log.warning("%s: the parts of an unfinished upload could not be removed (%s)", target.where, error)


def facts_of(target: S3Object) -> ObjectFacts | None:
    """Size and digest of an object; None if there is none. Uses GET, because an error answer to HEAD has no reason."""

    def first_byte(minio: Any, _: Deadline) -> Any:
        response = minio.get_object(target.bucket, target.name, offset=0, length=1)
        try:
            return response.headers, response.read()
        finally:
            response.close()
            response.release_conn()

    try:
        headers, _ = target.call(first_byte)
    except StorageError as error:
        if refusal_of(error) == "InvalidRange":  # an empty object has no first byte
            return target.call(lambda minio, _: _facts(minio.stat_object(target.bucket, target.name).metadata))
        if refusal_of(error) == "NoSuchKey":
            return None
        raise
    return _facts(headers)


def _facts(headers: Any) -> ObjectFacts:
    """Size, tag and digest from the headers of an answer.

    `Content-Range: bytes 0-0/4096` gives 4096 and not the `Content-Length: 1` of that answer.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    total = lower.get("content-range", "").rpartition("/")[2] or lower.get("content-length", "")
    if not total.isdigit():
        raise BrokenBodyError(f"the answer gives {total!r} as the object's size")
    return ObjectFacts(
        size_bytes=int(total), etag=lower.get("etag", "").strip('"'), sha256=lower.get(SHA256_FIELD) or None
    )


def read_range(target: S3Object, offset_bytes: int, length_bytes: int) -> bytes:
    """Bytes of an object; fewer if it ends earlier."""
    data = bytearray()
    if length_bytes > 0:
        try:
            _receive(target, offset_bytes, offset_bytes + length_bytes, lambda _, chunk: data.extend(chunk))
        except StorageError as error:
            if refusal_of(error) != "InvalidRange":
                raise
    return bytes(data)


def read_whole(target: S3Object) -> bytes | None:
    """All bytes of a small object, checked against the digest recorded at upload; None if there is none.

    Raises:
        StorageError: three transfers gave different bytes.
    """
    found = read_start(target, _LARGEST_BYTES)
    return None if found is None else found[0]


def read_start(target: S3Object, limit_bytes: int) -> tuple[bytes, int] | None:
    """The first `limit_bytes` of an object and its size; None if there is none.

    Raises:
        StorageError: three transfers of all of it gave other bytes than the digest recorded at upload.
    """
    for _ in range(_MAX_TRANSFERS):
        data = bytearray()
        try:
            facts = _receive(target, 0, limit_bytes, lambda _, chunk: data.extend(chunk))  # noqa: B023
        except StorageError as error:
            if refusal_of(error) == "NoSuchKey":
                return None
            if refusal_of(error) == "InvalidRange":
                return b"", 0
            raise
        if len(data) < facts.size_bytes or facts.sha256 is None:
            return bytes(data), facts.size_bytes
        found = hashlib.sha256(data).hexdigest()
        if facts.sha256 == found:
            return bytes(data), facts.size_bytes
    raise StorageError(_damaged(target, f"sha256 {found}", f"sha256 {facts.sha256}"))


def download(target: S3Object, path: Path, entry: FileEntry | None = None) -> FileEntry:
    """Copy an object to a temporary file, check it, and rename it to `path`.

    Args:
        target: the object.
        path: where to.
        entry: its expected size and digest; None expects those recorded at upload.

    Returns:
        Size and digest of the file.

    Raises:
        StorageError: it is missing, or three transfers gave something other than expected.
    """
    temporary = sibling(path)
    found = expected = None
    with storage_errors(path, needed_bytes=entry.size_bytes if entry else None):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            for _ in range(_MAX_TRANSFERS):
                try:
                    facts = _download_once(target, temporary, entry)
                except StorageError as error:
                    if refusal_of(error) == "PreconditionFailed":  # it was replaced during the transfer
                        continue
                    raise
                found = FileEntry(size_bytes=facts.size_bytes, sha256=file_sha256(temporary))
                expected = entry or FileEntry(size_bytes=facts.size_bytes, sha256=facts.sha256 or found.sha256)
                if found == expected:
                    temporary.replace(path)
                    return found
                log.warning("%s: arrived as %s, expected %s; retrying", target.where, found, expected)
        finally:
            temporary.unlink(missing_ok=True)
    if found is None or expected is None:
        raise StorageError(f"{target.where}: is replaced repeatedly while it is read. Stop its writers.")
    raise StorageError(_damaged(target, _words(found), _words(expected)))


def _download_once(target: S3Object, path: Path, entry: FileEntry | None) -> ObjectFacts:
    """One transfer of all bytes, in parallel ranges; each resumes where it broke off.

    The first range is fetched alone, since its answer gives the size: an object of 40 MiB comes as the bytes from 0 to
    16 MiB, then in parallel 16 to 32 and 32 to 40, each written at its offset.
    """
    with path.open("wb") as file:
        descriptor = file.fileno()

        def write(offset: int, chunk: bytes) -> None:
            os.pwrite(descriptor, chunk, offset)

        if entry is not None and entry.size_bytes:
            os.posix_fallocate(descriptor, 0, entry.size_bytes)  # find out now that the disk is full, not after an hour
        try:
            facts = _receive(target, 0, PART_BYTES, write)
        except StorageError as error:
            if refusal_of(error) != "InvalidRange":
                raise
            empty = facts_of(target)  # a range of an empty object is invalid
            if empty is None or empty.size_bytes:
                raise
            facts = empty
        file.truncate(facts.size_bytes)
        if entry is not None and facts.size_bytes != entry.size_bytes:
            return facts  # another object: do not fetch the rest
        starts = range(PART_BYTES, facts.size_bytes, PART_BYTES)
        ranges = ((start, min(start + PART_BYTES, facts.size_bytes)) for start in starts)
        jobs = (partial(_receive, target, start, stop, write, etag=facts.etag) for start, stop in ranges)
        in_parallel(jobs, workers=_WORKERS)
    return facts


def _receive(
    target: S3Object, start: int, stop: int, sink: Callable[[int, bytes], Any], *, etag: str | None = None
) -> ObjectFacts:
    """Pass the bytes from start to stop (or the object's end) to `sink`; a body that breaks off is resumed there.

    _receive(target, 0, 100, sink) whose body breaks off after 30 bytes: the retry asks for the bytes from 30 to 100,
    and only if the object still has the same etag.
    """
    offset, known = start, etag
    complete: ObjectFacts | None = None

    def attempt(minio: Any, deadline: Deadline) -> ObjectFacts:
        nonlocal offset, known, complete
        if complete is not None:
            return complete
        headers = {"If-Match": f'"{known}"'} if known else {}
        response = minio.get_object(
            target.bucket, target.name, offset=offset, length=stop - offset, request_headers=headers
        )
        try:
            facts = _facts(response.headers)
            end = min(stop, facts.size_bytes)
            _require_range(response, offset)
            known = facts.etag
            # read1 returns what has arrived, so that the deadline is checked even while a body drips.
            while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
                sink(offset, chunk[: end - offset])
                offset += len(chunk)
                deadline.check()
            if offset < end:
                raise BrokenBodyError(f"{end - offset} of {end - start} bytes are missing")
            complete = facts
            return facts
        finally:
            response.close()
            response.release_conn()

    return target.call(attempt)


def _require_range(response: Any, offset: int) -> None:
    """Check that the answer begins at the requested offset: some servers and caches ignore ranges."""
    begins = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if (begins or "0") != str(offset):
        raise BrokenBodyError(f"asked for bytes from {offset}, got bytes from {begins or 0}")


def in_parallel(jobs: Iterable[Callable[[], Any]], *, workers: int) -> list[Any]:
    """Run jobs in threads; the first failure ends the rest and is raised."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="s3")
    try:
        futures = [pool.submit(job) for job in jobs]
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _require_unchanged(path: Path, sha256: str, entry: FileEntry | None) -> None:
    if entry is not None and sha256 != entry.sha256:
        raise StorageError(
            f"{path}: changed while it was uploaded (sha256 {sha256}, expected {entry.sha256}). "
            "Find out what writes to an artifact that is being published, and run the step again."
        )


def _words(entry: FileEntry) -> str:
    return f"{entry.size_bytes} bytes with sha256 {entry.sha256}"


def _damaged(target: S3Object, found: str, expected: str) -> str:
    return (
        f"{target.where}: is damaged: {found} arrived {_MAX_TRANSFERS} times, expected {expected}. The object cannot "
        "be trusted. Delete the artifact, its manifest.json first, and run the step that makes it again."
    )
