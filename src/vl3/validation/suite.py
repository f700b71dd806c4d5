"""Runs the checks on the dataset index with Great Expectations, writes Data Docs and returns the findings."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.config.run import RunConfig
from vl3.report.data_docs import write_data_docs
from vl3.system.files import atomic_write_json, atomic_write_text, storage_errors
from vl3.validation import index_tables
from vl3.validation.check import CRITICAL, WARNING, Check
from vl3.validation.checks import all_checks, schema_checks
from vl3.validation.result import (
    DOCS_FOLDER,
    MAX_NAMED_ROWS,
    RESULT_FILE,
    CheckOutcome,
    FailingRow,
    Finding,
    LeftOut,
    ValidationResult,
)
from vl3.validation.rules import rule_in_words

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger(__name__)

EXPECTATIONS_FOLDER = "great_expectations"
"""Folder of Great Expectations' own results, in the folder of the pages."""

_Result = tuple[Check, dict[str, Any], int]
"""A check, its result as Great Expectations' JSON data, and the number of rows of its table."""
_INDEX_COLUMNS = {
    "schema": ("column",),
    "lines": ("where",),
    "samples": ("where",),
    "mixture": ("stage", "kind"),
    "stages": ("stage",),
    "heldout": ("category",),
}
"""Columns that identify a row of each table."""


def validate_dataset(dataset_folder: Path, config: RunConfig, out_folder: Path) -> ValidationResult:
    """Check a built dataset; see `validate_index`. Raises DataError if the folder is not a complete dataset."""
    from vl3.data.build.index import DatasetIndex

    return validate_index(DatasetIndex.read(dataset_folder).table, config, out_folder)


def validate_index(table: "pa.Table | pd.DataFrame", config: RunConfig, out_folder: Path) -> ValidationResult:
    """Check the index of a dataset, one row per annotation line (columns: index_tables.COLUMN_KINDS).

    Args:
        table: the index, as a pyarrow table or pandas frame.
        config: the limits, mixtures and number of held-out samples to compare with.
        out_folder: gets `data_docs/index.html` and `validation.json`.

    Returns:
        The findings. A refused dataset is a result, not an error (see ValidationResult.require_passed).

    Raises:
        StorageError: the output cannot be written.
    """
    table = _as_table(table)
    tables = {"schema": index_tables.schema_frame(table)}
    checks = schema_checks()
    if tables["schema"]["fits"].all():
        tables |= _data_tables(table, config)
        bad_severity = _bad_severity(tables["lines"], config)
        kinds = tables["lines"]["problem_kind"].dropna().unique()
        checks = all_checks(config, bad_severity=bad_severity, kinds=map(str, kinds))
    checks = [check for check in checks if check.table in tables]
    docs_folder = out_folder / DOCS_FOLDER
    with storage_errors(docs_folder):
        docs_folder.mkdir(parents=True, exist_ok=True)
        results = _run(tables, checks, docs_folder / EXPECTATIONS_FOLDER)
    result = _result(results, tables, docs_folder)
    atomic_write_json(out_folder / RESULT_FILE, result.to_dict())
    write_data_docs(result.to_dict(), docs_folder)
    return result


def _as_table(table: "pa.Table | pd.DataFrame") -> "pa.Table":
    import pyarrow as pa

    return table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)


def _data_tables(table: "pa.Table", config: RunConfig) -> "dict[str, pd.DataFrame]":
    """The tables by name; without a usable sample there is nothing to compare with the configuration's mixtures."""
    samples = index_tables.samples_frame(table, config)
    tables = {"lines": index_tables.lines_frame(table), "samples": samples}
    if len(samples):
        mixture = index_tables.mixture_frame(samples, config)
        tables |= {"mixture": mixture, "stages": index_tables.stages_frame(mixture, config)}
        tables["heldout"] = index_tables.heldout_frame(samples, config)
    return tables


def _bad_severity(lines: "pd.DataFrame", config: RunConfig) -> str:
    num_bad = int(lines["problem"].notna().sum())
    return WARNING if num_bad <= config.data.max_bad_fraction * len(lines) else CRITICAL


def _run(tables: "Mapping[str, pd.DataFrame]", checks: Iterable[Check], json_folder: Path) -> list[_Result]:
    """Run the checks table by table; Great Expectations' own results are kept as `<table>.json`."""
    context = _context()
    source = context.data_sources.add_pandas("dataset_index")
    by_name = {check.name: check for check in checks}
    results: list[_Result] = []
    for name, frame in tables.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        own = [check for check in by_name.values() if check.table == name]
        outcome = _definition(context, name, batch, own).run(
            batch_parameters={"dataframe": frame}, result_format=_result_format(name, own)
        )
        found = outcome.to_json_dict()
        for one in found["results"]:
            check = by_name[one["expectation_config"]["meta"]["check"]]
            results.append((check, one, len(frame)))
        # No `<`, in case that somebody serves it as a page.
        text = json.dumps(_shortened(found), indent=1, default=str).replace("<", "\\u003c")
        atomic_write_text(json_folder / f"{name}.json", text + "\n")
    return results


def _shortened(value: Any) -> Any:
    """The same data with at most MAX_NAMED_ROWS items in each list: a column may fail in millions of rows."""
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    return [_shortened(inner) for inner in value[:MAX_NAMED_ROWS]] if isinstance(value, list) else value


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


