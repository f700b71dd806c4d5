"""A whole curation: parts, scorers, rounds, result. What a step of the workflow calls, and what a test calls."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.config.curation import CurationConfig
from vl3.curation.benchmark_index import index_held_out
from vl3.curation.flow import Executor, Progress, run_rounds
from vl3.curation.handover import write_datasets
from vl3.curation.pages import write_pictures
from vl3.curation.places import Places
from vl3.curation.result import write_result
from vl3.curation.rounds import Round, retried_scorers
from vl3.curation.scorer import Scorer, version_digest
from vl3.curation.scorers.make import close_scorers, make_scorers
from vl3.curation.scores import ScoreStore
from vl3.curation.source import find_parts, input_digest
from vl3.errors import DataError
from vl3.system.files import atomic_write_json

DATASETS_FILE = "datasets.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class CurationPlace:
    """Where a curation reads and keeps what it made."""

    data_uri: str
    """Folder or bucket of the images."""
    work_uri: str
    """Listings and states."""
    scores_uri: str
    """Scores, which runs share."""


def curate(
    config: CurationConfig,
    place: CurationPlace,
    folders: Mapping[str, Path],
    out_folder: Path,
    *,
    executor: Executor | None = None,
    scorers: Mapping[str, Scorer] | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Select the images of a collection and write the result.

    Args:
        config: the recipe.
        place: addresses.
        folders: by scorer, the folder of its weights.
        out_folder: an empty folder for the result: decisions, curation.json, pictures, datasets, corpus.
        executor: who scores; None is this process.
        scorers: instead of those of the recipe, for trials.
        progress: told how far it is.

    Returns:
        The content of curation.json.

    Raises:
        ConfigError: the recipe does not fit its scorers.
        DataError: the input cannot be read, or too many images failed.
        StorageError: the store fails.
        ClusterError: Ray fails.
    """
    made = scorers if scorers is not None else make_scorers(config, folders, place.scores_uri)
    places, scores = open_places(config, place)
    parts = find_parts(place.data_uri, config.part_images) if config.steps else []
    given: dict[str, Any] = {"executor": executor, "progress": progress}
    try:
        rounds, keys = run_rounds(parts, config, made, places, scores, **given)
    finally:
        close_scorers(made)
    facts = write_result(parts, config, rounds, keys, places, scores, out_folder)
    if _has_too_many_failures(config, facts):
        _forget_what_may_pass(rounds, made, places)
        raise _too_many_failures(config, facts)
    counts = write_datasets(parts, config, rounds[-1], keys, places, scores, out_folder)
    atomic_write_json(out_folder / DATASETS_FILE, counts)
    write_pictures(parts, config, rounds, facts, places, out_folder)
    return facts


def open_places(config: CurationConfig, place: CurationPlace) -> tuple[Places, ScoreStore]:
    """Where listings, states and scores are; the first two hang on the input and on how it is divided."""
    parts = [input_digest(place.data_uri), config.part_images, config.chunk_images, config.max_image_bytes]
    return Places(place.work_uri, version_digest({"input": parts})), ScoreStore(place.scores_uri)


def weight_folders(config: CurationConfig, found: Mapping[str, Path], data_uri: str, folder: Path) -> dict[str, Path]:
    """The folders of all weights; an index of benchmarks is that of the data's held-out lines if its settings say so.

    Args:
        config: the recipe.
        found: by scorer, the folder of its weights, where it has any.
        data_uri: the data.
        folder: for what is made.

    Raises:
        DataError: held-out lines cannot be read.
    """
    folders = dict(found)
    for name, one in config.scorers.items():
        if one.kind == "benchmarks" and one.settings.get("heldout") == "yes":
            target = folder / name
            target.mkdir(parents=True, exist_ok=True)
            index_held_out(data_uri, target)
            folders[name] = target
    return folders


def clear(out_folder: Path) -> None:
    """Empty the folder of a result, of which a killed run left a part."""
    shutil.rmtree(out_folder, ignore_errors=True)
    out_folder.mkdir(parents=True)


def _num_failed(facts: Mapping[str, Any]) -> int:
    return sum(row["failed"] for row in facts["funnel"])


def _has_too_many_failures(config: CurationConfig, facts: Mapping[str, Any]) -> bool:
    return _num_failed(facts) > config.max_failed_fraction * facts["images"]


def _forget_what_may_pass(rounds: Sequence[Round], scorers: Mapping[str, Scorer], places: Places) -> None:
    """Remove the states from the first round on whose failures may pass, so that the next run asks for these again.

    Rounds facts | clip, caption of an endpoint | clusters: the states of the second and third go.
    """
    first = next((one.number for one in rounds if retried_scorers(one, scorers)), len(rounds))
    for round_ in rounds[first:]:
        for key in {round_.key, round_.closed_key}:
            places.forget_states(key)


def _too_many_failures(config: CurationConfig, facts: Mapping[str, Any]) -> DataError:
    reasons = "; ".join(f"{one['count']} x {one['step']}: {one['reason']}" for one in facts["failures"][:5])
    return DataError(
        f"{_num_failed(facts)} of {facts['images']} images failed, more than "
        f"max_failed_fraction={config.max_failed_fraction:g}: what is kept would not be what the steps chose. Most "
        f"often: {reasons}. Correct the data or the scorer, or raise max_failed_fraction; what is scored stays."
    )
