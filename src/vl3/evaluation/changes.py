"""Item by item: what one model answers better or worse than another, and a model's best and worst answers."""

from collections.abc import Sequence
from typing import Any

from vl3.evaluation.items import ItemRecord
from vl3.evaluation.records import Records, is_unjudged

SHOWN = 3
"""Best and worst items shown of a benchmark or one of its parts."""
MAX_CHANGED = 12
"""Items won, and items lost, that are shown with their media of each benchmark."""


def changed_items(first: Sequence[ItemRecord], second: Sequence[ItemRecord]) -> dict[str, list[dict[str, Any]]]:
    """The questions on which two models' scores differ, the largest differences first.

    A question is the same if its id and its content are. One that failed counts as wrong, one without a judge is left
    out. First right on a and b, second right on b and c: c is won, a is lost.

    Returns:
        `won` and `lost`, each a list of JSON-ready items: benchmark, part, item_id, prompt, reference, media, and
        answer and score of `first` and `second`.
    """
    earlier = {(item.item_id, item.sha256): item for item in first}
    won: list[dict[str, Any]] = []
    lost: list[dict[str, Any]] = []
    for item in second:
        before = earlier.get((item.item_id, item.sha256))
        if before is None or is_unjudged(before) or is_unjudged(item):
            continue
        change = (item.score or 0.0) - (before.score or 0.0)
        if change:
            (won if change > 0 else lost).append(
                {**describe(item), "first": _said(before), "second": _said(item), "change": change}
            )
    order = {"won": won, "lost": lost}
    return {name: sorted(rows, key=lambda row: (-abs(row["change"]), row["item_id"])) for name, rows in order.items()}


def extreme_items(
    items: Sequence[ItemRecord], others: Sequence[Sequence[ItemRecord]], *, shown: int = SHOWN
) -> dict[str, list[ItemRecord]]:
    """A model's best and worst answers: of equal scores first those on which other models did the opposite.

    Right on a and b, wrong on c and d; the model before was right on a and c: best are b, a; worst are c, d.

    Args:
        items: one model's records of a benchmark or a part.
        others: records of other models on the same benchmark.
        shown: how many of each.
    """
    by_id: dict[str, list[float]] = {}
    for records in others:
        for item in records:
            if not is_unjudged(item):
                by_id.setdefault(item.item_id, []).append(item.score or 0.0)
    known = [item for item in items if not is_unjudged(item)]

    def of_others(item: ItemRecord) -> float:
        scores = by_id.get(item.item_id, [])
        return sum(scores) / len(scores) if scores else 0.5

    ranked = sorted(known, key=lambda item: (item.score or 0.0, -of_others(item), item.item_id))
    worst = [item for item in ranked if (item.score or 0.0) < 1][:shown]
    best = [item for item in reversed(ranked) if item.score and item not in worst][:shown]
    return {"best": best, "worst": worst}


def describe(item: ItemRecord) -> dict[str, Any]:
    """What a page shows of a question."""
    return {
        "benchmark": item.benchmark,
        "part": item.group,
        "item_id": item.item_id,
        "prompt": item.prompt,
        "reference": item.reference,
        "media": list(item.media),
    }


def shown_items(records: Records, model: str, champion: str | None) -> dict[str, Any]:
    """What a report shows of a model's items.

    Returns:
        `extremes`, a list of {benchmark, part, best, worst}, each with items that have `said` (answer and score); and
        `changes` by benchmark against the champion: numbers `won` and `lost`, and the most changed `items`, the lost
        ones first, with their `side`; empty without a champion.
    """
    extremes: list[dict[str, Any]] = []
    changes: dict[str, dict[str, Any]] = {}
    for benchmark, items in records[model].items():
        others = [own.get(benchmark, []) for name, own in records.items() if name != model]
        for part in dict.fromkeys(item.group for item in items):
            chosen = [item for item in items if item.group == part]
            found = extreme_items(chosen, others)
            shown = {side: [{**describe(item), "said": _said(item)} for item in own] for side, own in found.items()}
            extremes.append({"benchmark": benchmark, "part": part, **shown})
        if champion is not None and benchmark in records.get(champion, {}):
            changed = changed_items(records[champion][benchmark], items)
            most = [{**item, "side": side} for side in ("lost", "won") for item in changed[side][:MAX_CHANGED]]
            changes[benchmark] = {"won": len(changed["won"]), "lost": len(changed["lost"]), "items": most}
    return {"extremes": extremes, "changes": changes}


def _said(item: ItemRecord) -> dict[str, Any]:
    return {"answer": item.answer, "score": item.score, "why": item.why_no_score}
