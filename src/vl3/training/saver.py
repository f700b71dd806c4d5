"""Saves checkpoints beside training: one copy to host memory, then each rank writes its own fragments in a thread.

What a save needs of the ranks is agreed before anything is copied: if one is still writing, the save is skipped and has
cost one exchange of a few bytes. A rank reports by a file in the store that its files are there, and rank 0 writes the
manifest when all have: so no thread takes part in a collective.

A store that refuses is asked again until the next save is due. Then the old copy is given up, which an event says, and
the newer state takes its place.
"""

import logging
import secrets
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from vl3.errors import StorageError
from vl3.store.uris import scheme_of
from vl3.system.folders import own_folder
from vl3.system.retry import Pauses
from vl3.system.uris import file_path
from vl3.training.checkpoint import Checkpoints, Part, TrainerState, parse_part, part_bytes, part_name
from vl3.training.collectives import gather_json
from vl3.training.events import EventLog
from vl3.training.fragment_files import write_files
from vl3.training.fragments import KINDS
from vl3.training.snapshot import EngineState, Snapshot

log = logging.getLogger("vl3.training")

PATIENCE_SECONDS = 1.0
"""How long training waits for the previous checkpoint to be written before it skips the next one."""
_CLOSING_SECONDS, _LAST_REPORTS_SECONDS = 60.0, 5.0
"""After an error: how long this rank's files may take, and then the other ranks' reports, of which one may be gone."""
_PAUSES = Pauses(first_seconds=1.0, longest_seconds=30.0)
_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.01, 1.0
"""Pauses between two looks for the other ranks' reports."""
FREE, BUSY, FAILING, GATHERING = "free", "busy", "failing", "gathering"
"""A rank's writer: has nothing to do; writes; waits because the store refused; waits for the other ranks (rank 0)."""


@dataclass(kw_only=True, slots=True)
class _Job:
    """One checkpoint on its way to the store."""

    trainer: TrainerState
    kinds: tuple[str, ...]
    stall_seconds: float
    phase: str = BUSY
    error: str = ""
    done: Part = field(default_factory=dict)
    cancelled: threading.Event = field(default_factory=threading.Event)
    next_try: threading.Lock = field(default_factory=threading.Lock)
    """Held while the ranks decide about a checkpoint that the store refuses, so that no try begins meanwhile."""


