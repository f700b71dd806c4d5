"""The report of a run: one self-contained HTML file and the same numbers as JSON."""

import datetime
import json
from pathlib import Path
from typing import Any

from vl3.config.codec import from_dict
from vl3.report import view
from vl3.report.data import ReportData
from vl3.report.lineage_graph import lineage_graph
from vl3.report.numbers import report_numbers
from vl3.report.render import render
from vl3.system.files import atomic_write_text


def write_report(report_data: dict[str, Any], out_folder: Path, *, evaluation_folder: Path | None = None) -> Path:
    """Write report.html and report.json.

    Args:
        report_data: the fields of vl3.report.data.ReportData as plain data.
        out_folder: folder to write into; it is made if it does not exist.
        evaluation_folder: folder of the evaluation, whose pictures are embedded in the page.

    Returns:
        The path of report.html, which needs no other file and makes no request. It may link to the Data Docs beside it.

    Raises:
        ConfigError: report_data has an unknown field or a value of the wrong type.
        StorageError: the files cannot be written.
    """
    numbers = report_numbers(from_dict(ReportData, report_data))
    pictures = report_data.get("item_pictures")
    html = report_page(
        numbers, evaluation_folder=evaluation_folder, item_pictures=pictures, titles=report_data.get("titles")
    )
    path = out_folder / "report.html"
    atomic_write_text(out_folder / "report.json", json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    atomic_write_text(path, html)
    return path


def report_page(
    numbers: dict[str, Any],
    *,
    evaluation_folder: Path | None = None,
    item_pictures: dict[str, dict[str, list[str]]] | None = None,
    titles: dict[str, str] | None = None,
) -> str:
    """The page that shows the numbers of vl3.report.numbers.report_numbers, with pictures of single items."""
    labels = view.StageLabels([stage["stage"] for stage in numbers["stages"]])
    return render(
        "report.html.j2",
        title=f"{numbers['run']['run_name']} · vl3 run report",
        script="report.js",
        filters={"model_label": labels.model_label, "short_label": labels.short_label},
        n=numbers,
        started=_date(numbers["run"]["started_at"]),
        charts=view.stage_charts(numbers["stages"]),
        accuracy_charts=view.accuracy_charts(numbers["accuracy"], labels),
        lineage_graph=lineage_graph(numbers["lineage"] or []),
        prediction_groups=_prediction_groups(numbers, evaluation_folder),
        item_pictures=view.ItemPictures(item_pictures or {}, evaluation_folder),
        titles_of=titles or {},
    )


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
