"""A recipe of three stages with other names runs to its end: nothing outside the recipe knows the number of stages."""

import json
import textwrap
from pathlib import Path

import pytest

from tests.cli.conftest import Runner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Python imports this file at the start of every process of the run: the recipe is there without being part of vl3.
RECIPE = """
from dataclasses import replace

import vl3.recipes.catalog as catalog


def three():
    tiny = catalog.get_recipe("tiny")
    rows = {"looking": "vision_adaptation", "reading_2": "alignment", "clips": "video"}
    return replace(
        tiny,
        name="three",
        stages={name: replace(tiny.stages[like], steps=2) for name, like in rows.items()},
        placements={name: tiny.placements[like] for name, like in rows.items()},
        promotion=replace(tiny.promotion, registered_model="vl3-three"),
    )


catalog._RECIPES["three"] = three
"""
STAGES = ["looking", "reading_2", "clips"]


def test_a_recipe_of_three_stages_runs_to_its_report(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "sitecustomize.py").write_text(textwrap.dedent(RECIPE))
    monkeypatch.setenv("PYTHONPATH", str(plugins))
    # One process a stage: the runs of the recipe itself ask what two do.
    settings = ["launch.processes_per_node=1", "evaluation.samples_per_task=2", "engine.log_every_steps=1"]
    runner = Runner(tmp_path / "run", ["--recipe", "three", "--data", str(corpus), "--set", *settings])
    done = runner.run()
    assert done.returncode == 0, done.stderr
    assert list(runner.tasks()) == [
        "check-prerequisites",
        "validate-data",
        "train-looking",
        "train-reading-2",
        "train-clips",
        "evaluate",
        "promote",
        "report",
        "finish",
    ]
    report = json.loads((runner.folder / "report" / "report.json").read_text())
    assert [(stage["number"], stage["stage"]) for stage in report["stages"]] == list(enumerate(STAGES, 1))
    assert report["accuracy"]["models"] == ["before", *STAGES]
    assert [node["name"] for node in report["lineage"] if node["kind"] == "checkpoint"] == STAGES
    (manifest,) = (runner.folder / "artifacts/steps/train-clips").glob("*/checkpoint/manifest.json")
    made_from = json.loads(manifest.read_text())["made_from"]
    assert made_from["initial"]["uri"].startswith("steps/train-reading-2/")
    assert made_from["dataset"]["kind"] == "dataset"
    page = (runner.folder / "report" / "report.html").read_text()
    assert "Stage 2 reading 2" in page
