"""Invented data of a run of the tiny recipe, for tests of the report: the structure is real, the numbers random."""

import math
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from tests.support.workflows import STAGES
from vl3.config.codec import to_dict
from vl3.config.data import Category
from vl3.evaluation.beside import beside_published
from vl3.evaluation.changes import shown_items
from vl3.evaluation.evidence import make_evidence
from vl3.evaluation.items import ItemRecord
from vl3.evaluation.published import titles
from vl3.proportions import wilson_interval
from vl3.recipes.catalog import get_recipe

START = 1_790_000_000.0
CHANCES = (0.167, 0.01, 0.125, 0.333, 0.167, 0.167, 0.083, 0.25, 0.042, 0.067)
FINAL = (0.98, 0.92, 1.0, 0.83, 0.97, 0.98, 0.96, 1.0, 0.93, 0.99)
VIDEO = (Category.GENERAL_VIDEO, Category.STREAMING, Category.TEMPORAL_GROUNDING)
SPLITS = {"train": 1290, "heldout": 100}
MODELS = ("before", *STAGES)


def report_data(folder: Path) -> dict[str, Any]:
    """Report data of a run that went well; the evaluation's pictures are written below `folder`."""
    rng = random.Random(7)
    config = get_recipe("tiny")
    return {
        "run": {
            "run_id": "2026-11-23-1012-3f9a",
            "run_name": "tiny-seed0",
            "recipe": "tiny",
            "seed": 0,
            "started_at": START,
            "overrides": ["data.max_frames=16"],
            "ran": [_ran("this report", tree="modified"), *(_ran(stage) for stage in STAGES)],
            "versions": {"vl3": "0.1.0", "commit": "5206239", "python": "3.11.2", "torch": "2.13.0"},
            "machine": "2 cores, 24 GiB",
            "mlflow_page": "https://mlflow.example.org/#/experiments/1/runs/5f3a",
        },
        "verdict": {"state": "champion", "reason": "All 6 gates passed; vl3-tiny version 4 is the champion."},
        "chain": _chain(),
        "wall_seconds": 447.8,
        "stages": [_stage(rng, stage, to_dict(config.stages[stage])) for stage in STAGES],
        "settings": to_dict(config),
        "evaluation": _evaluation(rng, folder),
        **_evidence(rng, folder),
        "gates": _gates(),
        "validation": _validation(),
        "lineage": _lineage(rng),
        "missing": {},
    }


def _ran(what: str, tree: str = "clean") -> dict[str, str]:
    return {
        "what": what,
        "commit": "52062393c1b0a4d2e9f8a7b6c5d4e3f2a1b0c9d8",
        "tree": tree,
        "command": "vl3 run start --recipe tiny --set data.max_frames=16",
        "machine": "desk: 2 cores (AMD EPYC), 24 GiB",
        "image": "",
    }


def _number(stage: str) -> int:
    return STAGES.index(stage) + 1


def _chain() -> list[dict[str, Any]]:
    seconds = {"check-prerequisites": 1.2, "import-start": 4.1, "build-data": 27.3, "validate-data": 4.5}
    seconds |= {f"train-{stage}": 52.0 + 11.3 * _number(stage) for stage in STAGES}
    seconds |= {"evaluate": 62.4, "promote": 3.1, "report": 2.2}
    steps, begin = [], START + 2.5
    for name, duration in seconds.items():
        step = {"name": name, "state": "done", "started_at": begin, "ended_at": begin + duration, "seconds": duration}
        steps.append(step)
        begin += duration + 0.4
    steps[0] |= {"state": "reused", "seconds": 0.1, "ended_at": steps[0]["started_at"] + 0.1}
    steps[0]["produced_in_seconds"] = 1.2
    return steps


def _stage(rng: random.Random, stage: str, config: dict[str, Any]) -> dict[str, Any]:
    steps = config["steps"]
    events: list[dict[str, Any]] = [
        {"type": "start", "resumed_from_step": 0, "world_size": 2, "startup_seconds": 11.4 + _number(stage) / 10}
    ]
    events += [_metrics(rng, stage, config, step) for step in range(10, steps + 1, 10)]
    events.append({"type": "end", "seconds": 50.0 + 11 * _number(stage), "steps": steps, "bad_samples": []})
    return {"stage": stage, "config": config, "plan": _plan(config), "events": events, "notes": [], **_cost(stage)}


