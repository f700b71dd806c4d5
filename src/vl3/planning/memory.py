"""Memory of one GPU (or CPU process) while a stage trains, by part, under each ZeRO stage and with offload.

The most memory is needed at one of four moments; what is there at each is added up, and the largest is what a stage
needs. With states S, gradients G, kept activations A and a chunk of logits L:

    end of forward     S + A + L, and G if rows went before
    backward           S + A + the working set of a block, G growing as A shrinks
    end of backward    S + G + what their exchange needs
    update             S + G + what it needs

Everything is bytes of tensors. What the driver, kernels and the allocator's gaps take is `Device.memory_gib` and
`RESERVE_SHARE`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vl3.models.config import VideoLlama3Config
from vl3.planning.activations import Activations, row_activations
from vl3.planning.parameters import (
    TrainedParts,
    count_parameters,
    decoder_block_parameters,
    decoder_linears,
    vision_block_parameters,
    vision_linears,
)
from vl3.planning.shapes import RowShape
from vl3.planning.sharding import LIVE_NUMBERS, PERSISTENT_NUMBERS, Sharding

GIB = 2**30
RESERVE_SHARE = 0.06
"""Share of a GPU's memory for gaps of the allocator, kernels' workspaces and the collectives' buffers."""
_FP32 = 4
_FP64 = 8
_ENGINE_BUCKET_NUMBERS = 500_000_000
"""DeepSpeed's bucket where it exchanges gradients without ZeRO."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes on one device."""

    states: float
    """What is there between steps: weights, and where they are, fp32 weights, moments and gradient buffers."""
    moments: Mapping[str, Mapping[str, float]]
    """Parts by the moment of a step (`forward`, `backward`, `exchange`, `update`)."""
    offloaded: float
    """Bytes of this rank in host memory instead: fp32 weights, moments and gradients."""

    @property
    def moment(self) -> str:
        """When the most is needed."""
        return max(self.moments, key=lambda moment: sum(self.moments[moment].values()))

    @property
    def parts(self) -> Mapping[str, float]:
        """What is there then: weights, optimizer, gradients, buffers, activations, logits."""
        return self.moments[self.moment]

    @property
    def peak(self) -> float:
        """The most that is needed at once."""
        return sum(self.parts.values())


