"""Two evaluations side by side, question by question: of two runs, or of two models of one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.errors import ConfigError
from vl3.evaluation.changes import shown_items
from vl3.evaluation.document import CHAMPION, EVALUATION_FILE, own_models, read_evaluation, read_pictures
from vl3.evaluation.evidence import make_evidence
from vl3.evaluation.published import paper_groups, titles
from vl3.evaluation.records import read_records
from vl3.report.pairs import pair_rows

_FIRST, _SECOND = "first", "second"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """One model of an evaluation."""

    name: str
    """Name of the run, or of the evaluation's folder."""
    model: str
    folder: Path
    """The evaluation's folder."""


def open_evaluated(folder: Path, name: str, model: str) -> Evaluated:
    """One model of an evaluation's folder.

    Args:
        folder: has the item records.
        name: what the comparison calls it.
        model: name of the model; empty for the last one.

    Raises:
        ConfigError: there are no records, or none of that model.
    """
    known = list(read_records(folder))
    if not known:
        raise ConfigError(
            f"{name}: {folder} has no records of single answers, so there is nothing to compare. It was made by an "
            "older version of vl3: evaluate the model again."
        )
    chosen = model or _last(folder, known)
    if chosen not in known:
        raise ConfigError(f"{name} has no model {chosen!r:.100}. Its models: {', '.join(known)}.")
    return Evaluated(name=name, model=chosen, folder=folder)


def compare_evaluations(first: Evaluated, second: Evaluated) -> dict[str, Any]:
    """The comparison as JSON-ready data.

    Returns:
        `first` and `second` (name, model), `rows` (vl3.report.pairs.pair_rows), `not_compared` (benchmarks of only
        one), `changes` (by benchmark, vl3.evaluation.changes.shown_items) and `pictures` (paths by benchmark and item,
        in the second's folder).

    Raises:
        ConfigError: they have no benchmark in common.
        DataError: a record is damaged.
    """
    records = {side: read_records(one.folder)[one.model] for side, one in ((_FIRST, first), (_SECOND, second))}
    (pair,) = make_evidence(records, pairs=[(_FIRST, _SECOND)], groups=paper_groups())["pairs"]
    if not pair["benchmarks"]:
        raise ConfigError(
            f"{first.name} was asked {', '.join(records[_FIRST])} and {second.name} {', '.join(records[_SECOND])}, so "
            "there is no benchmark to compare them on."
        )
    return {
        "first": {"name": first.name, "model": first.model},
        "second": {"name": second.name, "model": second.model},
        "rows": pair_rows(pair, titles()),
        "not_compared": pair["not_compared"],
        "changes": shown_items(records, _SECOND, _FIRST)["changes"],
        "pictures": {"name": second.name, "paths": read_pictures(second.folder)},
    }


def _last(folder: Path, known: list[str]) -> str:
    """The run's last model; of an evaluation without a summary the only one.

    Raises:
        ConfigError: there are several, and nothing says which is meant.
    """
    if (folder / EVALUATION_FILE).is_file():
        return str(own_models(read_evaluation(folder))[-1]["name"])
    own = [name for name in known if name != CHAMPION]
    if len(own) != 1:
        raise ConfigError(f"{folder} has the models {', '.join(known)}. Name one with --first-model or --second-model.")
    return own[0]