def _cost(stage: str) -> dict[str, Any]:
    common = {"pool": "h200", "gpu": "h200", "hours": 1.5, "process_hours": 24.0, "currency": "USD", "attempts": 2}
    spent = {**common, "gpu_hours": 24.0 + _number(stage), "cost": 2.5 * (24.0 + _number(stage))}
    return {"spent": spent, "planned": {**spent, "gpu_hours": 20.0, "cost": 50.0, "attempts": 1}}


def _plan(config: dict[str, Any]) -> dict[str, Any]:
    samples, total = 16 * config["steps"], sum(config["mixture"].values())
    return {
        "steps": config["steps"],
        "packs_per_step": config["packs_per_step"],
        "samples": samples,
        "samples_per_step": 16.0,
        "kinds": [
            {
                "key": kind,
                "asked": samples * weight / total,
                "categories": [kind.partition(":")[0]],
                "share": weight / total,
                "available": 320,
                "drawn": round(samples * weight / total),
                "epochs": samples * weight / total / 320,
            }
            for kind, weight in config["mixture"].items()
        ],
        "notes": [],
        "fill": {"length": 0.71, "visual": 0.97, "binding": 0.985},
        "balance": [{"ranks": 2, "mean": 0.02, "worst": 0.06}],
    }


def _metrics(rng: random.Random, stage: str, config: dict[str, Any], step: int) -> dict[str, Any]:
    done = step / config["steps"]
    loss = (2.6 / _number(stage) ** 0.6) * math.exp(-3.4 * done) * rng.uniform(0.85, 1.2) + 0.045
    rates = {f"lr/{part}": _rate(peak, done) for part, peak in config["learning_rates"].items() if peak}
    visual = rng.uniform(520, 610)
    kept = visual * (rng.uniform(0.55, 0.7) if config["difffp"] else 1.0)
    drawn = {f"mix/{kind['key']}": round(kind["drawn"] * done) for kind in _plan(config)["kinds"]}
    phases = {"data": 0.004, "forward": 0.081, "backward": 0.139, "optimizer": 0.031, "save": 0.002}
    values = {
        "loss": loss,
        **rates,
        "tokens_per_second": rng.uniform(3900, 4700),
        "tflops_per_second": 0.0123,
        "data_wait_share": 0.016,
        "save_stall_share": 0.008,
        "visual_tokens": visual,
        "visual_tokens_kept": kept,
        "kept_share": kept / visual,
        "grad_norm": rng.uniform(0.3, 1.4),
        **{f"seconds/{phase}": mean * rng.uniform(0.9, 1.1) for phase, mean in phases.items()},
        "supervised_tokens": rng.randrange(80, 120),
        **drawn,
    }
    return {"type": "metrics", "step": step, "time": START + step, "values": values}


def _rate(peak: float, done: float) -> float:
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def _evaluation(rng: random.Random, folder: Path) -> dict[str, Any]:
    models = []
    for number, name in enumerate(MODELS):
        tasks = {
            category.value: _score(rng, number, final, chance)
            for category, final, chance in zip(Category, FINAL, CHANCES, strict=True)
        }
        mean = sum(task["accuracy"] for task in tasks.values()) / len(tasks)
        models.append({"name": name, "tasks": tasks, "mean_accuracy": mean})
    predictions = [_prediction(rng, folder, category, index) for category in Category for index in range(6)]
    confusions = {"video": {"chart": [{"answer": "red", "prediction": "green", "count": 5}]}}
    return {"models": models, "predictions": predictions, "confusions": confusions}


def _score(rng: random.Random, number: int, final: float, chance: float) -> dict[str, Any]:
    level = (0.0, 0.55, 0.8, 0.95, 1.0)[number] * final * rng.uniform(0.93, 1.0) if number < 4 else final
    correct = round(100 * level)
    low, high = wilson_interval(correct, 100)
    return {
        "accuracy": correct / 100,
        "correct": correct,
        "total": 100,
        "chance": chance,
        "low": low,
        "high": high,
    }


