"""Runs the rounds of a curation: here in one process, or by Ray Data (vl3.curation.on_ray). Same parts, same bytes."""

from collections.abc import Callable, Mapping, Sequence

from vl3.config.curation import CLUSTERS, EXACT, NEAR, CurationConfig
from vl3.curation.chunks import FlowSetup, finish_part, make_setup, read_chunks, score_chunk
from vl3.curation.places import Places
from vl3.curation.rounds import Round, plan_rounds, scorer_keys
from vl3.curation.scorer import Scorer
from vl3.curation.scores import ScorerKey, ScoreStore
from vl3.curation.source import InputPart

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what)."""
Executor = Callable[[Sequence[InputPart], FlowSetup, Callable[[int], None]], None]
"""Finishes the parts of a round; it calls the last argument with the number of finished parts."""


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
    before = ""
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
        done = len(parts) - len(missing)

        def tell(finished: int, base: int = done, text: str = what) -> None:
            progress(base + finished, len(parts), text)

        if missing:
            (executor or here(scorers))(missing, setup, tell)
        if round_.closing:
            _close(round_, config, parts, keys, places, scores)
        before = round_.closed_key
    return rounds, keys


def here(scorers: Mapping[str, Scorer]) -> Executor:
    """This process scores, one part after the other."""

    def execute(parts: Sequence[InputPart], setup: FlowSetup, tell: Callable[[int], None]) -> None:
        for number, part in enumerate(parts, start=1):
            for start, batch in read_chunks(part, setup):
                score_chunk(part.name, start, batch, setup.round.operations, scorers, setup)
            finish_part(part, setup)
            tell(number)

    return execute


def _close(
    round_: Round,
    config: CurationConfig,
    parts: Sequence[InputPart],
    keys: Mapping[str, ScorerKey],
    places: Places,
    scores: ScoreStore,
) -> None:
    """The step at the end of a round that compares all images."""
    if all(places.has_state(round_.closed_key, part.name) for part in parts):
        return
    from vl3.curation.clusters import select_of_clusters
    from vl3.curation.duplicates import drop_equal, drop_similar
    from vl3.curation.whole import Whole

    step = config.steps[round_.closing]
    whole = Whole(parts, round_, keys, places, scores)
    kinds = {EXACT: drop_equal, NEAR: drop_similar, CLUSTERS: select_of_clusters}
    kinds[step.kind](whole, round_.closing, step, config.seed)
