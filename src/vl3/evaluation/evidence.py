"""What an evaluation can show, from its item records: each score with its interval, each difference pair by pair.

Gates, the report and MLflow read this one document, `evidence.json`, and compute no statistics of their own. It is
made where the evaluation is, because a launcher has no numpy. A failed item counts as wrong, so that failing on hard
questions cannot help; an item that was not judged has no score, and a benchmark with one has none either.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from vl3.config.gates import HELDOUT
from vl3.errors import DataError
from vl3.evaluation.items import ItemRecord
from vl3.evaluation.records import Records, is_unjudged
from vl3.evaluation.statistics import Estimate, Scored, estimate, mean_of
from vl3.proportions import CONFIDENCES, one_sided, wilson_interval

MAX_NAMED = 5
"""Failed items that are named for each reason; all of them are in the records."""
BETTER, WORSE, WITHIN_CHANCE = "better", "worse", "within chance"
"""What a difference says about the second model."""

Drawn = dict[str, Estimate]
"""Estimates by benchmark, for the means of groups."""


def make_evidence(
    records: Records,
    *,
    pairs: Iterable[tuple[str, str]],
    groups: Mapping[str, Sequence[str]] | None = None,
    by_part: Collection[str] = (HELDOUT,),
    champion: Mapping[str, Any] | None = None,
    made_of: Mapping[str, Any] | None = None,
    headlines: Mapping[str, Mapping[str, float]] | None = None,
    submitted: Collection[str] = (),
) -> dict[str, Any]:
    """The content of evidence.json.

    Args:
        records: what each model answered.
        pairs: models to compare, (first, second); differences are the second's score minus the first's.
        groups: benchmarks whose mean is a score of its own, by the group's name.
        by_part: benchmarks whose score is the mean over their parts with equal weights.
        champion: the champion that was evaluated beside the run's models: `version`, `model` (its name here, None if
            it could not be evaluated) and `why`; None if there was none.
        made_of: what was evaluated on what, by which stale and partial evidence is known: `dataset` (its digest),
            `checkpoints` (digest by model) and, if benchmarks of the catalogue were to be asked, `asked` (their number
            of items, by benchmark) and `partial` (what the copy of a benchmark lacks, of those that are not whole).
        headlines: by model and benchmark the harness's own number in the published unit, where that is no mean of
            items; it is shown and not judged.
        submitted: benchmarks that only their own servers can score; they are marked, and in no group.

    Returns:
        JSON-ready data: `models` (by name: `benchmarks` and `groups`, see `_measure`), `pairs` (first, second,
        `benchmarks` and `groups`, see `_difference`), `champion` and `made_of`.

    Raises:
        DataError: a benchmark has an item twice.
    """
    groups = {group: [name for name in names if name not in submitted] for group, names in (groups or {}).items()}
    models = {model: _measures(model, of_model, groups, by_part) for model, of_model in records.items()}
    for model, numbers in (headlines or {}).items():
        for benchmark, value in numbers.items():
            models[model]["benchmarks"][benchmark]["headline"] = value
    for of_model in models.values():
        for name in submitted:
            if name in of_model["benchmarks"]:
                of_model["benchmarks"][name]["submitted"] = True
    return {
        "models": models,
        "pairs": [
            _differences(first, second, records, groups, by_part)
            for first, second in pairs
            if first in records and second in records
        ],
        "champion": None if champion is None else dict(champion),
        "made_of": dict(made_of or {}),
    }


def digest_of(items: Iterable[ItemRecord]) -> str:
    """Digest of the questions, whatever was answered: two evaluations with equal digests asked the same."""
    lines = sorted(f"{item.item_id}\0{item.sha256}\n" for item in items)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _measures(
    model: str,
    of_model: Mapping[str, Sequence[ItemRecord]],
    groups: Mapping[str, Sequence[str]],
    by_part: Collection[str],
) -> dict[str, Any]:
    drawn: Drawn = {}
    benchmarks = {
        name: _measure(items, f"{model} {name}", name in by_part, drawn, name) for name, items in of_model.items()
    }
    return {"benchmarks": benchmarks, "groups": _of_groups(drawn, of_model, groups)}


def _measure(
    items: Sequence[ItemRecord], seed: str, by_part: bool, drawn: Drawn, benchmark: str, is_part: bool = False
) -> dict[str, Any]:
    """One model's score of a benchmark or a part of it.

    Returns:
        `score`, `low`, `high` (95 %), `at_least` (one-sided bound by confidence), all None without a score; `items`,
        `failed`, `not_judged`; `reasons` (failures by reason, with some ids); `chance` and `guess` (the best score of
        one constant answer), None if unknown; `digest` of the questions; `parts`, of a benchmark that has them.
    """
    _refuse_twice(items, benchmark)
    unjudged = [item for item in items if is_unjudged(item)]
    failed = [item for item in items if item.score is None and not is_unjudged(item)]
    found: dict[str, Any] = {"score": None, "low": None, "high": None, "at_least": None}
    if items and not unjudged:
        found = _score(items, seed, by_part, drawn, benchmark, is_part)
    found |= {
        "items": len(items),
        "failed": len(failed),
        "not_judged": len(unjudged),
        "reasons": _reasons([*failed, *unjudged]),
        "chance": _chance(items),
        "guess": _guess(items),
        "digest": digest_of(items),
    }
    parts = _by_part(items)
    if not is_part and list(parts) != [""]:
        found["parts"] = {
            part: _measure(own, f"{seed}/{part}", False, drawn, benchmark, is_part=True) for part, own in parts.items()
        }
    return found


def _score(
    items: Sequence[ItemRecord], seed: str, by_part: bool, drawn: Drawn, benchmark: str, is_part: bool
) -> dict[str, Any]:
    scored = [Scored(value=item.score or 0.0, cluster=_cluster(item), part=item.group) for item in items]
    values = [one.value for one in scored]
    is_share = set(values) <= {0.0, 1.0} and len({one.cluster for one in scored}) == len(scored)
    if is_part and is_share:  # right or wrong, each on its own: the exact answer needs no draws
        correct, total = int(sum(values)), len(values)
        low, high = wilson_interval(correct, total)
        bounds = {str(one): wilson_interval(correct, total, z=one_sided(one))[0] for one in CONFIDENCES}
        return {"score": correct / total, "low": low, "high": high, "at_least": bounds}
    found = estimate(scored, name=seed, bounds=(0.0, 1.0), by_part=by_part)
    if not is_part:
        drawn[benchmark] = found
    data = found.to_dict()
    return {"score": data["value"], "low": data["low"], "high": data["high"], "at_least": data["at_least"]}


def _differences(
    first: str, second: str, records: Records, groups: Mapping[str, Sequence[str]], by_part: Collection[str]
) -> dict[str, Any]:
    drawn: Drawn = {}
    shared = [name for name in records[second] if name in records[first]]
    benchmarks = {
        name: _difference(
            records[first][name], records[second][name], f"{first} {second} {name}", name in by_part, drawn, name
        )
        for name in shared
    }
    lacking = sorted({*records[first], *records[second]} - set(shared))
    of_groups = _of_groups(drawn, {name: records[second][name] for name in shared}, groups)
    for one in of_groups.values():
        one["verdict"] = _verdict(one)
    return {"first": first, "second": second, "benchmarks": benchmarks, "groups": of_groups, "not_compared": lacking}


def _difference(
    first: Sequence[ItemRecord],
    second: Sequence[ItemRecord],
    seed: str,
    by_part: bool,
    drawn: Drawn,
    benchmark: str,
    is_part: bool = False,
) -> dict[str, Any]:
    """The difference of two models on the questions that both were asked, the same question by id and content.

    Returns:
        `value`, `low`, `high`, `at_least`, `verdict`, all None if nothing can be compared; `first` and `second` (their
        scores on the shared questions); `shared`, `won`, `lost` (questions on which the second scored more, less);
        `unshared` (questions of only one of them) and `not_judged` (shared, but without a score on a side); `parts`.
    """
    one = {(item.item_id, item.sha256): item for item in first}
    other = {(item.item_id, item.sha256): item for item in second}
    both = [(one[key], item) for key, item in other.items() if key in one]
    judged = [pair for pair in both if not any(map(is_unjudged, pair))]
    changes = [(after.score or 0.0) - (before.score or 0.0) for before, after in judged]
    found: dict[str, Any] = dict.fromkeys(("value", "low", "high", "at_least", "verdict", "first", "second"))
    if judged:
        scored = [
            Scored(value=change, cluster=_cluster(after), part=after.group)
            for change, (_, after) in zip(changes, judged, strict=True)
        ]
        estimated = estimate(scored, name=seed, bounds=(-1.0, 1.0), by_part=by_part)
        if not is_part and len(judged) == len(both):
            drawn[benchmark] = estimated
        data = estimated.to_dict()
        found |= {name: data[name] for name in ("value", "low", "high", "at_least")}
        found |= {"verdict": _verdict(found), **_two_scores(judged, by_part)}
    found |= {
        "shared": len(both),
        "won": sum(change > 0 for change in changes),
        "lost": sum(change < 0 for change in changes),
        "unshared": len(one.keys() ^ other.keys()),
        "not_judged": len(both) - len(judged),
    }
    parts = _by_part(second)
    if not is_part and list(parts) != [""]:
        earlier = _by_part(first)
        found["parts"] = {
            part: _difference(earlier.get(part, []), own, f"{seed}/{part}", False, drawn, benchmark, is_part=True)
            for part, own in parts.items()
        }
    return found


def _two_scores(judged: Sequence[tuple[ItemRecord, ItemRecord]], by_part: bool) -> dict[str, float]:
    """Both scores on the same questions; so the difference is exactly the second minus the first."""
    scores = {}
    for place, side in enumerate(("first", "second")):
        items = [pair[place] for pair in judged]
        groups = _by_part(items).values() if by_part else [items]
        means = [sum(item.score or 0.0 for item in own) / len(own) for own in groups]
        scores[side] = sum(means) / len(means)
    return scores


def _of_groups(drawn: Drawn, asked: Mapping[str, Any], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The mean of each group, and the benchmarks in it; one of which a benchmark has no score has none either."""
    found = {}
    for group, names in groups.items():
        chosen = [name for name in names if name in asked]
        lacking = [name for name in chosen if name not in drawn]
        if chosen:
            mean = None if lacking else mean_of([drawn[name] for name in chosen]).to_dict()
            numbers = mean or dict.fromkeys(("value", "low", "high", "at_least"))
            found[group] = {name: numbers[name] for name in ("value", "low", "high", "at_least")} | {
                "benchmarks": chosen,
                "lacking": lacking,
            }
    return found


