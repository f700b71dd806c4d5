"""Runs the checks on the dataset index with Great Expectations, writes Data Docs and returns the findings.

The index is read twice, part by part: once for what rows have in common (vl3.validation.copies), once to judge them. So
memory does not grow with the number of rows.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.config.mixture import ONLY_DATASET
from vl3.config.run import RunConfig
from vl3.config.stages import StageTable
from vl3.data.build.parts import IndexParts, parts_of_dataset, parts_of_datasets
from vl3.data.sample.problems import printable
from vl3.errors import DataError
from vl3.report.data_docs import write_data_docs
from vl3.system.files import atomic_write_json, storage_errors
from vl3.validation import index_tables
from vl3.validation.check import CRITICAL, WARNING, Check
from vl3.validation.checks import all_checks, schema_checks
from vl3.validation.copies import Copies, places_of
from vl3.validation.judge import INDEX_COLUMNS, Judge, exception_message
from vl3.validation.profile import Profile, by_category, count_keys
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

log = logging.getLogger(__name__)

EXPECTATIONS_FOLDER = "great_expectations"
"""Folder of Great Expectations' own results, in the folder of the pages."""

_Result = tuple[Check, dict[str, Any], int]
"""A check, its result as Great Expectations' JSON data, and the number of rows of its table."""


def validate_dataset(
    dataset_folder: Path,
    config: RunConfig,
    out_folder: Path,
    *,
    stages: Collection[str] | None = None,
    against: Path | None = None,
) -> ValidationResult:
    """Check a built dataset, and how far it differs from another one, `against`; see `validate_index`.

    Raises:
        DataError: a folder is not a complete dataset, or a part of its index cannot be read.
        StorageError: the output cannot be written.
    """
    return validate_datasets({ONLY_DATASET: dataset_folder}, config, out_folder, stages=stages, against=against)


def validate_datasets(
    folders: Mapping[str, Path],
    config: RunConfig,
    out_folder: Path,
    *,
    stages: Collection[str] | None = None,
    against: Path | None = None,
) -> ValidationResult:
    """Check the built datasets of a corpus together; see `validate_dataset`."""
    before = profile_of(parts_of_dataset(against), _used(config, stages)) if against else None
    return validate_index(parts_of_datasets(folders), config, out_folder, stages=stages, before=before)


def validate_index(
    parts: IndexParts,
    config: RunConfig,
    out_folder: Path,
    *,
    stages: Collection[str] | None = None,
    before: Profile | None = None,
) -> ValidationResult:
    """Check the index of a dataset, one row per annotation line (columns: index_tables.COLUMN_KINDS).

    Args:
        parts: the index.
        config: the limits, mixtures and number of held-out samples to compare with.
        out_folder: gets `data_docs/index.html` and `validation.json`, and for a while some 70 bytes for each row.
        stages: names of the stages that will be trained on the dataset, whose mixtures it must serve; empty if it is
            only evaluated on, None for all of the configuration's.
        before: what the former build consists of, if the two are to be compared.

    Returns:
        The findings. A refused dataset is a result, not an error (see ValidationResult.require_passed).

    Raises:
        DataError: a part of the index cannot be read.
        StorageError: the output cannot be written.
    """
    docs_folder = out_folder / DOCS_FOLDER
    with storage_errors(docs_folder):
        docs_folder.mkdir(parents=True, exist_ok=True)
    schema = index_tables.schema_frame(parts.schema)
    counts = None
    if schema["fits"].all():
        counts = _Counts()
        judge = _judge_rows(parts, config, _used(config, stages), counts, out_folder)
        _judge_counts(judge, counts, _trained(config, stages))
        if before is not None:
            judge.add("drift", index_tables.drift_frame(before, counts.profile))
    else:
        judge = Judge(schema_checks())
        judge.add("schema", schema)
    judge.write(docs_folder / EXPECTATIONS_FOLDER)
    result = _result(judge.results(), counts, docs_folder)
    atomic_write_json(out_folder / RESULT_FILE, result.to_dict())
    write_data_docs(result.to_dict(), docs_folder)
    return result


def _trained(config: RunConfig, stages: Collection[str] | None) -> StageTable:
    return {name: stage for name, stage in config.stages.items() if stages is None or name in stages}


def _used(config: RunConfig, stages: Collection[str] | None) -> StageTable:
    """The stages whose settings say how long a sample is: all, if the dataset is only evaluated on."""
    return _trained(config, stages) or config.stages


class _Counts:
    """What is added up over the parts of an index."""

    def __init__(self) -> None:
        self.lines = self.refused = 0
        self.profile = Profile()
        self.without_chance = Counter[str]()
        self.unread_keys = Counter[str]()
        self.left_out: list[LeftOut] = []
        """The first of the refused lines."""

    def add(self, lines: "pd.DataFrame", samples: "pd.DataFrame") -> None:
        refused = lines[lines["problem"].notna()]
        self.lines += len(lines)
        self.refused += len(refused)
        shown = refused.head(MAX_NAMED_ROWS - len(self.left_out))
        self.left_out += [
            LeftOut(where=printable(str(where)), kind=printable(str(kind)), reason=printable(str(reason)))
            for where, kind, reason in zip(shown["where"], shown["problem_kind"], shown["problem"], strict=True)
        ]
        self.profile.add(samples)
        unsure = samples[(samples["split"] == "heldout") & samples["chance"].isna()]
        self.without_chance.update(Counter(unsure["category"]))
        count_keys(self.unread_keys, samples["unknown_keys"])

    def facts(self) -> dict[str, Any]:
        """Counts to show."""
        splits = Counter[str]()
        for (split, _, _), count in self.profile.samples.items():
            splits[split] += count
        unread = sorted(self.unread_keys.items(), key=lambda item: (-item[1], item[0]))[:MAX_NAMED_ROWS]
        return {
            "lines": self.lines,
            "refused": self.refused,
            "train": splits["train"],
            "heldout": splits["heldout"],
            "by_category": by_category(self.profile.samples),
            "unread_keys": {printable(key): count for key, count in unread},
        }


