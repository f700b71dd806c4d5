"""Time of a step: arithmetic, memory traffic, and what the ranks exchange.

Matrix products, attention and traffic run one after another on a device; the exchange of gradients is added as far as
it is not hidden behind backward. A row of 130 TFLOP in products at 0.65 of 989 TFLOP/s takes 0.20 s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vl3.models.config import TextConfig, VideoLlama3Config
from vl3.planning.devices import Device
from vl3.planning.flops import Flops, row_flops
from vl3.planning.parameters import TrainedParts, count_parameters
from vl3.planning.shapes import RowShape
from vl3.planning.sharding import BYTES, Sharding

_ATTENTION = ("encoder_attention", "decoder_attention")
_DECODER_NUMBERS = (14, 3)
_ENCODER_NUMBERS = (18, 2)
"""Numbers that a block reads and writes outside products for each token, forward: times its width and inner width.
Norms and residuals 10, rotary 4 (8 in the encoder, in fp32), the activation."""
_UNFUSED = 2.5
"""How much more that is where each operation reads and writes on its own, as on CPU."""
_BACKWARD = 2.0
_UPDATE_BYTES = 44
"""Bytes read and written for each updated parameter: fp32 weight, moments and gradient, and the weight's copy; before
that the gradient's norm, and its flat copy."""
_LOGIT_NUMBERS = {True: 4, False: 24}
"""The same as _DECODER_NUMBERS for each logit, by whether a kernel computes the loss. Elsewhere two exponentials take
as long as moving eight numbers each."""
_HOST_BYTES_PER_SECOND = 100e9
"""Bandwidth of a node's memory that one rank's update on the host reaches."""
_NODE_LINK_BYTES_PER_SECOND = 25e9
"""Between nodes, for each GPU: a 200 Gbit/s adapter a GPU. Clusters differ; a pool's fabric says."""
_HIDDEN = {2: 0.7, 3: 0.5}
"""Share of the exchange that runs beside the arithmetic, by ZeRO stage; ours, unmeasured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Seconds of one optimizer step."""

    parts: Mapping[str, float]
    """By `products`, `attention`, `traffic`, `exchange`, `update`, `waiting`."""
    flops: Flops
    """FLOPs of one row."""
    rows_per_second: float
    """Rows over all ranks."""
    mfu: float
    """Needed FLOPs over what the devices' peaks allow."""

    @property
    def seconds(self) -> float:
        """The whole step."""
        return sum(self.parts.values())


def step_time(
    model: VideoLlama3Config,
    trained: TrainedParts,
    row: RowShape,
    sharding: Sharding,
    device: Device,
    *,
    ranks_per_node: int,
    imbalance: float = 0.0,
) -> StepTime:
    """Time of a step of rows of this mean size.

    Args:
        model: sizes of the model.
        trained: what the stage trains.
        row: size of a row on average.
        sharding: how the stage is laid out.
        device: what computes.
        ranks_per_node: processes that share a node, whose links are faster than those between nodes.
        imbalance: share of the arithmetic that ranks wait for the costliest.
    """
    flops = row_flops(model, trained, [row], recompute=sharding.recompute)
    peak = device.bf16_flops_per_second if sharding.precision == "bf16" else device.fp32_flops_per_second
    attention = sum(flops.parts[name].computed for name in _ATTENTION)
    products = flops.total.computed - attention
    rows = sharding.rows_per_rank
    arithmetic = {
        "products": rows * products / (peak * device.product_share),
        "attention": rows * attention / (peak * device.attention_share),
        "traffic": rows
        * _traffic(model, trained, row, sharding)
        / (device.memory_bytes_per_second * device.bandwidth_share),
    }
    counts = count_parameters(model, lora_rank=trained.lora_rank)
    trainable = counts.trainable(trained)
    bandwidth = _HOST_BYTES_PER_SECOND if sharding.offload_optimizer else device.memory_bytes_per_second
    parts = arithmetic | {
        "exchange": _exchange(counts.total, trainable, sharding, device, ranks_per_node),
        "update": trainable / sharding.shards * _UPDATE_BYTES / (bandwidth * device.bandwidth_share),
        "waiting": imbalance * sum(arithmetic.values()),
    }
    seconds = sum(parts.values())
    return StepTime(
        parts=parts,
        flops=flops,
        rows_per_second=rows * sharding.ranks / seconds,
        mfu=rows * flops.needed / seconds / peak,
    )


def block_traffic(text: TextConfig, row: RowShape, precision: str, *, is_gpu: bool) -> float:
    """Bytes that one trained block of the decoder moves outside its products, forward and backward."""
    width, inner = _DECODER_NUMBERS
    numbers = row.length_tokens * (width * text.hidden_size + inner * text.intermediate_size)
    return numbers * (1 + _BACKWARD) * (1.0 if is_gpu else _UNFUSED) * BYTES[precision]


def _traffic(model: VideoLlama3Config, trained: TrainedParts, row: RowShape, sharding: Sharding) -> float:
    """Bytes that norms, rotary, activations and residuals read and write, forward and backward."""
    text, vision = model.text, model.vision
    again = (1.0 if sharding.recompute != "none" else 0.0) / (1 + _BACKWARD)
    forward = 1 / (1 + _BACKWARD)
    block = block_traffic(text, row, sharding.precision, is_gpu=sharding.is_gpu)
    decoder = text.num_hidden_layers * block * (1.0 + again if trained.decoder_has_backward else forward)
    width, inner = _ENCODER_NUMBERS
    numbers = row.patches * (width * vision.hidden_size + inner * vision.intermediate_size)
    block = numbers * (1 + _BACKWARD) * (1.0 if sharding.is_gpu else _UNFUSED) * sharding.number_bytes
    encoder = vision.num_hidden_layers * block * (1.0 + again if trained.vision else forward)
    logits = row.supervised_tokens * text.vocab_size * _LOGIT_NUMBERS[sharding.is_gpu] * sharding.number_bytes
    return decoder + encoder + logits


def _exchange(total: int, trainable: int, sharding: Sharding, device: Device, ranks_per_node: int) -> float:
    """Seconds that the ranks' exchange adds: gradients summed, updated weights sent round, or gathered under ZeRO 3."""
    ranks = sharding.ranks
    if ranks == 1:
        return 0.0
    link = device.link_bytes_per_second if ranks <= ranks_per_node else _NODE_LINK_BYTES_PER_SECOND
    size, share = sharding.number_bytes, (ranks - 1) / ranks
    gradient_bytes = 4 if sharding.zero_stage == 1 and sharding.precision == "bf16" else size
    times = sharding.rows_per_rank if sharding.zero_stage >= 2 else 1
    gradients = trainable * gradient_bytes * share * (2 if sharding.zero_stage < 2 else 1) * times
    weights = trainable * size * share if sharding.zero_stage in (1, 2) else 0.0
    gathered = 2 * total * size * share * sharding.rows_per_rank if sharding.zero_stage == 3 else 0.0
    hidden = _HIDDEN[sharding.zero_stage] if sharding.is_overlapped else 0.0
    return ((gradients + gathered) * (1 - hidden) + weights) / link