def stage_memory(model: VideoLlama3Config, trained: TrainedParts, row: RowShape, sharding: Sharding) -> Memory:
    """Memory of a stage whose largest row is `row`.

    2 billion trained parameters in bf16 on 8 GPUs under ZeRO 2: 4 GB of weights, 24 GB of fp32 weights and moments cut
    into 8 parts of 3 GB, and 1 GB of summed gradients between the rows of a step.
    """
    numbers = _Numbers.of(model, trained)
    activations = row_activations(model, trained, row, sharding)
    states = _states(numbers, sharding)
    held = _held_gradients(numbers, sharding)
    exchange, update = _exchange(numbers, sharding), _update(numbers, sharding)
    between_rows = held if sharding.rows_per_rank > 1 else 0.0
    forward = {"gradients": between_rows, "activations": activations.kept - activations.head_gradient}
    forward |= {"logits": activations.logits + activations.head_gradient, "buffers": _gathered(numbers, sharding)}
    backward = _backward(model, trained, activations, sharding, between_rows)
    moments = {
        "forward": forward,
        "backward": backward,
        "exchange": {"gradients": held, "buffers": exchange},
        "update": {"gradients": held, "buffers": update},
    }
    return Memory(
        states=sum(states.values()),
        moments={name: _added(states, parts) for name, parts in moments.items()},
        offloaded=_offloaded(numbers, sharding) if sharding.offload_optimizer else 0.0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Numbers:
    """Counts that memory depends on."""

    total: int
    trainable: int
    small: int
    """Parameters in tensors that stay whole under ZeRO 3."""
    largest_group: int
    """The largest of the optimizer's groups: vision, projector, language."""
    largest: int
    """The largest trained tensor."""

    @classmethod
    def of(cls, model: VideoLlama3Config, trained: TrainedParts) -> "_Numbers":
        counts = count_parameters(model, lora_rank=trained.lora_rank)
        language = counts.language * trained.language + counts.adapters
        tensors = [model.vision.hidden_size * model.vision.intermediate_size * trained.vision]
        tensors += [model.text.hidden_size**2 * trained.projector, counts.embedding * trained.language]
        return cls(
            total=counts.total,
            trainable=counts.trainable(trained),
            small=_small(model, trained.lora_rank),
            largest_group=max(counts.vision * trained.vision, counts.projector * trained.projector, language),
            largest=max(*tensors, trained.lora_rank * model.text.intermediate_size),
        )


def _small(model: VideoLlama3Config, lora_rank: int) -> int:
    """Parameters in tensors below ZeRO 3's threshold: biases, norms, and the matrices of small models."""
    text, vision = model.text, model.vision

    def of_block(linears: Mapping[str, tuple[int, int]], parameters: int) -> int:
        large = sum(i * o for i, o in linears.values() if i * o >= PERSISTENT_NUMBERS)
        adapters = sum(lora_rank * n for pair in linears.values() for n in pair if lora_rank * n < PERSISTENT_NUMBERS)
        return parameters - large + (adapters if linears is of_text else 0)

    of_text, of_vision = decoder_linears(text), vision_linears(vision)
    blocks = text.num_hidden_layers * of_block(of_text, decoder_block_parameters(text))
    blocks += vision.num_hidden_layers * of_block(of_vision, vision_block_parameters(vision))
    others = (vision.patch_dim * vision.hidden_size, vision.hidden_size * text.hidden_size, text.hidden_size**2)
    return blocks + sum(size for size in others if size < PERSISTENT_NUMBERS) + 4 * text.hidden_size


def _states(numbers: _Numbers, sharding: Sharding) -> dict[str, float]:
    """What is there between steps."""
    size, trainable = sharding.number_bytes, numbers.trainable
    weights = size * float(numbers.total)
    if sharding.zero_stage == 3:
        weights = weights / sharding.ranks + size * numbers.small
    has_masters = sharding.zero_stage > 0 or sharding.precision == "bf16"
    optimizer = trainable / sharding.shards * (2 * _FP32 + _FP32 * has_masters)
    buffers = gradients = 0.0
    if sharding.zero_stage == 1 and sharding.precision == "bf16" and not sharding.offload_optimizer:
        gradients = _FP32 * trainable  # summed in fp32, whole on each rank
    if sharding.zero_stage == 3:
        buffers = size * sharding.bucket_numbers(trainable) * (2 if sharding.is_overlapped else 1)
        gradients = _FP32 * trainable / sharding.ranks
    if sharding.offload_optimizer:
        optimizer = 0.0
        buffers += size * numbers.largest
        if sharding.zero_stage < 3:
            gradients = 0.0
    return {"weights": weights, "optimizer": optimizer, "gradients": gradients, "buffers": buffers}


def _gathered(numbers: _Numbers, sharding: Sharding) -> float:
    """Weights of other ranks that ZeRO 3 has gathered for the blocks that compute, and for those that follow."""
    if sharding.zero_stage < 3 or sharding.ranks == 1:
        return 0.0
    return sharding.number_bytes * float(min(numbers.total - numbers.small, LIVE_NUMBERS))


def _offloaded(numbers: _Numbers, sharding: Sharding) -> float:
    """fp32 weights, moments and gradients, the weights as they go back to the device, and a buffer of one tensor."""
    share = numbers.trainable / sharding.shards
    return share * (4 * _FP32 + sharding.number_bytes) + sharding.number_bytes * numbers.largest


def _held_gradients(numbers: _Numbers, sharding: Sharding) -> float:
    """Gradients after a backward pass, besides those that have a buffer between steps."""
    size, trainable = sharding.number_bytes, numbers.trainable
    if sharding.zero_stage == 3:
        return 0.0
    if sharding.zero_stage == 2:
        return _FP32 * trainable / sharding.ranks
    return size * trainable


def _backward(
    model: VideoLlama3Config, trained: TrainedParts, activations: Activations, sharding: Sharding, between_rows: float
) -> dict[str, float]:
    """The largest sum during backward, which goes down through the blocks: what is kept shrinks, gradients grow."""
    size = sharding.number_bytes
    text, vision = model.text, model.vision
    numbers = _Numbers.of(model, trained)
    buckets = 0.0
    if sharding.zero_stage == 2:
        buckets = size * sharding.bucket_numbers(numbers.trainable) * (2 if sharding.is_overlapped else 1)
        if numbers.trainable > sharding.bucket_numbers(numbers.trainable) and not between_rows:
            buckets += _FP32 * numbers.trainable / sharding.ranks  # the first full bucket goes into the sums
    gathered = _gathered(numbers, sharding)
    grows = sharding.zero_stage < 2 and not between_rows  # with ZeRO 2 and 3 gradients go into buckets as they come
    block = decoder_block_parameters(text) * trained.language * size
    vision_block = vision_block_parameters(vision) * trained.vision * size
    kept, grown = activations.kept - activations.head_gradient, 0.0
    head = activations.head_gradient
    points = [(kept, 0.0, activations.head_scaling - buckets)]  # the buckets are made with the first gradient
    for _ in range(text.num_hidden_layers):
        points.append((kept, grown, activations.decoder_working))
        kept, grown = kept - activations.decoder_block, grown + block * grows
    embedding = head  # the words' gradient is as large as the head's, and with a tied head both are added
    points.append((kept, grown, embedding))
    for _ in range(vision.num_hidden_layers * trained.vision):
        points.append((kept, grown, activations.encoder_working))
        kept, grown = kept - activations.encoder_block, grown + vision_block * grows
    kept, grown, working = max(points, key=sum)
    return {
        "gradients": between_rows + grown + head,
        "activations": kept + working,
        "buffers": buckets + gathered,
    }


def _exchange(numbers: _Numbers, sharding: Sharding) -> float:
    """What the exchange of gradients needs after backward."""
    size = sharding.number_bytes
    if sharding.zero_stage == 0:
        return size * float(min(numbers.trainable, _ENGINE_BUCKET_NUMBERS))
    if sharding.zero_stage == 1:
        per_number = _FP32 if sharding.precision == "bf16" else size
        return per_number * float(sharding.bucket_numbers(numbers.trainable))
    return size * float(sharding.bucket_numbers(numbers.trainable)) if sharding.zero_stage == 2 else 0.0


def _update(numbers: _Numbers, sharding: Sharding) -> float:
    """What the optimizer needs besides: a flat fp32 copy of a group's gradients, or a norm in double precision."""
    is_bf16 = sharding.precision == "bf16"
    if sharding.offload_optimizer:
        return _FP64 * float(numbers.largest)
    if sharding.zero_stage == 0:
        return _FP32 * float(numbers.trainable) * is_bf16
    if sharding.zero_stage == 3:
        return _FP32 * float(min(numbers.largest_group / sharding.ranks, LIVE_NUMBERS))
    norm = _FP64 * float(min(numbers.largest, numbers.largest_group / sharding.ranks))
    if is_bf16:
        return norm if sharding.zero_stage == 2 else 0.0
    return max(norm, _FP32 * numbers.largest_group / sharding.ranks)


def _added(states: Mapping[str, float], parts: Mapping[str, float]) -> dict[str, float]:
    """The sum of both, part by part, in the order in which people read it."""
    names = ("weights", "optimizer", "gradients", "buffers", "activations", "logits")
    return {name: states.get(name, 0.0) + parts.get(name, 0.0) for name in names}
