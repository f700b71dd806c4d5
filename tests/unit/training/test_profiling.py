"""A profile on request: the trace of the wanted steps, in the stage's work folder."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from vl3.training.stage import Rank, run_stage

pytestmark = pytest.mark.usefixtures("process_group")


def notes(folder: Path) -> list[str]:
    lines = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [line["text"] for line in lines if line["type"] == "note"]


def test_the_wanted_steps_are_profiled_once(stage_inputs: Any, tmp_path: Path) -> None:
    job = stage_inputs.job(tmp_path, **{"stages.vision_adaptation.steps": 4, "engine.profile_steps": "2:3"})
    assert run_stage(job, Rank(rank=0, world_size=1, launched_at=0.0), stop_requested=lambda: False)
    (trace,) = (tmp_path / "work" / "profile").iterdir()
    assert trace.name == "steps-2-3.json.gz"
    content = json.loads(gzip.decompress(trace.read_bytes()))
    names = {event.get("name", "") for event in content["traceEvents"]}
    assert any("aten::linear" in name for name in names)
    assert notes(tmp_path) == ["steps 2 to 3 of rank 0 were profiled: profile/steps-2-3.json.gz in the stage's log"]