class Saver:
    """The checkpoints that a rank saves while it trains. Every method but `close` is called by all ranks together."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        state: EngineState,
        events: EventLog,
        *,
        rank: int,
        world_size: int,
    ) -> None:
        """Allocate the host memory in the background."""
        self._checkpoints, self._events = checkpoints, events
        self._rank, self._world_size = rank, world_size
        self._shapes, self._device = state.shapes, state.device
        self._snapshot = Snapshot(state, rank, world_size)
        self._attempt = gather_json(secrets.token_hex(4), state.device)[0]
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._prepared = self._writer.submit(self._snapshot.prepare)
        self._job: _Job | None = None
        self._running: Future[bool] | None = None
        self._holds = False

    @property
    def host_bytes(self) -> int:
        """Host memory that this rank's copy takes."""
        return self._snapshot.size_bytes

    def has_room(self, step: int, *, must_wait: bool = False) -> bool:
        """Whether a checkpoint of `step` can be saved now; if not, that is said, and nothing was copied.

        Args:
            step: the step that is due.
            must_wait: wait for the previous one as long as it is written without trouble.
        """
        while True:
            reports = self._reports(PATIENCE_SECONDS)
            phases = {report["phase"] for report in reports}
            if phases == {FREE}:
                return True
            if FAILING in phases and BUSY not in phases:
                self._give_up(reports)
                return True
            self._let_go()
            if not must_wait:
                text = f"the previous one is still being written to {self._checkpoints.work_uri}"
                if self._rank == 0:
                    log.warning("the checkpoint of step %d is skipped: %s", step, text)
                self._events.write("checkpoint", state="skipped", step=step, reason=text, time=time.time())
                return False

    def save(self, trainer: TrainerState, kinds: tuple[str, ...] = KINDS) -> None:
        """Copy this rank's share and write it in a thread. Only after `has_room`."""
        self._prepared.result()
        started = time.perf_counter()
        self._snapshot.take(kinds)
        self._job = _Job(trainer=trainer, kinds=kinds, stall_seconds=time.perf_counter() - started)
        self._running = self._writer.submit(self._write, self._job)

    def settle(self, patience_seconds: float) -> str:
        """Wait until the last saved checkpoint is published; returns why it is not, empty if it is.

        Args:
            patience_seconds: how long a store that refuses is asked again.
        """
        refused_since: float | None = None
        while True:
            reports = self._reports(PATIENCE_SECONDS)
            phases = {report["phase"] for report in reports}
            if phases == {FREE}:
                return ""
            is_refused = FAILING in phases
            refused_since = (refused_since or time.monotonic()) if is_refused else None
            is_over = refused_since is not None and time.monotonic() - refused_since >= patience_seconds
            if gather_json(is_over, self._device)[0] and BUSY not in phases:
                return self._give_up(reports)
            self._let_go()

    def close(self) -> None:
        """End the writer's thread. After an error, a checkpoint that is being written is finished if that goes well."""
        if self._job is not None and self._running is not None:
            self._wait_at_end(self._job, self._running)
            self._job.cancelled.set()
            self._let_go()
        self._writer.shutdown()

    def _wait_at_end(self, job: _Job, running: "Future[bool]") -> None:
        """Give the writer its time; torchrun kills a rank 30 seconds after another has failed."""
        closing, gathering = time.monotonic() + _CLOSING_SECONDS, 0.0
        while job.phase != FAILING and time.monotonic() < closing:
            if wait([running], timeout=0.05).done:
                return
            if job.phase == GATHERING:
                gathering = gathering or time.monotonic()
                closing = min(closing, gathering + _LAST_REPORTS_SECONDS)

    def _reports(self, patience_seconds: float) -> list[dict[str, str]]:
        """What each rank's writer does; this rank's is waited for, until it is done or cannot go on by itself."""
        until = time.monotonic() + patience_seconds
        while self._running is not None and self._job is not None and time.monotonic() < until:
            if wait([self._running], timeout=min(0.05, patience_seconds)).done or self._job.phase == FAILING:
                break
        phase, error = FREE, ""
        if self._running is not None and self._job is not None:
            if self._running.done():
                self._running.result()  # an error that is no StorageError is a defect
                self._running = self._job = None
            else:
                self._holds = self._job.next_try.acquire()
                phase, error = self._job.phase, self._job.error
                if phase != FAILING:
                    self._let_go()
        return gather_json({"phase": phase, "error": error}, self._device)

    def _let_go(self) -> None:
        """It is decided what becomes of a checkpoint: the writer may go on."""
        if self._holds and self._job is not None:
            self._holds = False
            self._job.next_try.release()

    def _give_up(self, reports: list[dict[str, str]]) -> str:
        """End the writing of a checkpoint that the store refuses; returns what is said about it."""
        named = [f"rank {rank}: {one['error']}" for rank, one in enumerate(reports) if one["phase"] == FAILING]
        text = "; ".join(named)
        step = max(gather_json(self._job.trainer.step if self._job else 0, self._device))
        if self._job is not None and self._running is not None:
            self._job.cancelled.set()
            self._let_go()
            self._running.result()
        self._job = self._running = None
        self._events.write("checkpoint", state="lost", step=step, reason=text, time=time.time())
        self._say(f"the checkpoint of step {step} is lost, because the store refused it: {text}")
        return text

    def _write(self, job: _Job) -> bool:
        """Runs in the thread: write and publish until it is done or given up; whether it is done."""
        started, failures = time.monotonic(), 0
        while True:
            with job.next_try:
                if job.cancelled.is_set():
                    return False
                job.phase = BUSY
            try:
                if self._write_once(job):
                    self._tell(job, time.monotonic() - started)
                    return True
            except StorageError as error:
                failures += 1
                job.error, job.phase = str(error), FAILING
                if failures == 1:
                    self._say(f"the checkpoint of step {job.trainer.step} is not written yet and tried again: {error}")
                job.cancelled.wait(_PAUSES.after(failures))

    def _write_once(self, job: _Job) -> bool:
        step, uri = job.trainer.step, self._checkpoints.uri(job.trainer.step)
        is_local = scheme_of(uri) == "file"
        if is_local:
            own_folder(file_path(uri))  # not through a link to somewhere else
        store = self._checkpoints.store(step)
        write_files(
            self._snapshot,
            job.kinds,
            store,
            prefix=f"r{self._rank:05d}",
            done=job.done,
            folder=self._attempt,
            at_once=1 if is_local else 4,
            is_cancelled=job.cancelled.is_set,
        )
        if job.cancelled.is_set():
            return False
        if self._rank > 0:
            store.write(f"{self._attempt}/{part_name(self._rank)}", [part_bytes(job.done)])
            return True
        job.phase = GATHERING
        parts = self._gather_parts(job)
        if parts is None:
            return False
        job.phase = BUSY
        self._checkpoints.publish(job.trainer, self._attempt, parts, self._shapes, job.kinds)
        return True

    def _gather_parts(self, job: _Job) -> list[Part] | None:
        """The files of all ranks, as each reports them in the store; None if the checkpoint is given up meanwhile."""
        store, parts, pause = self._checkpoints.store(job.trainer.step), [job.done], _FIRST_LOOK_SECONDS
        for rank in range(1, self._world_size):
            while (data := store.read(f"{self._attempt}/{part_name(rank)}")) is None:
                if job.cancelled.wait(pause):
                    return None
                pause = min(2 * pause, _LONGEST_LOOK_SECONDS)
            try:
                parts.append(parse_part(data))
            except ValueError as error:
                raise StorageError(f"{self._checkpoints.uri(job.trainer.step)}: {part_name(rank)}: {error}") from error
        return parts

    def _tell(self, job: _Job, seconds: float) -> None:
        """The event of a published checkpoint, from which the time of the next is estimated."""
        size_bytes = sum(file.entry.size_bytes for file in job.done.values())
        facts = {"stall_seconds": job.stall_seconds, "write_seconds": seconds, "rank_bytes": size_bytes}
        self._events.write("checkpoint", state="saved", step=job.trainer.step, time=time.time(), **facts)

    def _say(self, text: str) -> None:
        log.warning(text)
        self._events.note(text)
