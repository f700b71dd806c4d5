"""Numbers of parameters of each part of the model, from its configuration alone (no torch here)."""

import math
from dataclasses import dataclass

from vl3.config.stages import StageConfig
from vl3.models.config import EncoderConfig, TextConfig, VideoLlama3Config
from vl3.models.fixed_config import FixedVisionConfig
from vl3.models.layouts.names import vision_shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedParts:
    """What a stage trains; adapters train in place of the language model's own weights."""

    vision: bool
    """The encoder."""
    projector: bool
    """The projector."""
    language: bool
    """The decoder with its embeddings and head."""
    lora_rank: int = 0
    """Width of the decoder's adapters; 0 without any. They train, and `language` is false."""

    @classmethod
    def of(cls, stage: StageConfig) -> "TrainedParts":
        """What a row of the stage table trains: the parts that have a learning rate."""
        rates, lora = stage.learning_rates, stage.lora
        return cls(
            vision=rates.vision is not None,
            projector=rates.projector is not None,
            language=rates.language is not None and lora is None,
            lora_rank=0 if lora is None else lora.rank,
        )

    @property
    def decoder_passes(self) -> bool:
        """Whether a gradient goes through every block of the decoder, down to the embeddings."""
        return self.language or self.projector or self.vision

    @property
    def decoder_has_backward(self) -> bool:
        """Whether anything at or below the decoder's top trains, which is always so in a stage that trains."""
        return self.decoder_passes or self.lora_rank > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterCounts:
    """Parameters of each part."""

    vision: int
    """The encoder."""
    projector: int
    """The projector."""
    embedding: int
    """Word embeddings; they are the head too if it is tied."""
    decoder: int
    """Blocks and last norm of the decoder."""
    head: int
    """A head of its own; 0 if it is tied."""
    adapters: int
    """LoRA adapters of the decoder; they are merged into it at the end of the stage."""

    @property
    def language(self) -> int:
        """The language model without adapters: embeddings, blocks and head."""
        return self.embedding + self.decoder + self.head

    @property
    def total(self) -> int:
        """All of them."""
        return self.vision + self.projector + self.language + self.adapters

    def trainable(self, parts: TrainedParts) -> int:
        """Those that a stage trains."""
        vision, projector = self.vision * parts.vision, self.projector * parts.projector
        return vision + projector + self.language * parts.language + self.adapters


def count_parameters(model: VideoLlama3Config, *, lora_rank: int = 0) -> ParameterCounts:
    """Parameters of each part, equal to those of `vl3.models.model.VideoLlama3`."""
    text = model.text
    embedding = text.vocab_size * text.hidden_size
    adapters = lora_rank * sum(inputs + outputs for inputs, outputs in decoder_linears(text).values())
    return ParameterCounts(
        vision=_vision(model.vision),
        projector=_with_bias(model.vision.hidden_size, text.hidden_size)
        + _with_bias(text.hidden_size, text.hidden_size),
        embedding=embedding,
        decoder=text.num_hidden_layers * decoder_block_parameters(text) + text.hidden_size,
        head=0 if text.tie_word_embeddings else embedding,
        adapters=adapters * text.num_hidden_layers,
    )


def vision_linears(vision: EncoderConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each linear layer of one block of the encoder, in the order of the forward pass."""
    width, inner = vision.hidden_size, vision.intermediate_size
    square = dict.fromkeys(("q_proj", "k_proj", "v_proj", "out_proj"), (width, width))
    return {**square, "fc1": (width, inner), "fc2": (inner, width)}


def decoder_linears(text: TextConfig) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each linear layer of one block of the decoder, in the order of the forward pass.

    Width 8 with 4 query heads and 2 key-value heads: keys and values have 2 * (8 / 4) = 4 outputs.
    """
    width, inner = text.hidden_size, text.intermediate_size
    keys = text.num_key_value_heads * (width // text.num_attention_heads)
    return {
        "q_proj": (width, width),
        "k_proj": (width, keys),
        "v_proj": (width, keys),
        "o_proj": (width, width),
        "gate_proj": (width, inner),
        "up_proj": (width, inner),
        "down_proj": (inner, width),
    }


def vision_block_parameters(vision: EncoderConfig) -> int:
    """Parameters of one block of the encoder: linear layers with biases, and two LayerNorms."""
    return sum(_with_bias(*size) for size in vision_linears(vision).values()) + 4 * vision.hidden_size


def decoder_block_parameters(text: TextConfig) -> int:
    """Parameters of one block of the decoder: linear layers, the biases of q, k and v, and two RMSNorms."""
    linears = decoder_linears(text)
    biases = sum(linears[name][1] for name in ("q_proj", "k_proj", "v_proj"))
    return sum(inputs * outputs for inputs, outputs in linears.values()) + biases + 2 * text.hidden_size


def _vision(vision: EncoderConfig) -> int:
    """Patch embedding, blocks and last norm; of an encoder of fixed resolution what its checkpoint holds."""
    if isinstance(vision, FixedVisionConfig):
        return sum(math.prod(shape) for shape in vision_shapes(vision).values())
    patch = _with_bias(vision.patch_dim, vision.hidden_size)
    return patch + vision.num_hidden_layers * vision_block_parameters(vision) + 2 * vision.hidden_size


def _with_bias(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs
