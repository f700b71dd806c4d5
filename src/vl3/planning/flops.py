"""FLOPs of a training step by part: what the stage needs, and apart from it what is computed twice.

Counted are matrix products: a product of (m, k) with (k, n) has 2mkn. Norms, rotary, softmax and activations are below
1 % and take memory bandwidth, not arithmetic. A linear layer over T tokens with P weights takes 2TP forward, 2TP for
the gradient of its input, and 2TP for that of its weights:

    trained, and something below it trains     2 + 2 + 2
    frozen, and something below it trains      2 + 2
    frozen, and nothing below it trains        2

Attention takes 4 FLOPs per pair of tokens and unit of width forward (scores, and their use) and 8 backward; a causal
decoder needs the pairs of a token with itself and those before it, (n^2 + n) / 2 of n^2. Flash kernels compute the
scores again in backward, which the stage does not need: it counts as recomputed, as recomputed blocks do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vl3.models.config import VideoLlama3Config
from vl3.planning.parameters import TrainedParts, decoder_linears, vision_linears
from vl3.planning.shapes import RowShape

Recompute = Literal["none", "selective", "full"]
"""What is computed again in backward: nothing, what takes no matrix product (norms, activations), or whole blocks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFlops:
    """FLOPs of one part of the model."""

    forward: float = 0.0
    """One pass forward."""
    backward: float = 0.0
    """Gradients that the stage needs, of weights and of inputs."""
    recomputed: float = 0.0
    """What is computed a second time to save memory."""

    @property
    def needed(self) -> float:
        """What the stage needs: forward and backward."""
        return self.forward + self.backward

    @property
    def computed(self) -> float:
        """What the device computes: needed and recomputed."""
        return self.forward + self.backward + self.recomputed

    def __add__(self, other: "PartFlops") -> "PartFlops":
        return PartFlops(
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
            recomputed=self.recomputed + other.recomputed,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """FLOPs of rows, by part: linear layers and attention apart, because devices are not equally fast in both."""

    parts: Mapping[str, PartFlops]
    """By `encoder`, `encoder_attention`, `projector`, `decoder`, `decoder_attention`, `head`."""

    @property
    def total(self) -> PartFlops:
        """The sum of all parts."""
        return sum(self.parts.values(), PartFlops())

    @property
    def needed(self) -> float:
        """FLOPs that the stage needs: the numerator of MFU."""
        return self.total.needed

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(parts={name: part + other.parts[name] for name, part in self.parts.items()})


def row_flops(
    model: VideoLlama3Config, trained: TrainedParts, rows: Sequence[RowShape], *, recompute: Recompute = "none"
) -> Flops:
    """FLOPs of a forward and backward pass over rows.

    A decoder block of 10 weights, 3 tokens, everything trained: forward 60, backward 120. With a frozen encoder and
    projector and a decoder under LoRA only the inputs' gradients and the adapters' are needed.

    Args:
        model: sizes of the model.
        trained: what the stage trains.
        rows: sizes of the rows; at least one.
        recompute: what is computed again in backward.
    """
    flops = [_one_row(model, trained, row, recompute) for row in rows]
    return sum(flops[1:], flops[0])


def _one_row(model: VideoLlama3Config, trained: TrainedParts, row: RowShape, recompute: Recompute) -> Flops:
    return Flops(
        parts={
            "encoder": _encoder(model, trained, row, recompute),
            "encoder_attention": _attention(
                4 * row.patch_pairs * model.vision.hidden_size * model.vision.num_hidden_layers,
                has_backward=trained.vision,
                is_twice=recompute == "full",
            ),
            "projector": _projector(model, trained, row),
            "decoder": _decoder(model, trained, row, recompute),
            "decoder_attention": _attention(
                2 * (row.length_pairs + row.length_tokens) * model.text.hidden_size * model.text.num_hidden_layers,
                has_backward=trained.decoder_has_backward,
                is_twice=recompute == "full",
            ),
            "head": _head(model, trained, row),
        }
    )


def _encoder(model: VideoLlama3Config, trained: TrainedParts, row: RowShape, recompute: Recompute) -> PartFlops:
    """Patch embedding, whose input has no gradient, and blocks."""
    vision = model.vision
    embedding = 2 * row.patches * vision.patch_dim * vision.hidden_size
    block = _products(vision_linears(vision), row.patches)
    blocks = block * vision.num_hidden_layers
    if not trained.vision:
        return PartFlops(forward=embedding + blocks)
    return PartFlops(
        forward=embedding + blocks,
        backward=embedding + 2 * blocks,
        recomputed=vision.num_hidden_layers
        * (block - _last(vision_linears(vision), row.patches))
        * _is_full(recompute),
    )


def _projector(model: VideoLlama3Config, trained: TrainedParts, row: RowShape) -> PartFlops:
    """Two linear layers; the first one's input has a gradient only if the encoder trains."""
    width = model.text.hidden_size
    first = 2 * row.projected_tokens * model.vision.hidden_size * width
    second = 2 * row.projected_tokens * width * width
    inputs = first * trained.vision + second * (trained.vision or trained.projector)
    return PartFlops(forward=first + second, backward=inputs + (first + second) * trained.projector)


def _decoder(model: VideoLlama3Config, trained: TrainedParts, row: RowShape, recompute: Recompute) -> PartFlops:
    """Blocks, and their adapters.

    An adapter of rank r over inputs and outputs is two linear layers of r * (inputs + outputs) weights in all. If
    nothing below the decoder trains, the first block's q, k and v need no gradient of their inputs.
    """
    linears, layers = decoder_linears(model.text), model.text.num_hidden_layers
    block = _products(linears, row.length_tokens)
    adapter_weights = trained.lora_rank * sum(inputs + outputs for inputs, outputs in linears.values())
    adapters = 2 * row.length_tokens * adapter_weights
    backward = 0.0
    if trained.decoder_has_backward:
        backward = layers * (block + block * trained.language + 2 * adapters)
    if trained.decoder_has_backward and not trained.decoder_passes:
        entry = {name: linears[name] for name in ("q_proj", "k_proj", "v_proj")}
        downs = trained.lora_rank * sum(inputs for inputs, _ in entry.values())
        backward -= _products(entry, row.length_tokens) + 2 * row.length_tokens * downs
    again = layers * (block + adapters - _skipped_again(model, trained, row))
    return PartFlops(
        forward=layers * (block + adapters),
        backward=backward,
        recomputed=again * _is_full(recompute) * trained.decoder_has_backward,
    )


def _skipped_again(model: VideoLlama3Config, trained: TrainedParts, row: RowShape) -> float:
    """What a recomputed decoder block leaves out: torch stops when everything that backward reads is there.

    That is before the last product, down_proj. With adapters the last one is the adapter's second layer.
    """
    linears = decoder_linears(model.text)
    if not trained.lora_rank:
        return _last(linears, row.length_tokens)
    return 2 * row.length_tokens * trained.lora_rank * linears["down_proj"][1]


def _head(model: VideoLlama3Config, trained: TrainedParts, row: RowShape) -> PartFlops:
    """Logits of the supervised tokens, whose gradients are computed while they are there.

    With a tied head the embeddings' gradient comes from here; looking words up takes no product.
    """
    product = 2 * row.supervised_tokens * model.text.hidden_size * model.text.vocab_size
    return PartFlops(forward=product, backward=product * (trained.decoder_has_backward + trained.language))


def _attention(forward: float, *, has_backward: bool, is_twice: bool) -> PartFlops:
    """Scores and their use; backward has four products of the same size, and the kernel's own scores again."""
    if not has_backward:
        return PartFlops(forward=forward)
    return PartFlops(forward=forward, backward=2 * forward, recomputed=forward * (1.5 if is_twice else 0.5))


def _products(linears: Mapping[str, tuple[int, int]], tokens: float) -> float:
    return 2 * tokens * sum(inputs * outputs for inputs, outputs in linears.values())


def _last(linears: Mapping[str, tuple[int, int]], tokens: float) -> float:
    """The product of the block's last linear layer."""
    inputs, outputs = list(linears.values())[-1]
    return 2 * tokens * inputs * outputs


def _is_full(recompute: Recompute) -> bool:
    return recompute == "full"