def _judge_rows(parts: IndexParts, config: RunConfig, stages: StageTable, counts: _Counts, folder: Path) -> Judge:
    """Judge the schema and every row of the index, and count."""
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=".copies-", dir=folder))
        copies = stack.enter_context(Copies(parts, Path(scratch)))
        places = places_of(copies.first_others(MAX_NAMED_ROWS), parts)
        is_tolerated = copies.num_refused <= config.data.max_bad_fraction * copies.num_lines
        judge = Judge(all_checks(config, bad_severity=WARNING if is_tolerated else CRITICAL))
        judge.add("schema", index_tables.schema_frame(parts.schema))
        first = 0
        for part, batch in parts.read(list(index_tables.COLUMN_KINDS)):
            others = copies.of_rows(first, batch.num_rows)
            lines = _readable(part, index_tables.lines_frame, batch)
            samples = _readable(part, index_tables.samples_frame, batch, stages, others, places)
            judge.add("lines", lines)
            judge.add("samples", samples[list(index_tables.SAMPLE_COLUMNS)])
            counts.add(lines, samples)
            first += batch.num_rows
    return judge


def profile_of(parts: IndexParts, stages: StageTable) -> Profile:
    """What a dataset consists of; its lengths are those in the stage that needs most.

    Raises:
        DataError: columns are missing or have another type, or a part of the index cannot be read.
    """
    unfit = [row["column"] for row in index_tables.schema_frame(parts.schema).to_dict("records") if not row["fits"]]
    if unfit:
        raise DataError(
            f"the index has no column {unfit[0]} of the type that this version of vl3 reads. Build the dataset again."
        )
    profile = Profile()
    for part, batch in parts.read(list(index_tables.COLUMN_KINDS)):
        profile.add(_readable(part, index_tables.samples_frame, batch, stages, {}, {}))
    return profile


def _readable(part: str, make: "Callable[..., pd.DataFrame]", *arguments: Any) -> "pd.DataFrame":
    """A table of a part of the index.

    Raises:
        DataError: the part has values that no build writes.
    """
    import pyarrow as pa

    try:
        return make(*arguments)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{part} of the index cannot be read ({error}). Build the dataset again.") from error


def _judge_counts(judge: Judge, counts: _Counts, stages: StageTable) -> None:
    """Judge the dataset as a whole; without a usable sample there is nothing to compare with the stages' mixtures."""
    samples = counts.profile.samples
    judge.add("dataset", index_tables.dataset_frame(samples))
    if not samples:
        return
    if stages:
        mixture = index_tables.mixture_frame(counts.profile.trained, stages)
        judge.add("mixture", mixture)
        judge.add("stages", index_tables.stages_frame(mixture, stages))
    judge.add("heldout", index_tables.heldout_frame(samples, counts.without_chance, stages))


def _finding(check: Check, outcome: Mapping[str, Any], total: int) -> Finding:
    details = outcome["result"]
    column = check.arguments.get("column", "")
    rows = tuple(_failing_row(check, column, row) for row in details.get("unexpected_index_list") or ())
    failure = exception_message(outcome.get("exception_info") or {})
    count = total if failure else details["unexpected_count"]
    problem = f"the check could not be run ({failure})" if failure else check.meaning
    share = f"{count} of {total} rows of {check.table}"
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
    where = printable("/".join(str(row[name]) for name in INDEX_COLUMNS[check.table]))
    if check.reason_columns == ("problem",):
        return FailingRow(where=where, reason=printable(str(row["problem"])))
    shown = {name: row[name] for name in (*check.reason_columns, column) if name in row}
    reason = ", ".join(f"{name}={_short(value)}" for name, value in shown.items())
    return FailingRow(where=where, reason=printable(reason))


def _short(value: Any) -> str:
    if value is None or value != value:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _observed(details: Mapping[str, Any]) -> str:
    values = dict.fromkeys(printable(str(value)) for value in details.get("partial_unexpected_list", ()))
    return ", ".join(list(values)[:5])


def _result(results: list[_Result], counts: _Counts | None, docs_folder: Path) -> ValidationResult:
    left_out = tuple(counts.left_out) if counts else ()
    return result_of(results, counts.facts() if counts else {}, docs_folder, left_out=left_out)


def result_of(
    results: list[_Result], facts: Mapping[str, Any], docs_folder: Path, *, left_out: tuple[LeftOut, ...] = ()
) -> ValidationResult:
    """The decision from what Great Expectations says of each check (Judge.results), with counts to show."""
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
        left_out=left_out,
        facts={"expectations": len(results), **facts},
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
