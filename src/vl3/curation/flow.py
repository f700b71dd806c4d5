"""Runs the rounds of a curation: here in one process, or by Ray Data (vl3.curation.on_ray). Same parts, same bytes."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vl3.config.curation import CLUSTERS, EXACT, NEAR, CurationConfig
from vl3.curation.chunks import FlowSetup, finish_part, make_setup, read_chunks, score_chunk
from vl3.curation.places import Places
from vl3.curation.rounds import Round, plan_rounds, scorer_keys
from vl3.curation.scorer import Scorer
from vl3.curation.scores import ScorerKey, ScoreStore
from vl3.curation.source import InputPart

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what)."""
Tell = Callable[[int, str], None]
"""Called with the number of parts of a round that are finished, and what is at work. Whoever follows a run takes a long
silence for a hang, so it is called every TELL_SECONDS, however long a part or a step takes."""
TELL_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Closing:
    """The step at the end of a round that compares all images. It is sent to other machines."""

    round: Round
    config: CurationConfig
    parts: tuple[InputPart, ...]
    keys: dict[str, ScorerKey]
    places: Places
    scores: ScoreStore

    def run(self) -> None:
        """Compare, and write the states after it."""
        from vl3.curation.clusters import select_of_clusters
        from vl3.curation.duplicates import drop_equal, drop_similar
        from vl3.curation.whole import Whole

        name = self.round.closing
        step = self.config.steps[name]
        whole = Whole(self.parts, self.round, self.keys, self.places, self.scores)
        kinds = {EXACT: drop_equal, NEAR: drop_similar, CLUSTERS: select_of_clusters}
        kinds[step.kind](whole, name, step, self.config.seed)


class _Teller:
    """Tells of one round; details of every chunk would fill a log, so one in TELL_SECONDS is passed on."""

    def __init__(self, progress: Progress, what: str, done: int, total: int) -> None:
        self._progress, self._what, self._done, self._total = progress, what, done, total
        self._last = time.monotonic()

    def scoring(self, finished: int, detail: str) -> None:
        """Of parts."""
        if not detail:
            self._progress(self._done + finished, self._total, self._what)
        elif time.monotonic() - self._last >= TELL_SECONDS:
            self._last = time.monotonic()
            self._progress(self._done + finished, self._total, f"{self._what} ({detail})")

    def closing(self, _: int, detail: str) -> None:
        """Of the step that compares all."""
        self._progress(self._total, self._total, f"{self._what} ({detail})")


class Executor(Protocol):
    """Who does the work of a round."""

    def score(self, parts: Sequence[InputPart], setup: FlowSetup, tell: Tell) -> None:
        """Score the images of some parts and write what becomes of them."""

    def close(self, closing: Closing, tell: Tell) -> None:
        """Run the step at the end of the round."""


class InThisProcess:
    """One process, one part after the other."""

    def __init__(self, scorers: Mapping[str, Scorer]) -> None:
        self._scorers = scorers

    def score(self, parts: Sequence[InputPart], setup: FlowSetup, tell: Tell) -> None:
        """See Executor."""
        for number, part in enumerate(parts, start=1):
            for start, batch in read_chunks(part, setup):
                score_chunk(part.name, start, batch, setup.round.operations, self._scorers, setup)
                tell(number - 1, f"image {start + len(batch['sha256']):,} of {part.name}")
            finish_part(part, setup)
            tell(number, "")

    def close(self, closing: Closing, tell: Tell) -> None:
        """See Executor. It compares in the thread that calls, so that a signal ends it at once."""
        is_done = threading.Event()

        def beat() -> None:
            while not is_done.wait(TELL_SECONDS):
                tell(0, closing.round.closing)

        beating = threading.Thread(target=beat, name="signs-of-life", daemon=True)
        beating.start()
        try:
            closing.run()
        finally:
            is_done.set()
            beating.join()


def run_rounds(
    parts: Sequence[InputPart],
    config: CurationConfig,
    scorers: Mapping[str, Scorer],
    places: Places,
    scores: ScoreStore,
    *,
    executor: Executor | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[list[Round], dict[str, ScorerKey]]:
    """Work off every round; what is there already is kept.

    Args:
        parts: the input.
        config: the recipe.
        scorers: by name; an executor on other machines makes its own.
        places: where listings and states are.
        scores: where scores are.
        executor: who scores; None is this process.
        progress: told how far it is.

    Returns:
        The rounds, whose last key names the final states, and where the scores are.

    Raises:
        ConfigError: a step takes a column that no scorer makes.
        DataError: the input cannot be read.
        StorageError: the store fails.
        ClusterError: Ray cannot be reached, or loses its machines.
    """
    rounds, keys = plan_rounds(config, scorers, places.input_key), scorer_keys(scorers)
    batch_images = {name: one.batch_images for name, one in config.scorers.items()}
    before, worker = "", executor or InThisProcess(scorers)
    for round_ in rounds:
        setup = make_setup(
            round_,
            scorers,
            keys,
            places,
            scores,
            before=before,
            chunk_images=config.chunk_images,
            max_image_bytes=config.max_image_bytes,
            batch_images=batch_images,
        )
        what = f"round {round_.number + 1} of {len(rounds)}: {', '.join(round_.scorers) or 'no scorer'}"
        missing = [part for part in parts if not places.has_state(round_.key, part.name)]
        teller = _Teller(progress, what, len(parts) - len(missing), len(parts))
        if missing:
            worker.score(missing, setup, teller.scoring)
        if round_.closing and not all(places.has_state(round_.closed_key, part.name) for part in parts):
            closing = Closing(round=round_, config=config, parts=tuple(parts), keys=keys, places=places, scores=scores)
            worker.close(closing, teller.closing)
        before = round_.closed_key
    return rounds, keys