def _prediction(rng: random.Random, folder: Path, category: Category, index: int) -> dict[str, Any]:
    pictures = {Category.TEXT_ONLY: 0, Category.MULTI_IMAGE: 3}.get(category, 5 if category in VIDEO else 1)
    answer = rng.choice(["red", "blue", "green"])
    right = {name: rng.random() < number / 4.2 for number, name in enumerate(MODELS)}
    said = {name: answer if right[name] else rng.choice(["yellow", "", "white"]) for name in MODELS}
    sample_id = f"{category.value}-heldout-{index:05d}"
    media = [_picture(rng, folder, f"{sample_id}-{number}", answer) for number in range(pictures)]
    prompt = "Which colour has the circle?"
    return {
        "sample_id": sample_id,
        "category": category.value,
        "prompt": prompt,
        "answer": answer,
        "prediction": said,
        "correct": right,
        "media": media,
    }


def _picture(rng: random.Random, folder: Path, name: str, colour: str) -> str:
    (folder / "media").mkdir(parents=True, exist_ok=True)
    size = (rng.randrange(52, 88, 2), rng.randrange(52, 88, 2))
    picture = Image.new("RGB", size, (rng.randrange(200, 255), 235, 225))
    x, y = rng.randrange(4, 30), rng.randrange(4, 30)
    ImageDraw.Draw(picture).ellipse((x, y, x + 22, y + 22), fill=colour)
    picture.save(folder / "media" / f"{name}.png")
    return f"media/{name}.png"


def _evidence(rng: random.Random, folder: Path) -> dict[str, Any]:
    """Records of 40 held-out questions in each of three categories and of three benchmarks, and what they show."""
    levels = {"champion": 0.75, "before": 0.1, "multitask": 0.6, "video": 0.8}
    records = {
        model: {name: _records(rng, name, level) for name in ("heldout", "chartqa", "ocrbench", "mvbench")}
        for model, level in levels.items()
    }
    evidence = make_evidence(
        records,
        pairs=[("before", "multitask"), ("multitask", "video"), ("before", "video"), ("champion", "video")],
        groups={"image": ["chartqa", "ocrbench"]},
        champion={"version": 3, "model": "champion", "why": ""},
    )
    shown = shown_items(records, "video", "champion")
    ids = [item["item_id"] for one in shown["extremes"] for side in ("best", "worst") for item in one[side]]
    ids += [item["item_id"] for item in shown["changes"]["heldout"]["items"]]
    return {
        "evidence": evidence,
        "champion": {"version": 3, "model": "champion", "candidate": "video"},
        "published": beside_published(evidence, "video", "tiny"),
        "titles": titles(),
        "shown_items": shown,
        "item_pictures": {"heldout": {name: [_picture(rng, folder, f"item-{name}", "red")] for name in ids}},
    }


def _records(rng: random.Random, benchmark: str, level: float) -> list[ItemRecord]:
    groups = ("chart", "document", "streaming") if benchmark == "heldout" else ("",)
    words = ("red", "blue", "green", "white")
    records = []
    for group in groups:
        for number in range(40):
            right = words[number % 4]
            score = (
                float(rng.random() < level) if benchmark != "chartqa" else round(min(1.0, rng.random() + level / 2), 2)
            )
            failed = benchmark == "mvbench" and number == 7
            record = ItemRecord(
                benchmark=benchmark,
                group=group,
                item_id=f"{group or benchmark}-{number:03d}",
                sha256=f"{number:064x}",
                prompt=f"<image> Which colour has the circle of {group or benchmark} {number}?",
                media=(f"{benchmark}/{number // (4 if benchmark == 'mvbench' else 1)}.png",),
                reference=right,
                answer=None if failed else right if score else "yellow",
                score=None if failed else score,
                chance=0.25 if benchmark != "chartqa" else None,
                why_no_score="the video cannot be decoded" if failed else "",
                tokens=2,
                seconds=0.1,
            )
            records.append(record)
    return records


def _gates() -> list[dict[str, Any]]:
    return [
        {"name": "mean_accuracy", "passed": True, "value": 0.956, "threshold": 0.85, "detail": "Mean of 10 tasks."},
        {"name": "task_accuracy", "passed": True, "value": 0.83, "threshold": 0.6, "detail": "Weakest: chart."},
        {"name": "champion_regression", "passed": True, "value": None, "threshold": 0.05, "detail": "No champion yet."},
        {"name": "data_validation", "passed": True, "value": "passed", "threshold": "passed", "detail": "2 warnings."},
        {"name": "checkpoint_digest", "passed": True, "value": "3f9a11c2", "threshold": "3f9a11c2", "detail": ""},
    ]


