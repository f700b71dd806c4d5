"""One process of an evaluation: asks each model the units that it claims, and keeps the answers as they come.

Only one model is in memory at a time; decoded media stay for the next one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vl3.config.run import RunConfig
from vl3.data.build.index import DatasetIndex
from vl3.data.build.shards import ShardReader
from vl3.errors import DataError
from vl3.evaluation.candidates import Candidate, EvaluatedModel, open_candidate
from vl3.evaluation.dataset import HeldoutSamples
from vl3.evaluation.heldout import SampleReader, heldout_item, heldout_request
from vl3.evaluation.items import ItemRecord
from vl3.evaluation.journal import Answers
from vl3.evaluation.judging.rule import JudgingRules
from vl3.evaluation.tasks import choose_rows
from vl3.evaluation.units import Claims, HeldoutRow, OwnClaims, heldout_rows, make_units, own_first

if TYPE_CHECKING:
    from vl3.evaluation.engine.engine import Engine

Keep = Callable[[str, ItemRecord], None]
"""Takes a model's name and a record as soon as there is one."""
_SHOWN_FAILURES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessPlace:
    """Which process this is, and what it computes on."""

    rank: int = 0
    world_size: int = 1
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """The held-out samples that are asked."""

    reader: SampleReader
    rows: tuple[HeldoutRow, ...]
    """All of them, by category."""
    rules: Mapping[str, JudgingRules] = field(default_factory=dict)
    """How answers are judged, by dataset; of a run's only dataset by ""."""

    def rules_of(self, row: HeldoutRow) -> JudgingRules:
        """The rules of a sample's dataset, whose name is in front of the ids of a corpus: `plotqa/7`."""
        return self.rules.get(row.sample_id.partition("/")[0]) or self.rules.get("") or JudgingRules(rules={})

    @classmethod
    def of_dataset(cls, folder: Path, config: RunConfig) -> "Questions":
        """The samples of a built dataset that the configuration chooses.

        Raises:
            DataError: no sample is held out, or the dataset cannot be read.
        """
        index = DatasetIndex.read(folder)
        return cls._of(index, ShardReader(folder, index), config)

    @classmethod
    def of_samples(
        cls, samples: HeldoutSamples, config: RunConfig, rules: Mapping[str, JudgingRules] | None = None
    ) -> "Questions":
        """The samples of a run's dataset that the configuration chooses.

        Args:
            samples: the dataset's.
            config: the run's.
            rules: how answers are judged, by dataset.

        Raises:
            DataError: no sample is held out.
        """
        return replace(cls._of(samples.index, samples, config), rules=rules or {})

    @classmethod
    def _of(cls, index: DatasetIndex, reader: SampleReader, config: RunConfig) -> "Questions":
        chosen = choose_rows(index, config.evaluation.samples_per_task, config.evaluation.categories)
        rows = [row for of_category in chosen.values() for row in of_category]
        return cls(reader=reader, rows=tuple(heldout_rows(index, rows)))


def ask_models(
    models: Sequence[EvaluatedModel],
    questions: Questions,
    config: RunConfig,
    keep: Keep,
    *,
    answered: Answers | None = None,
    claims: Claims | None = None,
    place: ProcessPlace | None = None,
) -> None:
    """Ask the models what has no answer yet, together with the other processes.

    Args:
        models: models with different names.
        questions: what they are asked.
        config: configuration of this run.
        keep: called with each record.
        answered: what earlier attempts have answered.
        claims: shared by the processes; None if there is no other.
        place: which process this is.

    Raises:
        DataError: more questions failed than `evaluation.max_failed_fraction` allows.
        ConfigError: a checkpoint cannot be loaded or has no usable run.json.
    """
    claims, place, answered = claims or OwnClaims(), place or ProcessPlace(), answered or {}
    candidates = [open_candidate(model, config) for model in models]
    units = make_units(questions.rows)
    process = _Process(questions, config, place, keep)
    for candidate in candidates:
        known = answered.get(candidate.name, {})
        failures = {name: item.why_no_score for name, item in known.items() if item.answer is None}
        for number in own_first(len(units), place.rank, place.world_size):
            left = [row for row in units[number] if row.sample_id not in known]
            if left and claims.take(f"{candidate.name}/{number}"):
                process.ask(candidate, left, failures)
        process.forget()


class _Process:
    """The model in memory, and the media that are kept from one model to the next."""

    def __init__(self, questions: Questions, config: RunConfig, place: ProcessPlace, keep: Keep) -> None:
        from vl3.evaluation.engine.preparing import MediaCache

        self._questions, self._config, self._place, self._keep = questions, config, place, keep
        self._media = MediaCache()
        self._engine: Engine | None = None

    def ask(self, candidate: Candidate, rows: Sequence[HeldoutRow], failures: dict[str, str]) -> None:
        """Ask a model some questions; `failures` gets the reason of each that fails."""
        settings = self._config.evaluation
        if self._engine is None:
            self._engine = self._load(candidate)
        by_name = {row.sample_id: row for row in rows}
        requests = [heldout_request(row, self._questions.reader, settings.max_new_tokens) for row in rows]
        for reply in self._engine.answer_all(requests):
            row = by_name[reply.name]
            item = heldout_item(row, reply, self._questions.rules_of(row))
            self._keep(candidate.name, item)
            if item.answer is None:
                failures[item.item_id] = item.why_no_score
                check_failures(candidate.name, failures, len(self._questions.rows), self._config)

    def forget(self) -> None:
        """Make room for the next model."""
        self._engine = None

    def _load(self, candidate: Candidate) -> "Engine":
        from vl3.evaluation.engine.engine import Engine

        settings = self._config.evaluation
        return Engine(
            candidate.load(self._place.device, settings.dtype),
            candidate.tokenizer(),
            candidate.settings,
            max_rows=settings.batch_size,
            threads=settings.prepare_threads,
            timeout_seconds=settings.prepare_timeout_seconds,
            media=self._media,
        )


def check_failures(model: str, failures: dict[str, str], total: int, config: RunConfig) -> None:
    """Raise DataError if more of a model's questions failed than the configuration allows, naming the first of them.

    200 questions and max_failed_fraction 0.01: two may fail, a third is too many.
    """
    allowed = math.floor(config.evaluation.max_failed_fraction * total)
    if len(failures) <= allowed:
        return
    named = [f"  {failures[name]}" for name in sorted(failures)[:_SHOWN_FAILURES]]
    more = len(failures) - len(named)
    listed = "\n".join(named) + (f"\n  and {more} more" if more else "")
    raise DataError(
        f"{len(failures)} of the {total} questions to model {model} could not be asked, more than the {allowed} that "
        f"evaluation.max_failed_fraction={config.evaluation.max_failed_fraction:g} allows, so its score would be that "
        f"of another set of questions:\n{listed}\nRestore or remove these samples, or raise the limit."
    )
