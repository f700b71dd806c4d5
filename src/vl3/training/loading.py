"""Gives the engine its model with weights: read parameter by parameter, each rank only what it owns under ZeRO-3.

Nothing is held twice. Without ZeRO-3 every rank has the whole model in the engine's type; with it, of every parameter
the piece that DeepSpeed would give this rank (vl3.models.shards), and no parameter is whole at any moment.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from vl3.config.run import RunConfig
from vl3.models.bases import FixedWanted
from vl3.models.layouts.names import expected_shapes
from vl3.models.model import VideoLlama3
from vl3.models.shards import Share, read_share
from vl3.models.start import unread_start
from vl3.models.unread import UnreadModel, put_parameter, unread_model
from vl3.store.artifacts import fetch
from vl3.store.bases import LANGUAGE, VISION, fetch_base
from vl3.store.reference import Reference
from vl3.system.imports import lean_imports
from vl3.training.job import StageJob

with lean_imports():
    import deepspeed
    from deepspeed.runtime.zero.partition_parameters import PartitionedParamStatus

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def open_first_model(job: StageJob, config: RunConfig) -> tuple[Path, UnreadModel]:
    """The folder with the tokenizer, and the model that the stage starts from, which is not read yet.

    It is the checkpoint of the stage before or an imported model, or else made of the two imported bases.

    Raises:
        ConfigError: the weights do not fit the model that their config.json describes.
        StorageError: an artifact is missing, damaged, or another one than the job names.
    """
    start = Reference.from_dict(job.initial_model)
    if start.kind != "start":
        folder = fetch(start)
        return folder, unread_model(folder)
    language = fetch_base(start, LANGUAGE)
    fixed = FixedWanted.of(config.model)
    return language, unread_start(fetch_base(start, VISION), language, seed=config.seed, fixed=fixed)


def load(unread: UnreadModel, config: RunConfig, device: torch.device) -> VideoLlama3:
    """The model on this rank's device in the engine's type; under ZeRO-3 already divided among the ranks.

    Raises:
        StorageError: a file cannot be read.
    """
    dtype = _DTYPES[config.engine.precision]
    if config.engine.zero_stage != 3:
        return unread.load(dtype, device)
    model = unread.empty()
    divided = _Division(config, dtype, device)
    for name, parameter in list(model.named_parameters()):
        own = divided.parameter(parameter.shape)
        read_share(unread.sources[name], divided.share, own.ds_tensor)
        put_parameter(model, name, own)
    return model.to(device).eval()


class _Division:
    """Makes parameters as DeepSpeed's zero.Init leaves them, without the whole parameter that it divides."""

    def __init__(self, config: RunConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.share = Share(dist.get_rank(), dist.get_world_size())
        self._dtype, self._device = dtype, device
        settings = {
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": dtype is torch.bfloat16},
            "zero_optimization": {"stage": config.engine.zero_stage},
        }
        self._init = deepspeed.zero.Init(module=nn.Module(), config_dict_or_path=settings, dtype=dtype)

    def parameter(self, shape: torch.Size) -> Any:
        """A divided parameter; its `ds_tensor` is this rank's piece, not filled yet.

        Until it is divided it is one value repeated (`expand`), which takes no memory.
        """
        whole = torch.zeros(1, dtype=self._dtype, device=self._device).expand(shape)
        parameter: Any = nn.Parameter(whole)
        self._init._convert_to_deepspeed_param(parameter)
        size = self.share.size(parameter.ds_numel)
        piece: Any = torch.empty(size, dtype=self._dtype, device=self._device)
        piece.ds_numel, piece.status, piece.final_location = size, PartitionedParamStatus.AVAILABLE, None
        parameter.ds_tensor, parameter.ds_numel_aligned = piece, size * self.share.ranks
        parameter.partition()  # it has a piece, so only the whole is let go
        return parameter


def part_sizes(model: UnreadModel) -> dict[str, int]:
    """Number of values of encoder and decoder (with its head), from the sizes alone."""
    sizes = {"vision": 0, "language": 0}
    for name, shape in expected_shapes(model.config).items():
        part = "vision" if name.startswith("model.vision_encoder.") else "language"
        if not name.startswith("model.mm_projector."):
            sizes[part] += torch.Size(shape).numel()
    return sizes
