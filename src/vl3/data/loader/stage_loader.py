"""The rows of one rank, step by step, prepared ahead in a thread.

A sample that cannot be read is left out and recorded in the ledger, up to the number that the configuration allows. It
is never replaced by another sample.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vl3.data.build.index import read_row
from vl3.data.build.shards import read_sample
from vl3.data.loader.rows import PackedRow, empty_row, pack_row
from vl3.data.plan.stage_plan import Pack, PlannedSample, StagePlan
from vl3.data.sample.prepare import PreparedSample, PrepareSettings, Pruner, prepare_sample
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class BadSample:
    """An entry of the ledger: a sample that was left out, and why."""

    sample_id: str
    step: int
    reason: str


class StageLoader:
    """Iterates over the steps of a stage and yields this rank's packed rows. Close it, or use it in a `with`."""

    def __init__(
        self,
        dataset_folders: Sequence[Path],
        plan: StagePlan,
        settings: PrepareSettings,
        tokenizer: ChatTokenizer,
        prune: Pruner,
        *,
        rank: int,
        world_size: int,
        start_step: int = 0,
        prefetch: int = 2,
    ) -> None:
        """Start preparing at `start_step`.

        Args:
            dataset_folders: the built datasets, by their numbers in the plan.
            plan: the stage's packs.
            settings: merges, DiffFP and limits.
            tokenizer: the language model's tokenizer.
            prune: DiffFP.
            rank: number of this process, 0 to `world_size - 1`.
            world_size: number of processes of the stage.
            start_step: first step to yield; nothing is read for the steps before it.
            prefetch: number of steps to prepare ahead.
        """
        self._folders = dataset_folders
        self._max_bad = int(settings.data.max_bad_fraction * plan.facts.usable_samples)
        self._plan, self._settings, self._tokenizer, self._prune = plan, settings, tokenizer, prune
        self._rank, self._world_size = rank, world_size
        self.ledger: list[BadSample] = []
        """Samples left out so far, each named once."""
        self._prefetch = prefetch
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"loader-{rank}")
        self._ahead: deque[Future[list[PackedRow]]] = deque()
        self._next_step = start_step
        self._fill()

    def __enter__(self) -> "StageLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[list[PackedRow]]:
        """Rows of each step from `start_step` on; iterate only once.

        Raises:
            DataError: more samples are unreadable than data.max_bad_fraction allows.
        """
        while self._ahead:
            rows = self._ahead.popleft().result()
            self._fill()
            yield rows

    def close(self) -> None:
        """Stop preparing; the step in progress is finished first."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def rows_of_step(self, step: int) -> list[PackedRow]:
        """Prepare this rank's rows of one step in the calling thread.

        Raises:
            DataError: more samples are unreadable than data.max_bad_fraction allows.
        """
        return [self._row(pack, step) for pack in self._plan.deal(step, self._rank, self._world_size)]

    def _fill(self) -> None:
        while len(self._ahead) < self._prefetch and self._next_step < self._plan.steps:
            self._ahead.append(self._thread.submit(self.rows_of_step, self._next_step))
            self._next_step += 1

    def _row(self, pack: Pack, step: int) -> PackedRow:
        samples = [sample for one in pack.samples if (sample := self._sample(one, step)) is not None]
        return pack_row(samples) if samples else empty_row(self._tokenizer)

    def _sample(self, sample: PlannedSample, step: int) -> PreparedSample | None:
        folder = self._folders[sample.dataset]
        try:
            record, media = read_sample(folder, sample.span, where=f"row {sample.row} of the index", split="train")
            return prepare_sample(record, media, self._tokenizer, self._settings, self._prune)
        except DataError as error:
            self._note_bad(**read_row(folder, sample.row, ["sample_id", "where"]), step=step, error=error)
            return None

    def _note_bad(self, sample_id: str, where: str, step: int, error: DataError) -> None:
        known = {bad.sample_id for bad in self.ledger}
        if sample_id in known:
            return
        if len(known) >= self._max_bad:
            raise DataError(
                f"sample {sample_id!r} ({where}) cannot be used in step {step}: {error} It is bad sample number "
                f"{len(known) + 1}, and data.max_bad_fraction={self._settings.data.max_bad_fraction} allows "
                f"{self._max_bad}. Repair the data and build the dataset again, or raise the limit."
            ) from error
        self.ledger.append(BadSample(sample_id=sample_id, step=step, reason=str(error)))
