"""`vl3 run compare`: finds two finished runs, here or on a server, and prints how they differ."""

import difflib
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.cli.tables import aligned, printable
from vl3.errors import ConfigError
from vl3.pipelines.local.folder import RUNS
from vl3.pipelines.local.record import read_former
from vl3.report.finished_run import REPORT_JSON, FinishedRun, read_finished_run
from vl3.report.text import label, p_text, points_text, short_number, value_text
from vl3.system.files import read_record

if TYPE_CHECKING:
    from vl3.pipelines.server import Server

_BARS = "▁▂▃▄▅▆▇█"
_BARS_A_CURVE = 16
_ABSENT = "(absent)"


def finished_run(run: str, connect: Callable[[], "Server"] | None) -> FinishedRun:
    """A run that has a report.

    Args:
        run: folder of a run, its name below runs/, or the id of a submitted one.
        connect: connects to the server of submitted runs; None if no server is known.

    Raises:
        ConfigError: there is no such run, or it has no report of its own yet.
        StorageError: its report is damaged, or the store fails.
    """
    for folder in (Path(run), RUNS / run):
        if _is_file(folder / "run.json") or _is_file(folder / "report" / REPORT_JSON):
            return _local(folder, run)
    if connect is None or Path(run).is_absolute():
        raise ConfigError(_unknown(run))
    return _submitted(run, connect())


def comparison_text(comparison: dict[str, Any]) -> str:
    """The comparison as tables for a terminal."""
    names = (comparison["first"]["name"], comparison["second"]["name"])
    parts = [aligned([(side["name"], side["run_id"]) for side in (comparison["first"], comparison["second"])])]
    parts.append("\n".join(f"note: {note}" for note in comparison["notes"]))
    settings = _differences("SETTING", comparison["settings"], names)
    parts.append(settings or "Both runs have the same settings.")
    parts += [_differences("WHAT ELSE DIFFERS", comparison["surroundings"], names)]
    parts += [_losses(comparison["losses"], names), _accuracy(comparison["accuracy"], names)]
    return "\n\n".join("\n".join(map(printable, part.split("\n"))) for part in parts if part)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False


def _unknown(run: str) -> str:
    near = difflib.get_close_matches(run, [path.parent.name for path in RUNS.glob("*/run.json")], n=1, cutoff=0.5)
    hint = f"The nearest is {near[0]!r}. " if near else ""
    return (
        f"run {run!r:.200} is not known: neither that folder nor {RUNS}/ has a run of this name. {hint}`vl3 run list` "
        "shows the runs; for a submitted one set --endpoint or VL3_KFP_ENDPOINT."
    )


def _local(folder: Path, run: str) -> FinishedRun:
    record = read_former(folder / "run.json")
    if not _is_file(folder / "report" / REPORT_JSON):
        state = record.get("state")
        now = f" (it is {state})" if state in ("running", "failed", "interrupted", "killed") else ""
        raise ConfigError(
            f"run {run} has no report yet{now}, so there is nothing to compare. Start it again in {folder} and let it "
            "end: it reuses what is finished."
        )
    found = read_finished_run(folder / "report", run)
    if record and record["run_id"] != found.run_id:
        raise ConfigError(
            f"run {run} was started again as {record['run_id']}, and its report is still that of {found.run_id}. Let "
            "the run end first."
        )
    return found


def _submitted(run: str, server: "Server") -> FinishedRun:
    from vl3.pipelines.submit import find_run
    from vl3.pipelines.tasks import run_parameters
    from vl3.store.artifacts import fetch
    from vl3.workflow.record import finished_records

    found = find_run(server, run)
    parameters = run_parameters(found)
    artifacts_uri, run_id = parameters.get("artifacts_uri"), parameters.get("run_id")
    if not isinstance(artifacts_uri, str) or not isinstance(run_id, str):
        raise ConfigError(f"run {run} of {server.endpoint} is not one of vl3's workflow, so it has no report.")
    for record in finished_records(artifacts_uri, "report"):
        folder = fetch(record.output("report"))
        about = read_record(folder / REPORT_JSON).get("run")
        if isinstance(about, dict) and about.get("run_id") == run_id:
            return read_finished_run(folder, run)
    raise ConfigError(
        f"run {run} is {found.state} and none of the newest reports below {artifacts_uri} is its own, so there is "
        "nothing to compare. Let it end, or submit it again: it reuses what is finished."
    )


def _differences(title: str, rows: list[dict[str, Any]], names: tuple[str, str]) -> str:
    if not rows:
        return ""
    values = [
        (row["name"], *(value_text(row[side]) if side in row else _ABSENT for side in ("first", "second")))
        for row in rows
    ]
    return aligned([(title, *names), *values])


def _losses(losses: list[dict[str, Any]], names: tuple[str, str]) -> str:
    rows = [(label(one["stage"]), _curve(one["first"]), _curve(one["second"])) for one in losses]
    return aligned([("LOSS", *names), *rows]) if rows else ""


def _curve(points: list[tuple[float, float]]) -> str:
    """`▇▅▃▂▁ 2.3 -> 0.41 in 200 steps`, with bars between the lowest and the highest loss of the curve."""
    if not points:
        return _ABSENT
    chosen = [loss for _, loss in points[:: max(1, -(-len(points) // _BARS_A_CURVE))]]
    low, high = min(chosen), max(chosen)
    bars = "".join(_BARS[round((loss - low) / (high - low or 1) * (len(_BARS) - 1))] for loss in chosen)
    (_, first), (steps, last) = points[0], points[-1]
    return f"{bars} {short_number(first)} -> {short_number(last)} in {steps:.0f} steps"


def _accuracy(changes: dict[str, Any], names: tuple[str, str]) -> str:
    if not changes["tasks"]:
        return "No task was evaluated in both runs."
    rows = [("ACCURACY", *names, "DIFFERENCE", "95 % INTERVAL", "P", "VERDICT")]
    for task, one in changes["tasks"].items():
        rows.append((label(task), _share(one["first"]), _share(one["second"]), *_difference(one)))
    mean = changes["mean"]
    rows.append(("mean", f"{mean['first']:.1%}", f"{mean['second']:.1%}", *_difference(mean)))
    paired = sum(one["paired"] for one in changes["tasks"].values())
    left_out = ", ".join(map(label, changes["not_compared"]))
    words = (
        f"Differences are {names[1]} minus {names[0]}, in percentage points. Beyond chance is p < 0.05 after a "
        f"correction for {len(changes['tasks'])} tasks (Holm); {paired} of them were compared question by question. "
        "Chance means the choice of the questions, not the seed of the training."
    )
    lines = [aligned(rows), textwrap.fill(words, 110)]
    lines += [f"Not compared, for lack of a score on one side: {left_out}."] if left_out else []
    return "\n".join(lines)


def _share(one: dict[str, Any]) -> str:
    return f"{one['accuracy']:.1%} ({one['low']:.0%} to {one['high']:.0%})"


def _difference(one: dict[str, Any]) -> tuple[str, str, str, str]:
    found = one["difference"]
    interval = f"{points_text(found['low'])} to {points_text(found['high'])}"
    return points_text(found["value"]), interval, p_text(found["p_value"]), one["verdict"]
