"""Bytes that forward keeps for backward, tensor by tensor, as the blocks of vl3.models do.

Counted per token in units of the width, for a decoder block of width D with inner width F and keys and values of 2G in
all, everything trained, nothing recomputed:

    norm in, norm out, q, k and v, attention out, norm in, norm out    6D + 2G
    gate, up, their product (and silu of the gate without a kernel)    3F (4F)

Frozen linear layers need no inputs: norm outputs and the product go. `selective` keeps the block's input and the
outputs of products and attention: 5D + 2G + 2F with those of o_proj and down_proj. `full` keeps the input: D.
"""

from dataclasses import dataclass

from vl3.models.config import EncoderConfig, TextConfig, VideoLlama3Config
from vl3.planning.flops import Recompute
from vl3.planning.parameters import TrainedParts, decoder_linears
from vl3.planning.shapes import RowShape
from vl3.planning.sharding import Sharding

_FP32 = 4
CPU_CHUNK_NUMBERS = 1 << 22
GPU_CHUNK_TOKENS = 2048
_MIN_CHUNK_TOKENS = 64
_SCALED_ROWS = 1 << 14
"""How the head's loss goes in chunks, as in vl3.models.head_loss (a test compares them)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Activations:
    """Bytes of one row."""

    encoder_block: float
    """What one block of the encoder keeps."""
    decoder_block: float
    """What one block of the decoder keeps."""
    encoder: float
    """What all blocks of the encoder keep."""
    decoder: float
    """What all blocks of the decoder keep."""
    between: float
    """What is kept outside blocks: pixels, projector, norms, rotary tables, gradients of the head's inputs."""
    encoder_working: float
    """What a block of the encoder needs besides while its backward runs."""
    decoder_working: float
    """What a block of the decoder needs besides while its backward runs."""
    head_gradient: float
    """Gradient of the head's weights, which its loss computes in forward."""
    logits: float
    """One chunk of logits with what its loss needs, in forward."""
    head_scaling: float
    """What scaling the head's gradient needs, at the start of backward."""

    @property
    def kept(self) -> float:
        """All that is kept from forward to backward."""
        return self.encoder + self.decoder + self.between + self.head_gradient


def row_activations(model: VideoLlama3Config, trained: TrainedParts, row: RowShape, sharding: Sharding) -> Activations:
    """What a row keeps and needs."""
    text, vision, size = model.text, model.vision, sharding.number_bytes
    block = _encoder_block(vision, sharding, sharding.recompute) * row.patches * trained.vision
    whole = _encoder_block(vision, sharding, "none") * row.patches * trained.vision
    decoder_block = _decoder_block(text, trained, sharding, sharding.recompute) * row.length_tokens
    decoder_whole = _decoder_block(text, trained, sharding, "none") * row.length_tokens
    encoder_grads = (3 * vision.intermediate_size + 2 * vision.hidden_size) * size * row.patches * trained.vision
    decoder_grads = (3 * text.intermediate_size + 2 * text.hidden_size) * size * row.length_tokens
    gradient = text.vocab_size * text.hidden_size * size * trained.language
    return Activations(
        encoder_block=block,
        decoder_block=decoder_block,
        encoder=block * vision.num_hidden_layers,
        decoder=decoder_block * text.num_hidden_layers,
        between=_between(model, trained, row, sharding),
        encoder_working=encoder_grads + _again(block, whole, sharding.recompute),
        decoder_working=decoder_grads + _again(decoder_block, decoder_whole, sharding.recompute),
        head_gradient=gradient,
        logits=_logits(text, row, sharding),
        head_scaling=_scaling(text, sharding) * trained.language,
    )


def _again(kept: float, whole: float, recompute: Recompute) -> float:
    """What is computed again for one block. `selective` keeps two outputs that backward does not read."""
    if recompute == "none":
        return 0.0
    return max(0.0, whole - kept)


def _encoder_block(vision: EncoderConfig, sharding: Sharding, recompute: Recompute) -> float:
    """Bytes per patch, if the encoder trains."""
    width, inner, size = vision.hidden_size, vision.intermediate_size, sharding.number_bytes
    attention = _FP32 * vision.num_attention_heads  # the logarithm of each sum
    if recompute == "full":
        return width * size
    if recompute == "selective":
        return (7 * width + inner) * size + attention
    statistics = 4 * (_FP32 if sharding.is_gpu else size)
    return (8 * width + 2 * inner) * size + attention + statistics


def _decoder_block(text: TextConfig, trained: TrainedParts, sharding: Sharding, recompute: Recompute) -> float:
    """Bytes per token."""
    width, inner, size = text.hidden_size, text.intermediate_size, sharding.number_bytes
    linears = decoder_linears(text)
    keys = 2 * linears["k_proj"][1]
    attention = _FP32 * text.num_attention_heads
    adapters = 0.0
    if trained.lora_rank:  # each adapter keeps its dropped input, which numbers it dropped, and its inner result
        adapters = sum(inputs * (size + 1) + trained.lora_rank * size for inputs, _ in linears.values())
    if recompute == "full":
        return width * size
    if recompute == "selective":
        inner_results = trained.lora_rank * size * len(linears)
        outputs = sum(outputs for _, outputs in linears.values()) * size if trained.lora_rank else 0.0
        return (5 * width + keys + 2 * inner) * size + attention + inner_results + outputs
    saved_inner = 2 if sharding.is_gpu else 3
    kept = 4 * width + keys + saved_inner * inner
    if trained.language:
        kept += 2 * width + inner
    return kept * size + attention + 2 * _FP32 + adapters


def _between(model: VideoLlama3Config, trained: TrainedParts, row: RowShape, sharding: Sharding) -> float:
    """What is kept outside blocks; the head keeps the gradient of its inputs."""
    text, vision, size = model.text, model.vision, sharding.number_bytes
    patches = 2 * vision.head_dim * _FP32
    if trained.vision:
        patches += (vision.patch_dim + 2 * vision.hidden_size) * size
    projector = (trained.vision or trained.projector) + 2 * trained.projector
    tables = 2 * (text.hidden_size // text.num_attention_heads) * _FP32
    tokens = text.hidden_size * size + tables
    return (
        row.patches * patches
        + row.projected_tokens * text.hidden_size * size * projector
        + row.length_tokens * tokens
        + row.supervised_tokens * text.hidden_size * size
    )


def _logits(text: TextConfig, row: RowShape, sharding: Sharding) -> float:
    """A chunk of logits, its fp32 copy and exponentials where no kernel does without them, and the head's inputs."""
    inputs = (row.length_tokens + row.supervised_tokens) * text.hidden_size * sharding.number_bytes
    tokens = min(row.supervised_tokens, chunk_tokens(text.vocab_size, is_gpu=sharding.is_gpu))
    numbers = tokens * text.vocab_size
    if sharding.is_gpu:
        return inputs + numbers * sharding.number_bytes
    return inputs + numbers * (2 * _FP32 + (sharding.number_bytes if sharding.precision == "bf16" else 0))


def chunk_tokens(vocab_size: int, *, is_gpu: bool) -> int:
    """Tokens whose logits are in memory at once."""
    return GPU_CHUNK_TOKENS if is_gpu else max(_MIN_CHUNK_TOKENS, CPU_CHUNK_NUMBERS // vocab_size)


def _scaling(text: TextConfig, sharding: Sharding) -> float:
    """The head's gradient is multiplied in fp32, some rows at a time: a copy, if it is not fp32, and the product."""
    copies = 2 if sharding.precision == "bf16" else 1
    return min(_SCALED_ROWS, text.vocab_size) * text.hidden_size * _FP32 * copies
