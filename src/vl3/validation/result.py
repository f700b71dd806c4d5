"""The result of validation: findings with their failing rows, and the decision."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vl3.data.sample.problems import list_refusals
from vl3.errors import DataError

RESULT_FILE = "validation.json"
"""The file with all findings in the folder of a validation."""

DOCS_FOLDER = "data_docs"
"""Folder of the pages for people in the folder of a validation."""

MAX_NAMED_ROWS = 1000
"""Maximum number of rows that a finding lists; the count is always that of all failing rows."""
_SHOWN_LINES = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class FailingRow:
    """A row that fails a check."""

    where: str
    """The annotation line, column, stage or category."""
    reason: str
    """What is wrong with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A check that failed."""

    check: str
    """Name of the check."""
    severity: str
    """`critical` or `warning`."""
    expectation: str
    """Name of the expectation in Great Expectations."""
    table: str
    """The checked table: schema, lines, samples, dataset, mixture, stages, heldout or drift."""
    column: str
    """The checked column; empty for a whole table."""
    observed: str
    """Some of the failing values, or the observed value."""
    count: int
    """Number of failing rows."""
    total: int
    """Number of rows of the table."""
    message: str
    """What is wrong and what to do."""
    rows: tuple[FailingRow, ...]
    """The failing rows, at most MAX_NAMED_ROWS."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckOutcome:
    """A check that was run, passed or not."""

    check: str
    """Name of the check."""
    table: str
    """The checked table."""
    severity: str
    """`critical` or `warning`."""
    rule: str
    """What it asks for, as a sentence; names of columns stand between backticks."""
    meaning: str
    """What is wrong if it fails, and what to do."""
    passed: bool
    """Whether every row passed."""
    count: int
    """Number of failing rows."""
    total: int
    """Number of rows of the table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """An annotation line that the builder refused."""

    where: str
    """File and line."""
    kind: str
    """Kind of the problem."""
    reason: str
    """What is wrong with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationResult:
    """The decision about a dataset and everything that it is based on."""

    passed: bool
    """Whether no critical check failed."""
    critical: tuple[Finding, ...]
    """Failures because of which the dataset is refused."""
    warnings: tuple[Finding, ...]
    """Failures that are only reported."""
    checks: tuple[CheckOutcome, ...]
    """Every check that was run."""
    left_out: tuple[LeftOut, ...]
    """The first MAX_NAMED_ROWS refused lines; refused.jsonl of the dataset has all, and `facts` their number."""
    facts: dict[str, Any]
    """Counts to show: lines, refused, train, heldout, expectations, by category."""
    docs_folder: Path
    """Folder of the Data Docs, which start at index.html."""

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            "passed": self.passed,
            "critical": [asdict(finding) for finding in self.critical],
            "warnings": [asdict(finding) for finding in self.warnings],
            "checks": [asdict(check) for check in self.checks],
            "left_out": [asdict(line) for line in self.left_out],
            "facts": self.facts,
        }

    def require_passed(self) -> None:
        """Raise unless the dataset passed.

        Raises:
            DataError: lists the critical findings, each with its failing rows and their reasons.
        """
        if not self.passed:
            raise DataError(self.summary())

    def summary(self) -> str:
        """The critical findings as text, each followed by its first rows; equal ones are one line."""
        lines = [f"the dataset is refused by {len(self.critical)} critical check(s) ({self._counts()})."]
        for finding in self.critical:
            lines.append(f"{finding.check}: {finding.message}")
            listed = list_refusals((row.where, row.reason) for row in finding.rows)
            lines += [f"  {line}" for line in listed[:_SHOWN_LINES]]
            if len(listed) > _SHOWN_LINES or finding.count > len(finding.rows):
                lines.append(f"  ... and others of the {finding.count}")
        lines.append(f"All findings are in {self.docs_folder / 'index.html'}.")
        return "\n".join(lines)

    def _counts(self) -> str:
        shown = ("lines", "refused", "train", "heldout")
        return ", ".join(f"{self.facts[name]} {name}" for name in shown if name in self.facts)
