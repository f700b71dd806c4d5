"""Host memory of one node while a stage trains, by part: what a pod's `memory_gib` must hold."""

from collections.abc import Mapping
from dataclasses import dataclass

from vl3.config.run import RunConfig
from vl3.models.config import VideoLlama3Config
from vl3.planning.parameters import TrainedParts, count_parameters
from vl3.planning.sharding import Sharding

_GIB = 2**30
PROCESS_GIB = 3.0
"""A training process without its tensors: torch, CUDA's libraries and context, NCCL, DeepSpeed."""
DECODER_GIB = 0.7
"""A process that decodes samples, with the frames of one video: 180 frames of 1280x720 are 0.5 GiB."""
_DECODERS_PER_RANK = 10
"""Decoding processes where the recipe leaves their number to the loader: about what keeps a GPU busy."""
LOADED_SHARE = 1.2
"""Weights are read tensor by tensor: a rank holds its own share and a fifth more at most."""
_SAVED_BYTES = 12
"""fp32 weights and two moments of each trained parameter: what a checkpoint holds."""
_OFFLOADED_BYTES = 18
"""The same, an fp32 gradient, and the weight as it goes back to the device, in pinned memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostMemory:
    """Bytes on one node."""

    parts: Mapping[str, float]
    """By `processes`, `loading`, `saving`, `offload`, `decoding`, `shared rows`."""

    @property
    def peak(self) -> float:
        """The most at once: weights are loaded before the first save, so the larger of both counts."""
        rest = sum(size for name, size in self.parts.items() if name not in ("loading", "saving"))
        return rest + max(self.parts["loading"], self.parts["saving"])


def host_memory(
    config: RunConfig,
    stage: str,
    model: VideoLlama3Config,
    sharding: Sharding,
    *,
    ranks_per_node: int,
    device_bytes: float,
) -> HostMemory:
    """Host memory of a node.

    Two billion trained parameters on 16 ranks of two nodes: a rank saves 1.5 GB, so a node needs 12 GB for a save.

    Args:
        config: the run.
        stage: name of the stage.
        model: sizes of the model.
        sharding: how the stage is laid out.
        ranks_per_node: training processes of the node.
        device_bytes: what a process holds on its device, if that is the node's memory itself (CPU); else 0.
    """
    trained = TrainedParts.of(config.stages[stage])
    counts = count_parameters(model, lora_rank=trained.lora_rank)
    trainable = counts.trainable(trained)
    share = counts.total / (sharding.ranks if sharding.zero_stage == 3 else 1)
    saved = trainable / sharding.ranks * _SAVED_BYTES
    decoders = config.loader.processes or (_DECODERS_PER_RANK if sharding.is_gpu else 1)
    row_bytes = config.data.max_row_visual_tokens * config.stages[stage].video_merge_size ** 2 * model.vision.patch_dim
    process = PROCESS_GIB * _GIB if sharding.is_gpu else 0.5 * _GIB
    decoding = decoders * (DECODER_GIB * _GIB if sharding.is_gpu else 0.25 * _GIB) + config.loader.cache_gib * _GIB
    parts = {
        "processes": process + device_bytes,
        "loading": share * sharding.number_bytes * LOADED_SHARE if sharding.is_gpu else 0.0,
        "saving": saved,
        "offload": trainable / sharding.shards * _OFFLOADED_BYTES if sharding.offload_optimizer else 0.0,
        "decoding": decoding,
        "shared rows": 3.0 * row_bytes,  # the one that is computed and two ahead
    }
    return HostMemory(parts={name: size * ranks_per_node for name, size in parts.items()})
