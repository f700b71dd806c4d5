"""What is measured by step."""

from collections.abc import Callable

import pytest
import torch

from vl3.data.loader.rows import PackedRow, StepRows
from vl3.errors import ConfigError
from vl3.training.meter import Meter

pytestmark = pytest.mark.usefixtures("process_group")

SECONDS = {"data": 0.1, "forward": 0.2, "backward": 0.3, "optimizer": 0.4}
MakeRow = Callable[..., PackedRow]


def make_meter(saved: dict | None = None) -> Meter:
    return Meter(torch.device("cpu"), 1, saved)


def test_metrics_are_means_over_the_window(make_row: MakeRow) -> None:
    meter = make_meter()
    two = [make_row(1, num_samples=1), make_row(2, num_samples=2)]
    meter.add(StepRows(rows=two, read_bytes=700, retries=2), 6.0, 4, SECONDS)
    meter.note_save(0.5)  # after the first step, so it counts in the second
    one = [make_row(3, num_samples=1)]
    meter.add(StepRows(rows=one, read_bytes=300), 2.0, 4, dict.fromkeys(SECONDS, 0.0))
    metrics = meter.flush()
    seconds = metrics.pop("seconds/step")
    assert metrics.pop("tokens_per_second") == pytest.approx(64 / (2 * seconds))
    assert metrics.pop("rows_per_second") == pytest.approx(3 / (2 * seconds))
    assert metrics.pop("read_bytes_per_second") == pytest.approx(1000 / (2 * seconds))
    assert metrics.pop("data_wait_share") == pytest.approx(0.1 / (2 * seconds))
    assert metrics.pop("save_stall_share") == pytest.approx(0.5 / (2 * seconds))
    assert metrics == pytest.approx(
        {
            "loss": 1.0,
            "supervised_tokens": 4.0,
            "visual_tokens": 16.0,
            "visual_tokens_kept": 16.0,
            "kept_share": 1.0,
            "read_retries": 2.0,
            "seconds/data": 0.05,
            "seconds/forward": 0.1,
            "seconds/backward": 0.15,
            "seconds/optimizer": 0.2,
            "seconds/save": 0.25,
        }
    )
    meter.add(StepRows(rows=[make_row(4)]), 3.0, 1, SECONDS)
    assert meter.flush()["loss"] == 3.0  # the window began anew


def test_a_window_cut_by_a_checkpoint_gives_the_same_loss(make_row: MakeRow) -> None:
    values = [0.1, 0.7, 1e-3, 3.3]
    whole, first = make_meter(), make_meter()
    for value in values:
        whole.add(StepRows(rows=[make_row(1)]), value, 3, SECONDS)
    for value in values[:3]:
        first.add(StepRows(rows=[make_row(1)]), value, 3, SECONDS)
    second = make_meter(first.gather().to_dict())
    second.add(StepRows(rows=[make_row(1)]), values[3], 3, SECONDS)
    assert second.flush()["loss"] == whole.flush()["loss"]


def test_a_saved_window_is_not_changed_by_later_steps(make_row: MakeRow) -> None:
    meter = make_meter()
    meter.add(StepRows(rows=[make_row(1)]), 0.5, 3, SECONDS)
    saved = meter.gather().to_dict()
    meter.add(StepRows(rows=[make_row(1)]), 0.7, 3, SECONDS)
    meter.gather()
    assert saved["losses"] == [0.5]
    assert len(saved["counts"]) == 1


def test_a_window_of_other_code_is_dropped(make_row: MakeRow) -> None:
    saved = {"losses": [9.0], "supervised_tokens": [1], "counts": [[1.0, 2.0]], "seconds": 3.0}
    meter = make_meter(saved)
    meter.add(StepRows(rows=[make_row(1)]), 3.0, 1, SECONDS)
    assert meter.flush()["loss"] == 3.0


def test_a_loss_that_is_no_number_ends_the_stage(make_row: MakeRow) -> None:
    meter = make_meter()
    for value in (1.0, float("inf"), 2.0):
        meter.add(StepRows(rows=[make_row(1)]), value, 3, SECONDS)
    with pytest.raises(ConfigError, match=r"the loss is inf \(1 steps ago\): training has diverged"):
        meter.flush()


def test_json_of_every_rank_is_gathered() -> None:
    from vl3.training.collectives import gather_json

    assert gather_json([{"sample_id": "ü"}], torch.device("cpu")) == [[{"sample_id": "ü"}]]
    assert gather_json([], torch.device("cpu")) == [[]]


def test_mfu_is_what_the_rows_need_over_the_peak_of_all_devices(make_row: MakeRow) -> None:
    meter = Meter(torch.device("cpu"), 1, count_flops=lambda rows: 3e9 * len(rows), peak_flops_per_second=1e12)
    for _ in range(2):
        meter.add(StepRows(rows=[make_row(1), make_row(2)]), 1.0, 1, SECONDS)
    metrics = meter.flush()
    per_second = 12e9 / (2 * metrics["seconds/step"])
    assert metrics["tflops_per_second"] == pytest.approx(per_second / 1e12)
    assert metrics["mfu"] == pytest.approx(per_second / 1e12)
    without = Meter(torch.device("cpu"), 1, count_flops=lambda rows: 1.0)
    without.add(StepRows(rows=[make_row(1)]), 1.0, 1, SECONDS)
    assert "mfu" not in without.flush()
