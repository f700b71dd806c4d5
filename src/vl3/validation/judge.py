"""Great Expectations on tables that come in parts: every row is judged by it, and what it says is added up.

A part is first judged by yes or no, with no other columns than those that are judged: Great Expectations copies all
that it is given for each check. Only the checks that fail are run again, with all columns, for their failing rows.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.system.files import atomic_write_text
from vl3.validation.check import Check
from vl3.validation.result import MAX_NAMED_ROWS

if TYPE_CHECKING:
    import pandas as pd

INDEX_COLUMNS = {
    "schema": ("column",),
    "lines": ("where",),
    "samples": ("where",),
    "dataset": ("dataset",),
    "mixture": ("stage", "kind"),
    "stages": ("stage",),
    "heldout": ("category",),
    "drift": ("split", "measure"),
    **dict.fromkeys(("decisions", "kept", "handed", "funnel"), ("where",)),
}
"""Columns that identify a row of each table."""
_MAX_VALUES = 20
"""Values that Great Expectations gives as examples."""


class Judge:
    """Runs the checks on the parts of their tables, and keeps a bounded number of failing rows of each."""

    def __init__(self, checks: Iterable[Check]) -> None:
        """Start Great Expectations; it takes seconds to import.

        Args:
            checks: what to judge by.
        """
        self._context = _context()
        self._source = self._context.data_sources.add_pandas("dataset_index")
        self._checks: dict[str, dict[str, Check]] = {}
        for check in checks:
            self._checks.setdefault(check.table, {})[check.name] = check
        self._batches: dict[str, Any] = {}
        self._parts: dict[str, int] = {}
        self._outcomes: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, int] = {}

    def add(self, table: str, frame: "pd.DataFrame") -> None:
        """Judge a part of a table; one without rows counts as well."""
        checks = self._checks.get(table, {})
        if table not in self._batches:
            asset = self._source.add_dataframe_asset(table)
            self._batches[table] = asset.add_batch_definition_whole_dataframe("all")
        self._rows[table] = self._rows.get(table, 0) + len(frame)
        self._parts[table] = self._parts.get(table, 0) + 1
        judged = list(dict.fromkeys(check.arguments["column"] for check in checks.values()))
        found = self._judge(table, frame[judged], checks.values(), {"result_format": "BOOLEAN_ONLY"})
        failed = [checks[name] for name, one in found.items() if not one["success"]]
        if failed:
            found |= self._judge(table, frame, failed, _result_format(table, checks.values()))
        for name, one in found.items():
            if one["success"]:
                one = {**one, "result": _passed(checks[name], frame)}
            self._outcomes[name] = _merged(self._outcomes.get(name), one)

    def _judge(
        self, table: str, frame: "pd.DataFrame", checks: Iterable[Check], result_format: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """What Great Expectations says about a part of a table, by the name of the check."""
        # Not ValidationDefinition.run: the context would keep the results of every part.
        batch = self._batches[table].get_batch({"dataframe": frame})
        found = batch.validate(_suite(table, checks), result_format=dict(result_format))
        return {one["expectation_config"]["meta"]["check"]: one for one in found.to_json_dict()["results"]}

    def results(self) -> list[tuple[Check, dict[str, Any], int]]:
        """Each check of the tables that were judged, what Great Expectations says, and the rows of its table."""
        return [
            (check, self._outcomes[name], self._rows[table])
            for table in self._rows
            for name, check in self._checks.get(table, {}).items()
        ]

    def write(self, folder: Path) -> None:
        """Write what Great Expectations says as `<table>.json`.

        Raises:
            StorageError: a file cannot be written.
        """
        for table, parts in self._parts.items():
            results = [self._outcomes[name] for name in self._checks.get(table, {})]
            data = {
                "suite_name": table,
                "success": all(one["success"] for one in results),
                "parts": parts,
                "rows": self._rows[table],
                "results": results,
            }
            # No `<`, in case that somebody serves it as a page.
            text = json.dumps(data, indent=1, default=str).replace("<", "\\u003c")
            atomic_write_text(folder / f"{table}.json", text + "\n")


def _passed(check: Check, frame: "pd.DataFrame") -> dict[str, Any]:
    """The counts of a check that passes on a part. Missing values pass, and are what ...BeNull asks for."""
    is_asked = check.expectation == "ExpectColumnValuesToBeNull"
    missing = 0 if is_asked else int(frame[check.arguments["column"]].isna().sum())
    return {"element_count": len(frame), "missing_count": missing, "unexpected_count": 0}


def _merged(before: Mapping[str, Any] | None, one: Mapping[str, Any]) -> dict[str, Any]:
    """The outcome of an expectation on the parts so far and on one more.

    3 of 100 rows fail, then 2 of 50: 5 of 150, and the lists of failing rows follow each other.
    """
    parts = [part for part in (before, one) if part is not None]
    details = [part["result"] for part in parts]

    def total(name: str) -> int:
        return sum(int(part.get(name) or 0) for part in details)

    def joined(name: str, limit: int) -> list[Any]:
        return [value for part in details for value in part.get(name) or ()][:limit]

    elements, unexpected = total("element_count"), total("unexpected_count")
    failed = next((part for part in parts if _raised(part)), parts[-1])
    return {
        "expectation_config": one["expectation_config"],
        "success": all(part["success"] for part in parts),
        "exception_info": failed.get("exception_info") or {},
        "result": {
            "element_count": elements,
            "missing_count": total("missing_count"),
            "unexpected_count": unexpected,
            "unexpected_percent": 100 * unexpected / elements if elements else 0.0,
            "partial_unexpected_list": joined("partial_unexpected_list", _MAX_VALUES),
            "unexpected_index_list": joined("unexpected_index_list", MAX_NAMED_ROWS),
        },
    }


def _raised(outcome: Mapping[str, Any]) -> bool:
    return bool(exception_message(outcome.get("exception_info") or {}))


def exception_message(info: Mapping[str, Any]) -> str:
    """The message of an exception inside Great Expectations; the structure differs for one and for several."""
    for part in (info, *(value for value in info.values() if isinstance(value, Mapping))):
        if part.get("raised_exception"):
            return str(part.get("exception_message"))
    return ""


def _context() -> Any:
    """A context in memory, without analytics, progress bars and pages of its own, which load parts from other hosts."""
    import great_expectations as gx
    from great_expectations.data_context.types import base

    project = base.DataContextConfig(
        store_backend_defaults=base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        analytics_enabled=False,
        progress_bars=base.ProgressBarsConfig(globally=False, metric_calculations=False),
    )
    return gx.get_context(mode="ephemeral", project_config=project)


def _suite(name: str, checks: Iterable[Check]) -> Any:
    import great_expectations as gx
    import great_expectations.expectations as gxe

    suite = gx.ExpectationSuite(name=name)
    for check in checks:
        expectation = getattr(gxe, check.expectation)
        meta = {"check": check.name, "notes": {"format": "string", "content": [f"fails if {check.meaning}."]}}
        suite.add_expectation(expectation(**check.arguments, severity=check.severity, meta=meta))
    return suite


def _result_format(table: str, checks: Iterable[Check]) -> dict[str, Any]:
    """Ask for all failing rows of a part, with the columns that identify them and give the reason."""
    columns = [*INDEX_COLUMNS[table], *(column for check in checks for column in check.reason_columns)]
    return {
        "result_format": "COMPLETE",
        "unexpected_index_column_names": list(dict.fromkeys(columns)),
        "return_unexpected_index_query": False,
    }