def _verdict(difference: Mapping[str, Any]) -> str | None:
    if difference["value"] is None:
        return None
    if difference["low"] > 0:
        return BETTER
    return WORSE if difference["high"] < 0 else WITHIN_CHANCE


def _by_part(items: Iterable[ItemRecord]) -> dict[str, list[ItemRecord]]:
    parts: dict[str, list[ItemRecord]] = {}
    for item in items:
        parts.setdefault(item.group, []).append(item)
    return parts


def _cluster(item: ItemRecord) -> str:
    """Questions about the same media belong together; one without media stands alone."""
    return "\0".join(item.media) or f"\0{item.item_id}"


def _chance(items: Sequence[ItemRecord]) -> float | None:
    """Mean score of guessing; None if it is unknown for one of them."""
    chances = [item.chance for item in items]
    known = [chance for chance in chances if chance is not None]
    return sum(known) / len(known) if known and len(known) == len(chances) else None


def _guess(items: Sequence[ItemRecord]) -> float | None:
    """The score of the best constant answer, without a look at any question: a chance for answers of any form.

    References red, red, blue and a score of right or wrong: always "red" scores 2/3. None where answers can be partly
    right, because a constant answer would be, too.
    """
    if not items or not {item.score for item in items} <= {0.0, 1.0, None}:
        return None
    (_, most), *_ = Counter(item.reference.strip().casefold() for item in items).most_common(1)
    return most / len(items)


def _reasons(items: Iterable[ItemRecord]) -> list[dict[str, Any]]:
    """[{"reason": "cannot be decoded", "count": 7, "items": [five ids]}], the most frequent first."""
    ids: dict[str, list[str]] = {}
    for item in items:
        ids.setdefault(item.why_no_score or "no reason was recorded", []).append(item.item_id)
    ranked = sorted(ids.items(), key=lambda one: (-len(one[1]), one[0]))
    return [{"reason": reason, "count": len(own), "items": own[:MAX_NAMED]} for reason, own in ranked]


def _refuse_twice(items: Sequence[ItemRecord], benchmark: str) -> None:
    twice = [name for name, count in Counter(item.item_id for item in items).items() if count > 1]
    if twice:
        raise DataError(
            f"the records of {benchmark} have {len(twice)} items twice, such as {twice[0]!r:.200}, so these would "
            "count more than the others. Run the evaluation of this benchmark again."
        )
