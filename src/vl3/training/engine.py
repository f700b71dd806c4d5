"""The DeepSpeed engine: process group, sharding, AdamW, and one optimizer step over packed rows.

The loss of a step is the sum over all rows divided by the supervised tokens of the whole global batch. DeepSpeed
averages gradients over ranks, so each row's loss is multiplied by the number of ranks; DeepSpeed's division by the
accumulation steps is switched off.

Two ranks with one row each, of 30 and 10 supervised tokens: each multiplies its sum by 2 / 40, and the average over the
ranks is (sum 0 + sum 1) / 40.
"""

import gc
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from vl3.config.run import RunConfig
from vl3.data.loader.rows import Allocator, PackedRow
from vl3.models.placing import copy_to
from vl3.system.imports import lean_imports
from vl3.training.no_compiler import AdamW, leave_compiler_out
from vl3.training.one_fetch import OneFetch, fetch_once
from vl3.training.optimizer_groups import num_values

if TYPE_CHECKING:
    from vl3.models.model import VideoLlama3

with lean_imports():
    import deepspeed
    import deepspeed.comm  # loads the submodule deepspeed.comm.torch; the attribute of that name is torch itself

_MAX_BUCKET_NUMBERS = 500_000_000
_OVERLAPPED_BUCKET_NUMBERS = 100_000_000
"""On GPUs: small enough that most buckets are exchanged while backward computes the next ones."""
_COLLECTIVE_TIMEOUT = timedelta(days=30)
"""No limit of the collectives' own, which would end a stage whose other ranks wait while one publishes the weights to a
slow store: the launcher watches the stage's progress."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """Result of one optimizer step."""

    loss_sum: float
    """Sum of the loss over this rank's supervised tokens."""
    row_losses: tuple[float, ...]
    """The same for each row."""
    is_applied: bool
    """Whether the weights were updated, which they are not when the gradient is not finite; the same on every rank."""
    supervised_tokens: int
    """Number of supervised tokens of the global batch."""
    stop_requested: bool
    """Whether any rank was asked to stop; all ranks see it in the same step."""
    seconds: dict[str, float]
    """Time of its parts: forward, backward, optimizer."""


class RowLoss(nn.Module):
    """The model in the form that DeepSpeed needs: a row in, one tensor out."""

    def __init__(self, model: "VideoLlama3") -> None:
        super().__init__()
        self.model = model

    def forward(self, row: PackedRow) -> Tensor:
        """Sum of the loss over the row's supervised tokens."""
        # .forward skips the hooks of self.model, which has no weights itself: ZeRO-3's cannot handle a LossOutput.
        output = self.model.forward(
            input_ids_T=row.input_ids_T,
            position_ids_T=row.position_ids_T,
            cu_seqlens=row.cu_seqlens,
            pixels_PC=row.pixels_PC,
            grid_thw_I3=row.grid_thw_I3,
            merge_sizes_I=row.merge_sizes_I,
            keep_M=row.keep_M,
            labels_T=row.labels_T,
        )
        return output.loss_sum


class TrainingEngine:
    """A model under DeepSpeed, with the optimizer groups of a stage."""

    def __init__(
        self, model: "VideoLlama3", groups: list[dict[str, Any]], config: RunConfig, *, rows_per_rank: int
    ) -> None:
        """Shard the model. `groups` come from `parameter_groups`; the process group must be initialised."""
        self.device = training_device()
        self.world_size = dist.get_world_size()
        self._max_grad_norm = config.optimizer.max_grad_norm
        model.set_recompute(config.engine.recompute)
        model.train()
        settings = deepspeed_settings(
            config,
            rows_per_rank=rows_per_rank,
            num_trainable=sum(num_values(group["params"]) for group in groups),
            is_overlapped=self.device.type == "cuda",
        )
        self._clips_itself = settings["gradient_clipping"] == 0.0
        gc.freeze()  # DeepSpeed runs the garbage collector often, and imported modules need not be scanned
        _skip_shm_extension()
        leave_compiler_out()
        self.deepspeed, *_ = deepspeed.initialize(
            model=RowLoss(model.to(self.device)), optimizer=_adamw(groups, config), config=settings
        )
        for state in self.deepspeed.basic_optimizer.state.values():
            state["step"].zero_()  # with bf16 without ZeRO, DeepSpeed makes an empty AdamW step, which must not count
        self._groups = self.deepspeed.basic_optimizer.param_groups
        self._own_grad_norm: float | None = None
        self._fetch = OneFetch()
        fetch_once(self.deepspeed.optimizer)

    def set_learning_rates(self, factor: float) -> dict[str, float]:
        """Set every group to `factor` times its peak rate; returns the rate of each trained part."""
        for group in self._groups:
            group["lr"] = group["peak_lr"] * factor
        return {group["part"]: group["lr"] for group in self._groups}

    def step(self, rows: Sequence[PackedRow], *, stop_requested: bool) -> StepResult:
        """Forward and backward over this rank's rows, then one update of the weights."""
        own = [sum(row.supervised_tokens for row in rows), float(stop_requested)]
        counts = copy_to(torch.tensor(own, dtype=torch.float64), self.device)
        counting = dist.all_reduce(counts, async_op=True)  # overlaps with the first forward pass
        forward_seconds = backward_seconds = optimizer_seconds = 0.0
        row_losses: list[Tensor] = []
        for row in rows:
            started = time.perf_counter()
            row_sum = self.deepspeed(row)
            forwarded = time.perf_counter()
            counting.wait()
            share = (self.world_size / counts[0].clamp(min=1)).float()
            self.deepspeed.backward(row_sum * share, scale_wrt_gas=False)
            backwarded = time.perf_counter()
            row_losses.append(row_sum.detach())
            if self.deepspeed.is_gradient_accumulation_boundary():
                self._fetch.begin([counts, *row_losses])
                self._clip()
            self.deepspeed.step()
            forward_seconds += forwarded - started
            backward_seconds += backwarded - forwarded
            optimizer_seconds += time.perf_counter() - backwarded
        supervised_tokens, stops, *losses = self._fetch.values()
        return StepResult(
            loss_sum=sum(losses),
            row_losses=tuple(losses),
            is_applied=self._is_applied(),
            supervised_tokens=int(supervised_tokens),
            stop_requested=stops > 0,
            seconds={"forward": forward_seconds, "backward": backward_seconds, "optimizer": optimizer_seconds},
        )

    @property
    def grad_norm(self) -> float:
        """Norm of the last step's gradient over all parameters, before clipping."""
        norm = self._own_grad_norm if self._clips_itself else self.deepspeed.get_global_grad_norm()
        return 0.0 if norm is None else float(norm)

    def _clip(self) -> None:
        """Clip the gradients where DeepSpeed would not report their norm (no ZeRO, fp32).

        There it would not leave out an update whose gradient is not finite, either: AdamW does if there is no gradient.
        """
        if not self._clips_itself:
            return
        parameters = [parameter for group in self._groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self._max_grad_norm)
        self._own_grad_norm = float(self._fetch.norm(norm))
        if not math.isfinite(self._own_grad_norm):
            for parameter in parameters:
                parameter.grad = None

    def _is_applied(self) -> bool:
        if self._clips_itself:
            return self._own_grad_norm is None or math.isfinite(self._own_grad_norm)
        return bool(self.deepspeed.was_step_applied())


