"""Reads weights and AdamW's moments from a DeepSpeed engine, as full tensors by parameter name, and writes them back.

ZeRO distributes them over ranks in flat pieces; a checkpoint has full tensors, so that it can be read at any world size
and ZeRO stage. DeepSpeed's public `safe_*` functions gather and distribute them. Without ZeRO these return None, and
the tensors are read directly.

ZeRO 1 and 2, two ranks, a group of parameter a with 6 values and b with 2: rank 0 has a0 to a3, rank 1 has a4 a5 b0 b1.
A checkpoint has a and b.
"""

from typing import Any

import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)
from torch import Tensor, nn

from vl3.training.optimizer_groups import NamedParameters

WEIGHTS = "weights"
MOMENTS = ("exp_avg", "exp_avg_sq")
"""The tensors of a checkpoint: fp32 weights and AdamW's two moments."""


def read_state(engine: Any, named: NamedParameters) -> dict[str, dict[str, Tensor]]:
    """CPU copies of weights, exp_avg and exp_avg_sq of every named parameter. All ranks must call it."""
    masters = {} if engine.zero_optimization_stage() else _masters(engine)
    _link_moments(engine)
    state: dict[str, dict[str, Tensor]] = {kind: {} for kind in (WEIGHTS, *MOMENTS)}
    for name, parameter in named:
        if masters:
            master = masters[parameter]
            tensors = {WEIGHTS: master, **{kind: engine.basic_optimizer.state[master][kind] for kind in MOMENTS}}
        else:
            moments = {kind: safe_get_full_optimizer_state(parameter, kind) for kind in MOMENTS}
            tensors = {WEIGHTS: safe_get_full_fp32_param(parameter), **moments}
        for kind, tensor in tensors.items():
            state[kind][name] = tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
    return state


def optimizer_step_count(engine: Any) -> int:
    """AdamW's step counter, which it uses to correct the bias of its moments."""
    return int(next(iter(engine.basic_optimizer.state.values()))["step"].item())


def write_weights(named: NamedParameters, weights: dict[str, Tensor]) -> None:
    """Copy weights into the model, before an engine is made from it."""
    with torch.no_grad():
        for name, parameter in named:
            parameter.copy_(weights[name])


def write_state(engine: Any, named: NamedParameters, state: dict[str, dict[str, Tensor]], *, step_count: int) -> None:
    """Write the fp32 masters, moments and step counter into an engine whose model already has the weights."""
    masters = {} if engine.zero_optimization_stage() else _masters(engine)
    _fill_moments(engine, step_count)
    for name, parameter in named:
        if masters:
            master = masters[parameter]
            with torch.no_grad():
                master.copy_(state[WEIGHTS][name])
                for kind in MOMENTS:
                    engine.basic_optimizer.state[master][kind].copy_(state[kind][name])
        else:
            safe_set_full_fp32_param(parameter, state[WEIGHTS][name].to(parameter.device))
            for kind in MOMENTS:
                safe_set_full_optimizer_state(parameter, state[kind][name].to(parameter.device), kind)


def _masters(engine: Any) -> dict[nn.Parameter, Tensor]:
    """Without ZeRO: the tensor that AdamW updates for each parameter, its fp32 copy with bf16, else the parameter."""
    low, high = getattr(engine.optimizer, "fp16_groups", None), getattr(engine.optimizer, "fp32_groups", None)
    if low is None or high is None:
        return {parameter: parameter for group in engine.basic_optimizer.param_groups for parameter in group["params"]}
    return {p: m for ps, ms in zip(low, high, strict=True) for p, m in zip(ps, ms, strict=True)}


def _fill_moments(engine: Any, step_count: int) -> None:
    """Make AdamW's state as its first step would, so that the moments can be written into it."""
    state = engine.basic_optimizer.state
    for flat in _stepped_tensors(engine):
        state[flat] = {
            "step": torch.tensor(float(step_count), dtype=torch.float32, device=flat.device),
            **{kind: torch.zeros_like(flat) for kind in MOMENTS},
        }
    _link_moments(engine)


def _link_moments(engine: Any) -> None:
    """Link parameters to their moments (ZeRO 1 and 2).

    DeepSpeed does this only once, after the first step of the first group, when the other groups have no moments yet.
    """
    if hasattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _stepped_tensors(engine: Any) -> list[Tensor]:
    """The tensors that AdamW updates: with ZeRO the flat fp32 pieces of this rank, else the masters."""
    for pieces in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat", "fp32_groups_flat_partition"):
        flat = getattr(engine.optimizer, pieces, None)
        if flat is not None:
            return list(flat)
    return list(_masters(engine).values())
