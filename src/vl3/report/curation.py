"""The page of a curation: funnel, scores with thresholds, examples, contact sheets of clusters, clips of videos."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vl3.data.sample.problems import printable
from vl3.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, tick_text
from vl3.report.render import render
from vl3.system.files import atomic_write_json, atomic_write_text


def write_curation_report(
    curation: Path, videos: Path, validation: Path, out_folder: Path, *, name: str, data: str, corpus: str
) -> Path:
    """Write report.html and report.json; returns the page, which needs no other file and makes no request.

    Args:
        curation: folder of the result of images: curation.json, pictures.json, datasets.json.
        videos: folder of the result of videos: videos.json.
        validation: file with the findings of its validation.
        out_folder: folder to write into.
        name: name of the run.
        data: name of the input.
        corpus: address of the corpus that was handed over.
    """
    facts, pictures, datasets = (_read(curation / f"{one}.json") for one in ("curation", "pictures", "datasets"))
    judged, clips = _read(validation), _read(videos / "videos.json")
    if clips["dataset"]:
        datasets |= {clips["dataset"]: clips["samples"]}
    page = render(
        "curation.html.j2",
        title=f"{name} · vl3 curation",
        filters={"printable": printable},
        name=name,
        data=data,
        corpus=corpus,
        facts=facts,
        datasets=datasets,
        videos=clips,
        video_rows=_video_rows(clips["funnel"]),
        bars=_bars(facts["funnel"]),
        charts=[_chart(step, one, facts["funnel"]) for step, one in facts["histograms"].items()],
        examples=_examples(facts, pictures["thumbs"]),
        sheets=_sheets(pictures),
        failed=sum(row["failed"] for row in facts["funnel"]),
        findings=[*judged["critical"], *judged["warnings"]],
        num_checks=len(judged["checks"]),
    )
    atomic_write_text(out_folder / "report.html", page)
    atomic_write_json(
        out_folder / "report.json",
        {**facts, "datasets": datasets, "videos": clips["funnel"], "passed": judged["passed"]},
    )
    return out_folder / "report.html"


def score_histogram(
    edges: Sequence[float], counts: Sequence[int], thresholds: Sequence[float], *, title: str, description: str
) -> Markup:
    """Bars of a score, and a line at each threshold.

    Args:
        edges: edges of the bins, one more than counts.
        counts: images in each bin.
        thresholds: where lines are drawn.
        title: what the chart shows, for screen readers.
        description: its message in one sentence.
    """
    total = sum(counts)
    if not total:
        return Markup("")
    x_scale = Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT)
    y_scale = Scale(0.0, max(counts) / total, HEIGHT - BOTTOM, TOP)
    parts = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        x, y = x_scale(low), y_scale(count / total)
        width, height = round(max(x_scale(high) - x - 1, 0.5), 2), round(HEIGHT - BOTTOM - y, 2)
        bar = Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
        parts.append(
            bar.format(x, y, width, height, f"{low:.3g} to {high:.3g}: {count:,} images ({count / total:.1%})")
        )
    for threshold in thresholds:
        x = x_scale(threshold)
        line = Markup('<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="currentColor" stroke-dasharray="4 3"/>')
        label = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
        parts += [
            line.format(x, x, TOP, HEIGHT - BOTTOM),
            label.format(x, TOP - 2, tick_text(float(f"{threshold:.3g}"))),
        ]
    for tick in x_scale.ticks(4):
        label = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
        parts.append(label.format(x_scale(tick), HEIGHT - BOTTOM + 15, tick_text(tick)))
    frame = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>{}</svg>')
    body = Markup("").join(parts)
    return frame.format(WIDTH, HEIGHT, f"{title}. {description}", title, description, body)


def _bars(funnel: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the funnel with the share of all images that each leaves."""
    total = max(1, funnel[0]["came"]) if funnel else 1
    return [{**row, "share": row["left"] / total} for row in funnel]


def _video_rows(funnel: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The funnel of videos as rows: `dropped parts of shots: too still` 12."""
    rows: list[tuple[str, int]] = []
    for name, value in funnel.items():
        words = name.replace("_", " ")
        rows += (
            [(f"{words}: {one}", count) for one, count in value.items()]
            if isinstance(value, dict)
            else [(words, value)]
        )
    return rows


def _chart(step: str, one: Mapping[str, Any], funnel: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    row = next(row for row in funnel if row["step"] == step)
    message = f"{row['dropped']:,} of the {row['came']:,} images that came are dropped, because {row['rule']} is kept"
    given = {"title": one["column"], "description": message}
    chart = score_histogram(one["edges"], one["counts"], one["thresholds"], **given)
    return {"title": step.replace("_", " "), "message": message, "source": row["source"], "chart": chart}


def _examples(facts: Mapping[str, Any], thumbs: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Examples by step in the order of the funnel, kept ones first."""
    order = ["kept", *(row["step"] for row in facts["funnel"])]
    steps = sorted(facts["examples"], key=lambda step: order.index(step) if step in order else len(order))
    return [
        {
            "step": step.replace("_", " "),
            "images": [
                {**one, "thumb": thumbs.get(one["part"], {}).get(one["key"])} for one in facts["examples"][step]
            ],
        }
        for step in steps
    ]


def _sheets(pictures: Mapping[str, Any]) -> list[dict[str, Any]]:
    thumbs = pictures["thumbs"]
    return [
        {
            "cluster": one["cluster"],
            "size": one["size"],
            "thumbs": [
                {"thumb": found, "similarity": image["similarity"]}
                for image in one["images"]
                if (found := thumbs.get(image["part"], {}).get(image["key"]))
            ],
        }
        for clusters in pictures["clusters"].values()
        for one in clusters
    ]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
