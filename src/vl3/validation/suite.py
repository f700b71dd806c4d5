"""Runs the checks on the dataset index with Great Expectations, writes Data Docs and returns the findings."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.config.run import RunConfig
from vl3.system.files import atomic_write_json, storage_errors
from vl3.validation import index_tables
from vl3.validation.check import CRITICAL, WARNING, Check
from vl3.validation.checks import all_checks, schema_checks
from vl3.validation.result import MAX_NAMED_ROWS, RESULT_FILE, FailingRow, Finding, LeftOut, ValidationResult

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger(__name__)

DOCS_FOLDER = "data_docs"
"""Folder of the HTML pages in the output folder."""

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
        findings = _run(tables, checks, docs_folder)
    result = _result(findings, tables, len(checks), docs_folder)
    atomic_write_json(out_folder / RESULT_FILE, result.to_dict())
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


def _run(tables: "Mapping[str, pd.DataFrame]", checks: Iterable[Check], docs_folder: Path) -> list[Finding]:
    """Run the checks table by table and render the Data Docs."""
    context = _context(docs_folder)
    source = context.data_sources.add_pandas("dataset_index")
    by_name = {check.name: check for check in checks}
    findings = []
    for name, frame in tables.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        own = [check for check in by_name.values() if check.table == name]
        outcome = _definition(context, name, batch, own).run(
            batch_parameters={"dataframe": frame}, result_format=_result_format(name, own)
        )
        for result in outcome.results:
            if not result.success:
                check = by_name[result.expectation_config.meta["check"]]
                findings.append(_finding(check, result.to_json_dict(), len(frame)))
    context.build_data_docs()
    return findings


def _context(docs_folder: Path) -> Any:
    """A context in memory, without analytics and progress bars, that writes its only site to our folder."""
    import great_expectations as gx
    from great_expectations.data_context.types import base

    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs_folder.absolute())}
    site = {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": backend}
    project = base.DataContextConfig(
        store_backend_defaults=base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        data_docs_sites={"vl3": {**site, "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"}}},
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


def _result(
    findings: list[Finding], tables: "Mapping[str, pd.DataFrame]", num_checks: int, docs_folder: Path
) -> ValidationResult:
    critical = tuple(finding for finding in findings if finding.severity == CRITICAL)
    for finding in findings:
        log.log(logging.ERROR if finding in critical else logging.WARNING, "%s: %s", finding.check, finding.message)
    return ValidationResult(
        passed=not critical,
        critical=critical,
        warnings=tuple(finding for finding in findings if finding.severity != CRITICAL),
        left_out=_left_out(tables.get("lines")),
        facts=_facts(tables, num_checks),
        docs_folder=docs_folder,
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