def _definition(context: Any, name: str, batch: Any, checks: Iterable[Check]) -> Any:
    import great_expectations as gx
    import great_expectations.expectations as gxe

    suite = gx.ExpectationSuite(name=name)
    for check in checks:
        expectation = getattr(gxe, check.expectation)
        meta = {"check": check.name, "notes": {"format": "string", "content": [f"fails if {check.meaning}."]}}
        suite.add_expectation(expectation(**check.arguments, severity=check.severity, meta=meta))
    context.suites.add(suite)
    return context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))


def _result_format(table: str, checks: Iterable[Check]) -> dict[str, Any]:
    """Ask for all failing rows, with the columns that identify them and give the reason."""
    columns = [*_INDEX_COLUMNS[table], *(column for check in checks for column in check.reason_columns)]
    return {
        "result_format": "COMPLETE",
        "unexpected_index_column_names": list(dict.fromkeys(columns)),
        "return_unexpected_index_query": False,
    }


def _finding(check: Check, outcome: Mapping[str, Any], total: int) -> Finding:
    details = outcome["result"]
    column = check.arguments.get("column", "")
    rows = tuple(_failing_row(check, column, row) for row in details.get("unexpected_index_list") or ())
    failure = _exception(outcome.get("exception_info") or {})
    count = details.get("unexpected_count", total)
    problem = f"the check could not be run ({failure})" if failure else check.meaning
    share = f"{count} of {total} rows of {check.table}" if column else check.table
    return Finding(
        check=check.name,
        severity=CRITICAL if failure else check.severity,
        expectation=outcome["expectation_config"]["type"],
        table=check.table,
        column=column,
        observed=failure or _observed(details),
        count=count,
        total=total,
        message=f"{share}: {problem}.",
        rows=rows[:MAX_NAMED_ROWS],
    )


def _failing_row(check: Check, column: str, row: Mapping[str, Any]) -> FailingRow:
    where = "/".join(str(row[name]) for name in _INDEX_COLUMNS[check.table])
    if check.reason_columns == ("problem",):
        return FailingRow(where=where, reason=str(row["problem"]))
    shown = {name: row[name] for name in (*check.reason_columns, column) if name in row}
    return FailingRow(where=where, reason=", ".join(f"{name}={_short(value)}" for name, value in shown.items()))


def _short(value: Any) -> str:
    if value is None or value != value:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _observed(details: Mapping[str, Any]) -> str:
    if "observed_value" in details:
        return str(details["observed_value"])
    values = dict.fromkeys(str(value) for value in details.get("partial_unexpected_list", ()))
    return ", ".join(list(values)[:5])


def _exception(info: Mapping[str, Any]) -> str:
    """The message of an exception inside Great Expectations; the structure differs for one and for several."""
    for part in (info, *(value for value in info.values() if isinstance(value, Mapping))):
        if part.get("raised_exception"):
            return str(part.get("exception_message"))
    return ""


def _result(results: list[_Result], tables: "Mapping[str, pd.DataFrame]", docs_folder: Path) -> ValidationResult:
    findings = [_finding(check, outcome, total) for check, outcome, total in results if not outcome["success"]]
    critical = tuple(finding for finding in findings if finding.severity == CRITICAL)
    for finding in findings:
        log.log(logging.ERROR if finding in critical else logging.WARNING, "%s: %s", finding.check, finding.message)
    failed = {finding.check: finding for finding in findings}
    return ValidationResult(
        passed=not critical,
        critical=critical,
        warnings=tuple(finding for finding in findings if finding.severity != CRITICAL),
        checks=tuple(_outcome(check, failed.get(check.name), total) for check, _, total in results),
        left_out=_left_out(tables.get("lines")),
        facts=_facts(tables, len(results)),
        docs_folder=docs_folder,
    )


def _outcome(check: Check, finding: Finding | None, total: int) -> CheckOutcome:
    return CheckOutcome(
        check=check.name,
        table=check.table,
        severity=finding.severity if finding else check.severity,
        rule=rule_in_words(check),
        meaning=check.meaning,
        passed=finding is None,
        count=finding.count if finding else 0,
        total=total,
    )


def _left_out(lines: "pd.DataFrame | None") -> tuple[LeftOut, ...]:
    if lines is None:
        return ()
    refused = lines[lines["problem"].notna()]
    return tuple(
        LeftOut(where=str(where), kind=str(kind), reason=str(reason))
        for where, kind, reason in zip(refused["where"], refused["problem_kind"], refused["problem"], strict=True)
    )


def _facts(tables: "Mapping[str, pd.DataFrame]", num_checks: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"expectations": num_checks}
    if "samples" not in tables:
        return facts
    lines, samples = tables["lines"], tables["samples"]
    splits = Counter(samples["split"])
    by_category = {split: dict(sorted(Counter(rows["category"]).items())) for split, rows in samples.groupby("split")}
    refused = int(lines["problem"].notna().sum())
    counts = {"lines": len(lines), "refused": refused, "train": splits["train"], "heldout": splits["heldout"]}
    unread = Counter(key for keys in samples["unknown_keys"].dropna() for key in keys.split(", "))
    unread_keys = dict(sorted(unread.items(), key=lambda item: (-item[1], item[0]))[:MAX_NAMED_ROWS])
    return {**facts, **counts, "by_category": by_category, "unread_keys": unread_keys}
