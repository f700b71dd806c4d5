"""`vl3 eval compare`: two evaluations question by question, as tables, as JSON and as a page with the changed items."""

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl3.cli.output import AsJson, print_json
from vl3.cli.tables import aligned, printable
from vl3.errors import ConfigError
from vl3.report.text import points_text

if TYPE_CHECKING:
    from vl3.evaluation.compare import Evaluated
    from vl3.pipelines.server import Server

_ANY = "Folder of a run, its name below runs/, the id of a submitted one, or the folder of an evaluation."
_SHOWN = 5
"""Lost and won questions of each benchmark that the terminal shows; the page has more."""


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help=_ANY)],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The other one; differences are its minus the first.")],
    first_model: Annotated[str, typer.Option("--first-model", help="Model of the first; default: its last.")] = "",
    second_model: Annotated[str, typer.Option("--second-model", help="Model of the second; default: its last.")] = "",
    out: Annotated[Path, typer.Option("--out", help="File for the page.")] = Path("build/eval-compare.html"),
    as_json: AsJson = False,
    endpoint: Annotated[
        str, typer.Option("--endpoint", envvar="VL3_KFP_ENDPOINT", help="Address of the Kubeflow Pipelines server.")
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", envvar="VL3_KFP_NAMESPACE", help="Namespace, on a multi-user server.")
    ] = "",
) -> None:
    """Compare two evaluations on the questions that both were asked: scores, intervals, and which answers changed."""
    from vl3.evaluation.compare import compare_evaluations
    from vl3.report.item_comparison import write_item_comparison

    connect = (lambda: _server(endpoint, namespace)) if endpoint else None
    sides = [_evaluated(run, model, connect) for run, model in ((first, first_model), (second, second_model))]
    comparison = compare_evaluations(*sides)
    write_item_comparison(comparison, out, {side.name: side.folder for side in sides})
    if as_json:
        print_json({**comparison, "page": str(out)})
        return
    print(f"{comparison_text(comparison)}\n\n{out}: the same as a page, with more of the changed answers")


def _server(endpoint: str, namespace: str) -> "Server":
    from vl3.pipelines.server import Server

    return Server(endpoint, namespace, os.environ)


def _evaluated(run: str, model: str, connect: "Callable[[], Server] | None") -> "Evaluated":
    """The item records of a run's evaluation, or of an evaluation's folder.

    Raises:
        ConfigError: there is no such run, evaluation or model.
        StorageError: the evaluation cannot be fetched.
    """
    from vl3.evaluation.compare import open_evaluated
    from vl3.evaluation.items import ITEMS_FOLDER

    folder = Path(run)
    if (folder / ITEMS_FOLDER).is_dir():
        return open_evaluated(folder, folder.name, model)
    from vl3.cli.compare import finished_run
    from vl3.store.artifacts import fetch, find

    found = finished_run(run, connect)
    reference = find(found.evaluation_uri) if found.evaluation_uri else None
    if reference is None:
        where = f": nothing is at {found.evaluation_uri}" if found.evaluation_uri else ""
        raise ConfigError(
            f"run {run} has no evaluation any more{where}, so its answers cannot be compared. Start the run again: it "
            "makes what is missing."
        )
    return open_evaluated(fetch(reference), found.name, model or found.model)


def comparison_text(comparison: dict[str, Any]) -> str:
    """The comparison as tables for a terminal."""
    first, second = comparison["first"], comparison["second"]
    names = [f"{side['name']} ({side['model']})" for side in (first, second)]
    rows = [("SCORE", *names, "DIFFERENCE", "95 % INTERVAL", "WON", "LOST", "QUESTIONS", "VERDICT")]
    rows += [_row(row) for row in comparison["rows"]]
    words = (
        f"Differences are {names[1]} minus {names[0]} in percentage points, on the same questions. The interval comes "
        "from drawing the questions again, those about one medium together. A verdict is given if it leaves out zero."
    )
    parts = [aligned(rows), textwrap.fill(words, 110)]
    if comparison["not_compared"]:
        parts.append(f"Not compared, because only one of them was asked: {', '.join(comparison['not_compared'])}.")
    for benchmark, found in comparison["changes"].items():
        parts.append(f"{benchmark}: {found['lost']} answers lost, {found['won']} won")
        for side in ("lost", "won"):
            items = [item for item in found["items"] if item["side"] == side][:_SHOWN]
            parts += [aligned([_item(item) for item in items])] if items else []
    return "\n\n".join("\n".join(map(printable, part.split("\n"))) for part in parts)


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    name = ("  " if row["level"] == "part" else "") + row["title"]
    found = row["difference"]
    if found is None:
        return (name, "", "", "", "", "", "", str(row["shared"] or 0), "nothing to compare")
    interval = f"{points_text(found['low'])} to {points_text(found['high'])}"
    scores = ("", "") if row["first"] is None else (f"{row['first']:.1%}", f"{row['second']:.1%}")
    counts = tuple("" if row[key] is None else str(row[key]) for key in ("won", "lost", "shared"))
    return (name, *scores, points_text(found["value"]), interval, *counts, row["verdict"] or "")


def _item(item: dict[str, Any]) -> tuple[str, ...]:
    """`- chart-0007  Which colour?  right: red  was: red  now: blue`."""
    was, now = (_said(item[side]) for side in ("first", "second"))
    sign = "-" if item["side"] == "lost" else "+"
    prompt = " ".join(item["prompt"].split())
    return (f"{sign} {item['item_id']}", textwrap.shorten(prompt, 60), f"right: {_short(item['reference'])}", was, now)


def _said(one: dict[str, Any]) -> str:
    return f"failed: {_short(one['why'])}" if one["answer"] is None else f"said: {_short(one['answer']) or '(nothing)'}"


def _short(text: str) -> str:
    return textwrap.shorten(" ".join(text.split()), 30, placeholder=" ...")
