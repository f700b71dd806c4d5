"""The report of a run: one self-contained HTML file and the same numbers as JSON."""

import base64
import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vl3.config.codec import from_dict
from vl3.report import view
from vl3.report.data import ReportData
from vl3.report.numbers import report_numbers
from vl3.system.files import atomic_write_text

FILTERS = ("label", "percent", "signed_percent", "duration", "plain", "exact")


def write_report(report_data: dict[str, Any], out_folder: Path, *, evaluation_folder: Path | None = None) -> Path:
    """Write report.html and report.json.

    Args:
        report_data: the fields of vl3.report.data.ReportData as plain data.
        out_folder: folder to write into; it is made if it does not exist.
        evaluation_folder: folder of the evaluation, whose pictures are embedded in the page.

    Returns:
        The path of report.html, which needs no other file and makes no request.

    Raises:
        ConfigError: report_data has an unknown field or a value of the wrong type.
        StorageError: the files cannot be written.
    """
    numbers = report_numbers(from_dict(ReportData, report_data))
    html = render(numbers, evaluation_folder=evaluation_folder)
    path = out_folder / "report.html"
    atomic_write_text(out_folder / "report.json", json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    atomic_write_text(path, html)
    return path


def render(numbers: dict[str, Any], *, evaluation_folder: Path | None = None) -> str:
    """The page that shows the numbers of vl3.report.numbers.report_numbers."""
    environment = Environment(
        loader=PackageLoader("vl3.report"),
        autoescape=True,
        undefined=StrictUndefined,  # a missing number fails here and is not shown as empty text
        trim_blocks=True,
        lstrip_blocks=True,
    )
    labels = view.StageLabels([stage["stage"] for stage in numbers["stages"]])
    environment.filters.update({name: getattr(view, name) for name in FILTERS})
    environment.filters.update({"model_label": labels.model_label, "short_label": labels.short_label})
    script = _source(environment, "report.js")
    return environment.get_template("report.html.j2").render(
        n=numbers,
        style=_source(environment, "report.css"),
        script=script,
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        started=_date(numbers["run"]["started_at"]),
        charts=view.stage_charts(numbers["stages"]),
        accuracy_charts=view.accuracy_charts(numbers["accuracy"], labels),
        prediction_groups=_prediction_groups(numbers, evaluation_folder),
    )


def _source(environment: Environment, name: str) -> str:
    """Our style sheet or script, unescaped: neither contains anything that comes from a run."""
    return environment.loader.get_source(environment, name)[0]  # type: ignore[union-attr]


def _date(unix_seconds: float | None) -> str:
    if unix_seconds is None:
        return "not recorded"
    return datetime.datetime.fromtimestamp(unix_seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _prediction_groups(numbers: dict[str, Any], folder: Path | None) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for prediction in numbers["predictions"] or []:
        entry = {**prediction, "pictures": view.pictures(prediction, folder)}
        groups.setdefault(prediction["category"], []).append(entry)
    return groups
