"""The engine against plain PyTorch, and its state against itself at every ZeRO stage."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.checkpoints import make_trainer, open_checkpoints
from vl3.config.run import RunConfig
from vl3.config.stages import LearningRates
from vl3.data.loader.rows import PackedRow
from vl3.errors import StorageError
from vl3.training.checkpoint import TrainerState
from vl3.training.engine import TrainingEngine, deepspeed_settings
from vl3.training.events import EventLog
from vl3.training.fragments import KINDS, WEIGHTS
from vl3.training.optimizer_groups import NamedParameters, freeze_parts, parameter_groups, trainable_parameters
from vl3.training.restore import restore
from vl3.training.saver import Saver
from vl3.training.snapshot import EngineState, Snapshot

pytestmark = pytest.mark.usefixtures("process_group")

RATES = LearningRates(vision=1e-3, projector=2e-3, language=3e-3)
MakeRow = Callable[..., PackedRow]
MakeConfig = Callable[..., RunConfig]


def build(
    model: Any, config: RunConfig, *, rows: int, rates: LearningRates = RATES
) -> tuple[TrainingEngine, NamedParameters]:
    parts = model.parts()
    freeze_parts(parts, rates)
    named = trainable_parameters(parts)
    groups = parameter_groups(parts, rates, weight_decay=config.optimizer.weight_decay)
    engine = TrainingEngine(model, groups, config, rows_per_rank=rows)
    return engine, named


def read_state(engine: TrainingEngine, named: NamedParameters) -> dict[str, dict[str, torch.Tensor]]:
    """Every kind of state by parameter, from a snapshot of the only rank."""
    state = EngineState(engine.deepspeed, named)
    snapshot = Snapshot(state, rank=0, world_size=1)
    snapshot.take()
    found: dict[str, dict[str, torch.Tensor]] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for piece in snapshot.pieces:
            assert piece.start == 0
            row = torch.frombuffer(bytearray(snapshot.view(kind, piece)), dtype=torch.float32)
            found[kind][piece.name] = row.view(state.shapes[piece.name])
    return found


def save(engine: TrainingEngine, named: NamedParameters, folder: Path, step: int) -> None:
    state = EngineState(engine.deepspeed, named)
    checkpoints = open_checkpoints(folder)
    with contextlib.closing(Saver(checkpoints, state, EventLog(None), rank=0, world_size=1)) as saver:
        assert saver.has_room(step)
        saver.save(make_trainer(step, optimizer_step=state.step_count))
        assert saver.settle(0) == ""


def load(engine: TrainingEngine, named: NamedParameters, folder: Path) -> TrainerState | None:
    state = EngineState(engine.deepspeed, named)
    return restore(open_checkpoints(folder), state, note=pytest.fail, is_wanted=lambda found: True)


def run(engine: TrainingEngine, batches: list[list[PackedRow]]) -> list[float]:
    losses = []
    for batch in batches:
        engine.set_learning_rates(0.5)
        losses.append(engine.step(batch, stop_requested=False).loss_sum)
    return losses


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_step_is_adamw_on_the_mean_over_the_global_batch(
    zero_stage: int, make_model: Callable[[], Any], make_row: MakeRow, make_config: MakeConfig
) -> None:
    batch = [make_row(1, supervised=1), make_row(2, num_samples=3, supervised=4)]
    config = make_config(zero_stage=zero_stage, weight_decay=0.1, max_grad_norm=0.05)
    engine, named = build(make_model(), config, rows=2)
    engine.set_learning_rates(1.0)
    result = engine.step(batch, stop_requested=True)
    assert result.supervised_tokens == 2 + 12
    assert result.stop_requested

    plain = make_model()
    groups = parameter_groups(plain.parts(), RATES, weight_decay=0.1)
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-8)
    loss_sum = sum(plain(**arrays(row)).loss_sum for row in batch)
    (loss_sum / 14).backward()
    norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
    adamw.step()
    assert result.loss_sum == pytest.approx(loss_sum.item(), rel=1e-6)
    assert engine.grad_norm == pytest.approx(norm.item(), rel=1e-4)
    weights = read_state(engine, named)[WEIGHTS]
    expected = dict(plain.named_parameters())
    assert set(weights) == set(expected)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name].detach(), atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("zero_stage", "precision"),
    [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (0, "bf16"), (1, "bf16"), (3, "bf16")],
)
def test_state_restored_into_a_new_engine_goes_on_bit_by_bit(
    zero_stage: int,
    precision: str,
    make_model: Callable[[], Any],
    make_row: MakeRow,
    make_config: MakeConfig,
    tmp_path: Path,
) -> None:
    config = make_config(zero_stage=zero_stage, precision=precision)
    batches = [[make_row(seed)] for seed in range(5)]
    unbroken, named = build(make_model(), config, rows=1)
    first = run(unbroken, batches[:3])
    save(unbroken, named, tmp_path, 3)
    state = read_state(unbroken, named)
    assert state["exp_avg_sq"]["mm_projector.readout.0.weight"].abs().sum() > 0
    rest = run(unbroken, batches[3:])
    final = read_state(unbroken, named)
    assert first != rest

    resumed, resumed_named = build(make_model(), config, rows=1)
    found = load(resumed, resumed_named, tmp_path)
    assert found is not None
    assert (found.step, found.optimizer_step) == (3, 3)
    assert run(resumed, batches[3:]) == rest
    again = read_state(resumed, resumed_named)
    for kind, tensors in final.items():
        for name, tensor in tensors.items():
            assert torch.equal(again[kind][name], tensor), (kind, name)


@pytest.mark.parametrize(("writes", "reads"), [(2, 0), (0, 3), (3, 1)])
def test_state_of_one_zero_stage_is_read_by_another(
    writes: int, reads: int, make_model: Callable[[], Any], make_row: MakeRow, make_config: MakeConfig, tmp_path: Path
) -> None:
    batches = [[make_row(seed)] for seed in range(3)]
    first, named = build(make_model(), make_config(zero_stage=writes), rows=1)
    run(first, batches[:2])
    save(first, named, tmp_path, 2)
    state = read_state(first, named)
    second, second_named = build(make_model(), make_config(zero_stage=reads), rows=1)
    assert load(second, second_named, tmp_path) is not None
    again = read_state(second, second_named)
    assert all(torch.equal(again[kind][name], one) for kind in KINDS for name, one in state[kind].items())
    assert run(second, batches[2:]) == pytest.approx(run(first, batches[2:]), rel=1e-6)


def test_groups_keep_their_own_hyperparameters_after_a_resume(
    make_model: Callable[[], Any], make_row: MakeRow, make_config: MakeConfig, tmp_path: Path
) -> None:
    first, named = build(make_model(), make_config(zero_stage=3, weight_decay=0.1), rows=1)
    run(first, [[make_row(0)]])
    save(first, named, tmp_path, 1)
    second, second_named = build(make_model(), make_config(zero_stage=3, weight_decay=0.2), rows=1)
    load(second, second_named, tmp_path)
    second.set_learning_rates(0.5)
    groups = second.deepspeed.basic_optimizer.param_groups
    assert {group["name"]: (group["lr"], group["weight_decay"]) for group in groups} == {
        "vision/decay": (5e-4, 0.2), "vision/no_decay": (5e-4, 0.0), "projector/decay": (1e-3, 0.2),
        "projector/no_decay": (1e-3, 0.0), "language/decay": (1.5e-3, 0.2), "language/no_decay": (1.5e-3, 0.0),
    }  # fmt: skip


def test_a_checkpoint_of_other_shapes_is_refused_by_name(
    make_model: Callable[[], Any], make_row: MakeRow, make_config: MakeConfig, tmp_path: Path
) -> None:
    frozen = LearningRates(vision=None, projector=1e-2, language=None)
    first, named = build(make_model(), make_config(), rows=1, rates=frozen)
    run(first, [[make_row(0)]])
    save(first, named, tmp_path, 1)
    second, second_named = build(make_model(), make_config(), rows=1)
    notes: list[str] = []
    state = EngineState(second.deepspeed, second_named)
    with pytest.raises(StorageError, match=r"none of the stage's 1 checkpoint\(s\) at file://.*Nothing was deleted"):
        restore(open_checkpoints(tmp_path), state, note=notes.append, is_wanted=lambda found: True)
    assert "is of another model: parameter 'language_model.embed_tokens.weight' has the shape of no" in notes[0]


def test_frozen_parts_keep_their_weights(
    make_model: Callable[[], Any], make_row: MakeRow, make_config: MakeConfig
) -> None:
    model = make_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    engine, named = build(model, make_config(), rows=1, rates=LearningRates(vision=None, projector=1e-2, language=None))
    rates = engine.set_learning_rates(0.5)
    assert rates == {"projector": 5e-3}
    engine.step([make_row(1)], stop_requested=False)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    assert changed == {name for name, _ in named}
    assert all(name.startswith("mm_projector.") for name in changed)


def arrays(row: PackedRow) -> dict[str, Any]:
    names = ("input_ids_T", "position_ids_T", "cu_seqlens", "pixels_PC", "grid_thw_I3", "merge_sizes_I", "keep_M")
    return {name: getattr(row, name) for name in (*names, "labels_T")}


def test_settings_leave_the_norm_of_plain_fp32_to_us(make_config: MakeConfig) -> None:
    plain = deepspeed_settings(make_config(zero_stage=0), rows_per_rank=3, num_trainable=100)
    assert plain["gradient_clipping"] == 0.0
    assert plain["gradient_accumulation_steps"] == 3
    assert plain["zero_optimization"]["reduce_bucket_size"] == 100
    assert not plain["zero_optimization"]["contiguous_gradients"]
    mixed = deepspeed_settings(make_config(zero_stage=2, precision="bf16"), rows_per_rank=1, num_trainable=10**12)
    assert mixed["gradient_clipping"] == 1.0
    assert mixed["data_types"] == {"grad_accum_dtype": "fp32"}
    assert mixed["zero_optimization"]["reduce_bucket_size"] == 500_000_000
    assert mixed["zero_optimization"]["contiguous_gradients"]


def poison(model: Any, is_bad: list[bool]) -> None:
    """Make the gradient of one parameter NaN while `is_bad[0]` is true."""
    parameter = model.parts()["projector"][0][1]
    parameter.register_hook(lambda gradient: gradient * float("nan") if is_bad[0] else gradient)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_update_whose_gradient_is_not_finite_is_left_out_and_told(
    zero_stage: int, precision: str, make_model: Callable[[], Any], make_row: MakeRow, make_config: MakeConfig
) -> None:
    model, is_bad = make_model(), [False]
    poison(model, is_bad)
    engine, named = build(model, make_config(zero_stage=zero_stage, precision=precision), rows=1)
    applied, moved = [], []
    weights = None
    for step, bad in enumerate([True, False, True, True, False, False]):
        is_bad[0] = bad
        engine.set_learning_rates(0.5)
        applied.append(engine.step([make_row(step)], stop_requested=False).is_applied)
        if True in applied:
            now = read_state(engine, named)[WEIGHTS]
            moved.append(weights is None or any(not torch.equal(weights[name], now[name]) for name in now))
            weights = now
    assert applied == [False, True, False, False, True, True]
    assert moved == [True, False, False, True, True]
    assert weights is not None
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert EngineState(engine.deepspeed, named).step_count == 3


@pytest.mark.parametrize(("zero_stage", "precision"), [(1, "fp32"), (2, "bf16"), (3, "fp32"), (1, "bf16")])
def test_an_offloaded_optimizer_trains_and_resumes_as_one_on_the_device(
    zero_stage: int,
    precision: str,
    make_model: Callable[[], Any],
    make_row: MakeRow,
    make_config: MakeConfig,
    tmp_path: Path,
) -> None:
    config = make_config(zero_stage=zero_stage, precision=precision)
    offloaded = make_config(zero_stage=zero_stage, precision=precision, offload_optimizer=True)
    batches = [[make_row(seed), make_row(seed + 9)] for seed in range(4)]
    there, _ = build(make_model(), config, rows=2)
    wanted = run(there, batches)
    here, named = build(make_model(), offloaded, rows=2)
    assert run(here, batches[:2]) == pytest.approx(wanted[:2], rel=1e-6)
    save(here, named, tmp_path, 2)
    resumed, resumed_named = build(make_model(), offloaded, rows=2)
    load(resumed, resumed_named, tmp_path)
    assert run(resumed, batches[2:]) == run(here, batches[2:]) == pytest.approx(wanted[2:], rel=1e-5)