def training_device() -> torch.device:
    """This process's GPU, or the CPU if there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def allocator(device: torch.device) -> Allocator:
    """What makes the arrays that are copied to a device: for a GPU in pinned memory, which it reads without waiting."""

    def pinned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size_bytes = math.prod(shape) * dtype.itemsize
        return torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True).numpy().view(dtype).reshape(shape)

    return pinned if device.type == "cuda" else np.empty


def start_process_group(*, local_rank: int, threads: int, seed: int) -> None:
    """Join the process group (NCCL on GPUs, else gloo); set threads and seed so that runs are repeatable."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    is_cuda = torch.cuda.is_available()
    if is_cuda:
        torch.cuda.set_device(local_rank)
    _skip_shm_extension()
    deepspeed.init_distributed(
        dist_backend="nccl" if is_cuda else "gloo",
        auto_mpi_discovery=False,
        timeout=_COLLECTIVE_TIMEOUT,
        verbose=False,
    )


def stop_process_group() -> None:
    """Leave the process group when every rank has reached this point."""
    dist.barrier()
    dist.destroy_process_group()


def deepspeed_settings(
    config: RunConfig, *, rows_per_rank: int, num_trainable: int, is_overlapped: bool = False
) -> dict[str, Any]:
    """DeepSpeed's configuration for a stage.

    Args:
        config: the run.
        rows_per_rank: packed rows that each rank sees in one optimizer step.
        num_trainable: number of trainable parameters; one bucket for all of them if possible, because each bucket is a
            round trip.
        is_overlapped: whether gradients are exchanged while backward goes on (ZeRO 2 and 3, on GPUs): in small
            buckets. ZeRO 0 and 1 exchange them once, after the last row of the step.
    """
    engine = config.engine
    is_bf16 = engine.precision == "bf16"
    bucket = min(num_trainable, _OVERLAPPED_BUCKET_NUMBERS if is_overlapped else _MAX_BUCKET_NUMBERS)
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": rows_per_rank,
        "gradient_clipping": config.optimizer.max_grad_norm if engine.zero_stage or is_bf16 else 0.0,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": is_bf16},
        "zero_optimization": {
            "stage": engine.zero_stage,
            # Copying gradients into one buffer saves memory, but only costs time if one bucket has all of them.
            "contiguous_gradients": engine.zero_stage >= 2 or num_trainable > bucket,
            "overlap_comm": is_overlapped,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": min(num_trainable, _MAX_BUCKET_NUMBERS),
        },
    }
    if engine.offload_optimizer:
        # Not DeepSpeed's own Adam, which needs a compiler where it runs: torch's is as exact on CPU as on the device.
        settings["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": is_overlapped}
        settings["zero_force_ds_cpu_optimizer"] = False
    if is_bf16 and engine.zero_stage:
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return settings


def _skip_shm_extension() -> None:
    """On CPU, DeepSpeed would compile a shared-memory extension for minutes; gloo works without it."""
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]


def _adamw(groups: list[dict[str, Any]], config: RunConfig) -> AdamW:
    """AdamW with learning rate 0; the first step sets the real rate."""
    optimizer = config.optimizer
    idle = [group | {"lr": 0.0} for group in groups]
    return AdamW(idle, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.epsilon, fused=True)
