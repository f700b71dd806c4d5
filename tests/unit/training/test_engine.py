"""The engine against plain PyTorch, and its state against itself at every ZeRO stage."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from vl3.training.optimizer_state import WEIGHTS, optimizer_step_count, read_state, write_state, write_weights

from vl3.config.run import RunConfig
from vl3.config.stages import LearningRates
from vl3.data.loader.rows import PackedRow
from vl3.training.engine import TrainingEngine, deepspeed_settings
from vl3.training.optimizer_groups import NamedParameters, freeze_parts, parameter_groups, trainable_parameters

pytestmark = pytest.mark.usefixtures("process_group")

RATES = LearningRates(vision=1e-3, projector=2e-3, language=3e-3)
MakeRow = Callable[..., PackedRow]
MakeConfig = Callable[..., RunConfig]


def build(
    model: Any, config: RunConfig, *, rows: int, state: dict[str, Any] | None = None, rates: LearningRates = RATES
) -> tuple[TrainingEngine, NamedParameters]:
    parts = model.parts()
    freeze_parts(parts, rates)
    named = trainable_parameters(parts)
    if state:
        write_weights(named, state[WEIGHTS])
    groups = parameter_groups(parts, rates, weight_decay=config.optimizer.weight_decay)
    engine = TrainingEngine(model, groups, config, rows_per_rank=rows)
    return engine, named


def run(engine: TrainingEngine, batches: list[list[PackedRow]]) -> list[float]:
    losses = []
    for batch in batches:
        engine.set_learning_rates(0.5)
        losses.append(engine.step(batch, stop_requested=False).loss_sum.item())
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
    assert result.loss_sum.item() == pytest.approx(loss_sum.item(), rel=1e-6)
    assert engine.grad_norm == pytest.approx(norm.item(), rel=1e-4)
    weights = read_state(engine.deepspeed, named)[WEIGHTS]
    expected = dict(plain.named_parameters())
    assert set(weights) == set(expected)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name].detach(), atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("zero_stage", "precision"), [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (0, "bf16"), (1, "bf16")]
)
def test_state_restored_into_a_new_engine_goes_on_bit_by_bit(
    zero_stage: int, precision: str, make_model: Callable[[], Any], make_row: MakeRow, make_config: MakeConfig
) -> None:
    config = make_config(zero_stage=zero_stage, precision=precision)
    batches = [[make_row(seed)] for seed in range(5)]
    unbroken, named = build(make_model(), config, rows=1)
    first = run(unbroken, batches[:3])
    state = read_state(unbroken.deepspeed, named)
    assert optimizer_step_count(unbroken.deepspeed) == 3
    assert state["exp_avg_sq"]["mm_projector.readout.0.weight"].abs().sum() > 0
    assert {tensor.dtype for tensor in state[WEIGHTS].values()} == {torch.float32}
    rest = run(unbroken, batches[3:])
    final = read_state(unbroken.deepspeed, named)
    assert first != rest

    resumed, resumed_named = build(make_model(), config, rows=1, state=state)
    write_state(resumed.deepspeed, resumed_named, state, step_count=3)
    assert run(resumed, batches[3:]) == rest
    again = read_state(resumed.deepspeed, resumed_named)
    for kind, tensors in final.items():
        for name, tensor in tensors.items():
            assert torch.equal(again[kind][name], tensor), (kind, name)


def test_state_of_one_zero_stage_is_read_by_another(
    make_model: Callable[[], Any], make_row: MakeRow, make_config: MakeConfig
) -> None:
    batches = [[make_row(seed)] for seed in range(3)]
    sharded, named = build(make_model(), make_config(zero_stage=2), rows=1)
    run(sharded, batches[:2])
    state = read_state(sharded.deepspeed, named)
    replicated, replicated_named = build(make_model(), make_config(zero_stage=0), rows=1, state=state)
    write_state(replicated.deepspeed, replicated_named, state, step_count=2)
    assert run(replicated, batches[2:]) == pytest.approx(run(sharded, batches[2:]), rel=1e-6)


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
            now = read_state(engine.deepspeed, named)[WEIGHTS]
            moved.append(weights is None or any(not torch.equal(weights[name], now[name]) for name in now))
            weights = now
    assert applied == [False, True, False, False, True, True]
    assert moved == [True, False, False, True, True]
    assert weights is not None
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert optimizer_step_count(engine.deepspeed) == 3