def _validation() -> dict[str, Any]:
    return {
        "passed": True,
        "facts": {
            "samples": 13_900,
            "train": 12_900,
            "heldout": 1000,
            "refused": 1,
            "expectations": 24,
            "by_category": {split: {one.value: number for one in Category} for split, number in SPLITS.items()},
        },
        "docs": "data_docs/index.html",
        "findings": [
            {
                "severity": "warning",
                "check": "duplicates",
                "message": "3 samples share their content with another sample of the same split.",
                "count": 3,
                "examples": ["annotations/train.jsonl:812", "annotations/train.jsonl:4410"],
            },
            {"severity": "critical", "check": "media_present", "message": "1 file is missing.", "count": 1},
        ],
    }


def _lineage(rng: random.Random) -> list[dict[str, Any]]:
    """Data and two bases, the stages one after the other, an evaluation, a model version."""
    root, last = "file:///runs/tiny/artifacts", f"checkpoint-{STAGES[-1]}"
    bases = [("base-vision", "vision base", "tiny_vision"), ("base-language", "language base", "tiny_language")]
    nodes = [_node(rng, "data", "data", "dataset", [], f"{root}/dataset")]
    nodes += [_node(rng, key, "base", name, [], f"package://vl3.recipes/bases/{folder}") for key, name, folder in bases]
    before = ["base-vision", "base-language"]
    for stage in STAGES:
        key = f"checkpoint-{stage}"
        node = _node(rng, key, "checkpoint", stage, [*before, "data"], f"{root}/checkpoints/{stage}")
        nodes.append({**node, "facts": {"model version": _number(stage), "steps": 200}})
        before = [key]
    nodes.append(_node(rng, "evaluation", "evaluation", "evaluation", [last, "data"], f"{root}/evaluation"))
    model = {"key": "model", "kind": "model", "name": "vl3-tiny", "parents": [last, "evaluation"]}
    nodes.append({**model, "facts": {"version": 4, "alias": "champion"}})
    return nodes


def _node(rng: random.Random, key: str, kind: str, name: str, parents: list[str], uri: str) -> dict[str, Any]:
    digest = f"{rng.getrandbits(256):064x}"
    return {"key": key, "kind": kind, "name": name, "parents": parents, "sha256": digest, "uri": uri}


def validation_data() -> dict[str, Any]:
    """The content of validation.json of a refused dataset: three lines left out, a critical fact, a good one."""
    missing = _line(5, "media file 'a.png' does not exist in the data folder")
    unread = [_line(number, "it is not JSON") for number in (2, 3)]
    refused = _check("refused_missing_file", "lines", "problem_kind", "No value of `problem_kind` is missing_file.")
    refused |= {"meaning": "media files are missing. They are left out; correct or drop them", "count": 1}
    json_lines = {**refused, "check": "refused_json", "rule": "No value of `problem_kind` is json.", "count": 2}
    json_lines |= {"severity": "warning", "meaning": "lines are not JSON. They are left out; correct or drop them"}
    known = _check("split_known", "samples", "split", "Every value of `split` is train or heldout.")
    known |= {"passed": True, "count": 0, "meaning": "samples have an unknown split. Build the dataset again"}
    fact = _check("media_present", "samples", "media_present", "Every value of `media_present` is true.")
    fact |= {"meaning": "media files are missing, but the samples were kept. Correct them and build again", "count": 1}
    kept = [{"where": "annotations/train.jsonl:7", "reason": "media_present=no"}]
    left_out = [
        {**line, "kind": kind} for kind, line in zip(("json", "json", "missing_file"), (*unread, missing), strict=True)
    ]
    return {
        "passed": False,
        "critical": [{**refused, "rows": [missing]}, {**fact, "rows": kept}],
        "warnings": [{**json_lines, "rows": unread}],
        "checks": [refused, json_lines, known, fact],
        "left_out": left_out,
        "facts": {"lines": 10, "refused": 3, "by_category": {"train": {"chart": 6}, "heldout": {"chart": 1}}},
    }


def _line(number: int, reason: str) -> dict[str, Any]:
    return {"where": f"annotations/train.jsonl:{number}", "reason": reason}


def _check(name: str, table: str, column: str, rule: str) -> dict[str, Any]:
    facts = {"check": name, "table": table, "column": column, "severity": "critical", "rule": rule}
    return {**facts, "passed": False, "total": 10 if table == "lines" else 7}
