"""The catalogue as tables for people and programs."""

from typing import Any

from vl3.data.catalogue.entry import Catalogue, Entry


def overview(catalogue: Catalogue, stage: int | None = None) -> list[dict[str, Any]]:
    """One row for each dataset, of one stage or of all."""
    return [
        {
            "name": entry.name,
            "title": entry.title,
            "rows": ", ".join(entry.rows),
            "licence": entry.licence,
            "import": entry.format or f"no: {entry.note}",
        }
        for entry in catalogue.datasets.values()
        if stage is None or any(row.startswith(f"{stage} ") for row in entry.rows)
    ]


def details(entry: Entry, catalogue: Catalogue) -> dict[str, Any]:
    """All that is known of one dataset."""
    amounts = [f"{row}: {_amount(row, catalogue)}" for row in entry.rows]
    return {
        "name": entry.name,
        "title": entry.title or entry.name,
        "rows of the paper's tables": "; ".join(amounts),
        "category": entry.category.value if entry.category else "by the structure of each sample",
        "licence": entry.licence,
        "home": entry.home,
        "layout": entry.layout or "not established",
        "documented in": entry.layout_source,
        "format": entry.format or "none",
        "options": _words(entry.options),
        **{f"options of stage {stage}": _words(options) for stage, options in sorted(entry.by_stage.items())},
        "note": entry.note,
    }


def _amount(row: str, catalogue: Catalogue) -> str:
    """A row's amount, and of how many datasets it is."""
    count = sum(row in entry.rows for entry in catalogue.datasets.values())
    shared = f" of {count} datasets together" if count > 1 else ""
    return f"{catalogue.rows[row]} samples{shared}"


def _words(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
