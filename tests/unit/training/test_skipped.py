"""Updates that are left out: counted, with their rows named, and the end of a stage that leaves out too many."""

import json
from pathlib import Path
from typing import Any

import pytest

from vl3.data.loader.rows import PackedRow
from vl3.errors import ConfigError
from vl3.training.engine import RowLoss
from vl3.training.job import StageJob
from vl3.training.skipped import SkipLimit
from vl3.training.stage import Rank, run_stage

pytestmark = pytest.mark.usefixtures("process_group")

ROWS_PER_STEP = 2
TEN_STEPS = {"stages.vision_adaptation.steps": 10, "engine.log_every_steps": 5}


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the gradient of the given steps NaN, while their loss is finite."""
    forward = RowLoss.forward

    def set_up(*steps: int, first: int = 1) -> None:
        calls = 0

        def poisoned(self: RowLoss, row: PackedRow) -> Any:
            nonlocal calls
            loss_sum = forward(self, row)
            if first + calls // ROWS_PER_STEP in steps:
                loss_sum.register_hook(lambda gradient: gradient * float("nan"))
            calls += 1
            return loss_sum

        monkeypatch.setattr(RowLoss, "forward", poisoned)

    return set_up


def run(job: StageJob, *, stop_after: int | None = None) -> bool:
    asked = -1  # once before the first step

    def stop_requested() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_after

    return run_stage(job, Rank(rank=0, world_size=1, launched_at=0.0), stop_requested=stop_requested)


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["type"] == kind]


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_each_update_that_is_left_out_is_counted_and_its_rows_are_named(
    zero_stage: int, stage_inputs: Any, tmp_path: Path, poison: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad = (2, 3, 4, 6, 7, 8)
    poison(*bad)
    assert run(stage_inputs.job(tmp_path, **TEN_STEPS, **{
        "engine.zero_stage": zero_stage, "engine.max_skipped_fraction": 0.6,
    }))  # fmt: skip
    found = events(tmp_path, "skipped_update")
    assert tuple(event["step"] for event in found) == bad
    for event in found:
        assert len(event["rows"]) == ROWS_PER_STEP
        assert all(row["loss"] > 0 and row["samples"] for row in event["rows"])
    notes = [event["text"] for event in events(tmp_path, "note")]
    first = found[0]["rows"][0]["samples"][0]
    assert notes[0].startswith(
        f"the gradient of step 2 is not finite, so its update was left out; samples of its rows: {first}"
    )
    assert notes[0] in caplog.text
    counts = [(event["step"], event["values"]["skipped_updates"]) for event in events(tmp_path, "metrics")]
    assert counts == [(5, 3), (10, 6)]
    assert events(tmp_path, "end")[0]["skipped_updates"] == 6


def test_too_many_of_them_end_the_stage(stage_inputs: Any, tmp_path: Path, poison: Any) -> None:
    poison(2, 3, 4, 6, 7, 8)
    with pytest.raises(ConfigError) as caught:
        run(stage_inputs.job(tmp_path, **TEN_STEPS))
    message = str(caught.value)
    assert message.startswith(
        "2 of the last 3 updates were left out, the last in step 3, because their gradients are not"
    )
    assert "engine.max_skipped_fraction=0.1 allows 1 of 10" in message
    assert events(tmp_path, "skipped_update")[1]["rows"][0]["samples"][0] in message
    assert 'add SET="engine.max_skipped_fraction=0.2"' in message
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stage_none_of_whose_updates_is_possible_never_ends_well(
    zero_stage: int, precision: str, stage_inputs: Any, tmp_path: Path, poison: Any
) -> None:
    poison(1, 2, 3)
    changes = {"engine.zero_stage": zero_stage, "engine.precision": precision, "engine.max_skipped_fraction": 0.99}
    with pytest.raises(ConfigError, match="3 of the last 3 updates were left out"):
        run(stage_inputs.job(tmp_path, **{"stages.vision_adaptation.steps": 3}, **changes))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_what_was_left_out_before_a_stop_still_counts(
    zero_stage: int, stage_inputs: Any, tmp_path: Path, poison: Any
) -> None:
    """The first updates are left out, too, after which there is no state of the optimizer to save."""
    changes = {"engine.zero_stage": zero_stage, "engine.max_skipped_fraction": 0.3, "engine.checkpoint_every_steps": 1}
    job = stage_inputs.job(tmp_path, **TEN_STEPS, **changes)
    poison(1, 2)
    assert not run(job, stop_after=4)
    poison(7, 9, first=5)
    with pytest.raises(ConfigError, match="4 of the last 9 updates were left out, the last in step 9"):
        run(job)
    assert [event["resumed_from_step"] for event in events(tmp_path, "start")] == [0, 4]


def test_rows_whose_loss_is_not_finite_are_named_alone(
    stage_inputs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = RowLoss.forward
    rows: list[PackedRow] = []

    def diverge(self: RowLoss, row: PackedRow) -> Any:
        rows.append(row)
        return forward(self, row) * (float("nan") if len(rows) == 2 else 1.0)

    monkeypatch.setattr(RowLoss, "forward", diverge)
    with pytest.raises(ConfigError):
        run(stage_inputs.job(tmp_path))
    (note,) = [event["text"] for event in events(tmp_path, "note")]
    assert note.endswith(f"samples of the rows whose loss is not finite: {', '.join(rows[1].sample_ids)}")


@pytest.mark.parametrize(
    ("fraction", "steps", "expected"),
    [
        (0.1, 10, (10, 1)),
        (0.1, 600, (100, 10)),
        (0.0, 600, (100, 0)),
        (0.99, 3, (3, 2)),
        (0.1, 8, (8, 0)),
        (0.29, 600, (100, 29)),
    ],
)
def test_the_limit_is_a_share_of_the_last_steps(fraction: float, steps: int, expected: tuple[int, int]) -> None:
    limit = SkipLimit.of(fraction, steps=steps)
    assert (limit.last_steps, limit.allowed) == expected
