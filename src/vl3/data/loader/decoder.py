"""A decoding process: reads ahead what it is given, prepares one sample after the other, and shares the result.

It is started with a socket of its parent and says at each moment what it is at. A decoder may crash or hang: the
parent then replaces the process. It imports no torch and ends with its parent, whatever it is at.
"""

import contextlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle

from vl3.data.build.shards import ShardSpan, parse_sample
from vl3.data.build.worker import PROCESS_BYTES
from vl3.data.loader.cache import SampleCache
from vl3.data.loader.shared import share_sample
from vl3.data.loader.source import FetchedSample, SampleSource
from vl3.data.sample.media import WHOLE_BYTES
from vl3.data.sample.prepare import PreparedSample, PrepareSettings, Pruner, prepare_sample
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import DataError, Vl3Error, family_name
from vl3.lifeline import end_with_parent
from vl3.system.folders import own_temporary_folder
from vl3.system.memory import has_grown, limit_memory

_GROWN_SHARE = 0.75


class Said(Enum):
    """What a decoding process says, as the first item of a message."""

    READY = auto()
    """It has started."""
    BEGIN = auto()
    """The decoding of the first of its samples begins."""
    DONE = auto()
    """(SharedSample, Reading, whether the process has grown); the memory's descriptor follows."""
    BAD = auto()
    """(reason): the sample cannot be used."""
    MEMORY = auto()
    """(): there was not enough memory for the sample."""
    FAILED = auto()
    """(family, message): nothing can be read any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSetup:
    """What all samples share."""

    uris: tuple[str, ...]
    """Folder of the files of each dataset (file:// or s3://), by its number in the plan."""
    settings: PrepareSettings
    tokenizer: ChatTokenizer
    prune: Pruner
    read_ahead_samples: int
    """Samples that are read while another is decoded."""
    cache_bytes: int
    """Limit of the local cache of samples of an object store; 0 for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One sample to prepare."""

    number: int
    """What its result is called."""
    dataset: int
    row: int
    span: ShardSpan

    @property
    def sample(self) -> tuple[int, int]:
        """Which sample it is."""
        return self.dataset, self.row

    @property
    def where(self) -> str:
        """What messages call the sample."""
        return f"row {self.row} of the index"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What was read for a sample or a step."""

    read_bytes: int = 0
    """Bytes from the datasets' store."""
    retries: int = 0
    """Requests that had to be repeated."""

    def __add__(self, other: "Reading") -> "Reading":
        return Reading(read_bytes=self.read_bytes + other.read_bytes, retries=self.retries + other.retries)


class _Decoder:
    """The work of the process."""

    def __init__(self, connection: Connection, setup: DecoderSetup, source: SampleSource) -> None:
        self._connection, self._setup, self._source = connection, setup, source
        self._said_retries = 0

    def run(self) -> None:
        """Prepare samples in the order in which they are given; EOFError when the parent closes the connection."""
        reads: deque[tuple[Job, Future[FetchedSample]]] = deque()
        with ThreadPoolExecutor(self._setup.read_ahead_samples, thread_name_prefix="read") as readers:
            while True:
                while not reads or self._connection.poll():
                    job: Job = self._connection.recv()
                    read = readers.submit(self._source.read, job.dataset, job.span, where=job.where)
                    reads.append((job, read))
                self._prepare(*reads.popleft())

    def _prepare(self, job: Job, read: "Future[FetchedSample]") -> None:
        """Prepare one sample and say how it went."""
        try:
            fetched = read.result()
            try:
                self._connection.send((Said.BEGIN,))
                sample = self._decode(job, fetched)
            finally:
                fetched.close()
            shared, descriptor = share_sample(sample)
        except DataError as error:
            self._connection.send((Said.BAD, str(error)))
        except MemoryError:
            self._connection.send((Said.MEMORY,))
        except Vl3Error as error:
            self._connection.send((Said.FAILED, family_name(error), str(error)))
        else:
            reading = Reading(read_bytes=fetched.read_bytes, retries=self._new_retries())
            self._connection.send((Said.DONE, shared, reading, has_grown(_GROWN_SHARE)))
            send_handle(self._connection, descriptor, os.getppid())
            os.close(descriptor)

    def _decode(self, job: Job, fetched: FetchedSample) -> PreparedSample:
        setup = self._setup
        try:
            record, media = parse_sample(fetched.content, where=job.where, place=fetched.place, split="train")
            return prepare_sample(record, media, setup.tokenizer, setup.settings, setup.prune)
        except (Vl3Error, MemoryError):
            raise
        except Exception as error:  # a record that no build would write: it costs its sample, not the process
            problem = f"{type(error).__name__}: {error!s:.200}"
            raise DataError(
                f"{job.where}: its record in {fetched.place} cannot be prepared ({problem}). Build the dataset again."
            ) from error

    def _new_retries(self) -> int:
        """Retries since this was asked last."""
        new, self._said_retries = self._source.num_retries - self._said_retries, self._source.num_retries
        return new


def run_decoder(connection: Connection) -> None:
    """Prepare samples until the parent closes the connection."""
    setup: DecoderSetup = connection.recv()
    try:
        cache = SampleCache(own_temporary_folder("vl3-samples"), setup.cache_bytes) if setup.cache_bytes else None
        source = SampleSource(setup.uris, cache)
    except Vl3Error as error:
        connection.send((Said.FAILED, family_name(error), str(error)))
        return
    limit_memory(PROCESS_BYTES + setup.read_ahead_samples * WHOLE_BYTES)
    connection.send((Said.READY,))
    _Decoder(connection, setup, source).run()


def main(descriptor: int, parent_pid: int) -> None:
    """Run the process, started with SIGINT and SIGTERM blocked: they are for the trainer, which ends its decoders."""
    end_with_parent(parent_pid)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        run_decoder(Connection(descriptor))
    os._exit(0)  # threads may still be reading
