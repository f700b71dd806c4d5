"""Data Docs: what was checked about a dataset, rule by rule, as pages that need no network.

Great Expectations' own pages load style sheets, fonts and scripts from other hosts, so its results are shown here.
"""

from pathlib import Path
from typing import Any

from vl3.report.render import render
from vl3.system.files import atomic_write_text

INDEX = "index.html"
"""The first page."""
MAX_SHOWN_ROWS = 1000
"""Rows shown of each failed check, and of the refused lines."""

_TABLES = {
    "schema": "the columns of the index",
    "lines": "all annotation lines, also the refused ones",
    "samples": "the samples that are used",
    "dataset": "the dataset as a whole",
    "mixture": "the kinds of a stage's mixture",
    "stages": "the training stages",
    "heldout": "the held-out samples by category",
    "drift": "the mix and the measures, compared with the former build",
}
"""What a row of each table is."""


def write_data_docs(validation: dict[str, Any], folder: Path) -> Path:
    """Write index.html and a page for each table that was checked.

    Args:
        validation: content of validation.json (vl3.validation.result.ValidationResult.to_dict()).
        folder: folder to write into; it is made if it does not exist.

    Returns:
        The path of index.html.

    Raises:
        StorageError: the pages cannot be written.
    """
    tables = _tables(validation)
    for table in tables:
        left_out = validation["left_out"][:MAX_SHOWN_ROWS] if table["name"] == "lines" else []
        page = render(
            "data_docs_table.html.j2",
            title=f"Data Docs · {table['name']}",
            table=table,
            left_out=left_out,
            not_shown=validation["facts"].get("refused", 0) - len(left_out) if left_out else 0,
        )
        atomic_write_text(folder / table["page"], page)
    page = render("data_docs_index.html.j2", title="Data Docs", validation=validation, tables=tables)
    atomic_write_text(folder / INDEX, page)
    return folder / INDEX


def _tables(validation: dict[str, Any]) -> list[dict[str, Any]]:
    """The checked tables in the order of their checks; failed checks have their finding."""
    findings = {finding["check"]: finding for finding in (*validation["critical"], *validation["warnings"])}
    tables: dict[str, dict[str, Any]] = {}
    for check in validation["checks"]:
        name = check["table"]
        table = tables.setdefault(
            name,
            {
                "name": name,
                "page": f"{name}.html",
                "meaning": _TABLES.get(name, ""),
                "rows": check["total"],
                "checks": [],
            },
        )
        rows = findings.get(check["check"], {}).get("rows", [])
        problem, _, remedy = check["meaning"].partition(". ")
        own = {"problem": problem, "remedy": remedy, "number": len(table["checks"]) + 1}
        table["checks"].append({**check, **own, "rows": rows[:MAX_SHOWN_ROWS]})
    for table in tables.values():
        table["checks"].sort(key=lambda check: (check["passed"], check["severity"]))  # the failed ones first
    return list(tables.values())
