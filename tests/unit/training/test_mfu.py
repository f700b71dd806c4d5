"""The FLOPs of a rank's rows, and the peak against which they are held."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from vl3.config.stages import LearningRates
from vl3.errors import ConfigError
from vl3.planning.flops import row_flops
from vl3.planning.parameters import TrainedParts
from vl3.planning.row_shapes import shape_of_row
from vl3.recipes.catalog import get_recipe
from vl3.training.mfu import FlopCounter, peak_of_stage

LARGE = get_recipe("vl3_2b")
ON_CLUSTER = replace(LARGE, launch=replace(LARGE.launch, backend="trainjob"))


def placed(**changes: Any) -> Any:
    video = replace(ON_CLUSTER.placements["video"], **changes)
    return replace(ON_CLUSTER, placements=ON_CLUSTER.placements | {"video": video})


def test_only_what_the_stage_needs_counts(make_model: Callable[[], Any], make_row: Callable[..., Any]) -> None:
    config, rows = make_model().config, [make_row(1), make_row(2, num_samples=1)]
    whole = LARGE.stages["video"]
    frozen = replace(whole, learning_rates=LearningRates(vision=None, projector=1e-3, language=None))
    needed = FlopCounter(config, whole)(rows)
    assert needed == row_flops(config, TrainedParts.of(whole), [shape_of_row(row) for row in rows]).needed
    assert (
        needed
        == row_flops(config, TrainedParts.of(whole), [shape_of_row(row) for row in rows], recompute="full").needed
    )
    assert 0.3 * needed < FlopCounter(config, frozen)(rows) < 0.8 * needed


def test_the_peak_is_that_of_the_placements_gpu_in_the_stages_precision() -> None:
    assert peak_of_stage(placed(gpu="h200"), "video") == 989e12
    assert peak_of_stage(placed(gpu=""), "video") is None
    fp32 = placed(gpu="a100")
    assert peak_of_stage(replace(fp32, engine=replace(fp32.engine, precision="fp32")), "video") == 19.5e12
    with pytest.raises(ConfigError, match="GPU 'h300' is unknown"):
        peak_of_stage(placed(gpu="h300"), "video")
