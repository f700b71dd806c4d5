"""Sizes of the model, read from and written to the official checkpoint's config.json (no torch here)."""

from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias, TypeVar

from vl3.conventions import PATCH_SIZE_PX
from vl3.errors import ConfigError
from vl3.models.fixed_config import FIXED_TYPES, FixedVisionConfig

MODEL_TYPE = "videollama3_qwen2"
"""`model_type` of the official checkpoints."""
PROJECTOR_TYPE = "mlp2x_gelu"
"""The only projector of the released models."""

AVT_TYPE = "videollama3_vision_encoder"
"""`model_type` of the any-resolution encoder in the official checkpoints."""

Config = TypeVar("Config")


def _build_at(where: str, cls: type[Config], values: dict[str, Any]) -> Config:
    """Build a configuration; errors about wrong types or contradictions start with the file."""
    for field in fields(cls):  # type: ignore[arg-type]
        value = values.get(field.name, field.default)
        if type(value) is not field.type and not (field.type is float and type(value) is int):
            raise ConfigError(f"{where}: {field.name}={value!r} must be of type {field.type}. Restore the file.")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _require_group(data: Any, where: str) -> None:
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is {data!r:.80}, not a group of values. Restore the file from the model's source.")


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionConfig:
    """Shape of the AVT encoder: a SigLIP tower with 2D-RoPE instead of learned positions."""

    hidden_size: int
    """Width."""
    intermediate_size: int
    """Width inside the MLP."""
    num_hidden_layers: int
    """Blocks."""
    num_attention_heads: int
    """Heads of each block."""
    patch_size: int = PATCH_SIZE_PX
    """Side of a patch in pixels."""
    num_channels: int = 3
    """Colour channels of a pixel."""
    hidden_act: str = "gelu_pytorch_tanh"
    """Activation of the MLP; SigLIP has only this one."""
    layer_norm_eps: float = 1e-6
    """Epsilon of every LayerNorm."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""

    def __post_init__(self) -> None:
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"vision config: {name}={getattr(self, name)} must be greater than 0.")
        if self.hidden_size % (4 * self.num_attention_heads):
            raise ConfigError(
                f"vision config: hidden_size={self.hidden_size} / num_attention_heads={self.num_attention_heads} is "
                "not a multiple of 4. 2D-RoPE uses half of each head for rows and half for columns, and pairs the "
                "elements of each half. Choose another number of heads."
            )
        if self.hidden_act != "gelu_pytorch_tanh":
            raise ConfigError(f"vision config: hidden_act={self.hidden_act!r} is not supported. Use gelu_pytorch_tanh.")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def patch_dim(self) -> int:
        """Number of values in one flattened patch."""
        return self.num_channels * self.patch_size**2

    @property
    def model_type(self) -> str:
        """`model_type` of the encoder's group in config.json."""
        return AVT_TYPE

    @property
    def picture(self) -> None:
        """How pictures are made one size; None, because they keep theirs."""
        return None

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str) -> "VisionConfig":
        """Read a SigLIP, official or transformers vision config; other keys are ignored.

        Raises:
            ConfigError: a size is missing; the message starts with `where`, the file.
        """
        _require_group(data, where)
        names = {field.name for field in fields(cls)}
        missing = [name for name in _REQUIRED_VISION_KEYS if name not in data]
        if missing:
            raise ConfigError(
                f"{where}: the vision config lacks {', '.join(missing)}. They are not filled in, because the defaults "
                "of transformers' class are not the model's sizes. Write the sizes into the file."
            )
        return _build_at(where, cls, {name: value for name, value in data.items() if name in names})

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON data."""
        return asdict(self)


_REQUIRED_VISION_KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


EncoderConfig: TypeAlias = VisionConfig | FixedVisionConfig
"""The any-resolution encoder of the method, or a fixed-resolution one of the ablation (table 9)."""


def read_encoder(data: Any, where: str) -> EncoderConfig:
    """Read the encoder's group of one of our checkpoints; its `model_type` says which kind it is.

    Raises:
        ConfigError: a size is missing or not supported; the message starts with `where`, the file.
    """
    _require_group(data, where)
    if data.get("model_type") in FIXED_TYPES:
        return FixedVisionConfig.from_dict(data, where)
    return VisionConfig.from_dict(data, where)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """Shape of the Qwen2 decoder, with the names of transformers' Qwen2Config."""

    vocab_size: int
    """Rows of the embedding, including padding."""
    hidden_size: int
    """Width."""
    intermediate_size: int
    """Width inside the MLP."""
    num_hidden_layers: int
    """Blocks."""
    num_attention_heads: int
    """Query heads of each block."""
    num_key_value_heads: int
    """Key and value heads of each block."""
    max_position_embeddings: int
    """Number of positions that the decoder was trained for, in tokens."""
    rms_norm_eps: float
    """Epsilon of every RMSNorm."""
    rope_theta: float
    """Base of the rotary frequencies."""
    tie_word_embeddings: bool
    """Whether the output head shares the embedding's weights."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"text config: {name}={getattr(self, name)} must be greater than 0.")
        if self.hidden_size % self.num_attention_heads or self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"text config: hidden_size={self.hidden_size}, num_attention_heads={self.num_attention_heads}, "
                f"num_key_value_heads={self.num_key_value_heads}: each must be a multiple of the next one."
            )

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str) -> "TextConfig":
        """Read a Qwen2 config; the rotary base may be a top-level key or inside `rope_parameters`.

        Raises:
            ConfigError: a size is missing, or the file asks for something that this decoder does not support.
        """
        rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
        _require_group(rope, f"{where}: rope_parameters")
        _refuse_other_decoders(data, rope, where)
        values = {"rope_theta": rope.get("rope_theta"), "tie_word_embeddings": False, **data}
        missing = [field.name for field in fields(cls) if values.get(field.name) is None]
        if missing:
            raise ConfigError(
                f"{where}: the text config lacks {', '.join(missing)}. With a guessed value the model would not load, "
                "or give wrong outputs. Write the values into the file."
            )
        return _build_at(where, cls, {field.name: values[field.name] for field in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON data, as keywords of transformers' Qwen2Config."""
        return asdict(self)


def _refuse_other_decoders(data: dict[str, Any], rope: dict[str, Any], where: str) -> None:
    refused = {
        "hidden_act": (data.get("hidden_act", "silu"), "silu"),
        "use_sliding_window": (data.get("use_sliding_window", False), False),
        "rope_type": (rope.get("rope_type", rope.get("type", "default")), "default"),
        "attention_dropout": (data.get("attention_dropout", 0.0), 0.0),
    }
    for name, (value, expected) in refused.items():
        if value != expected:
            raise ConfigError(
                f"{where}: {name}={value!r} is not supported, only {expected!r}. The outputs would silently differ "
                "from the checkpoint's. Use a plain Qwen2 or Qwen2.5 decoder."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoLlama3Config:
    """The whole model: encoder, decoder, and the projector, whose sizes follow from both."""

    vision: EncoderConfig
    """Shape of the encoder."""
    text: TextConfig
    """Shape of the decoder."""
    image_token_id: int
    """Id of `<image>`, whose embeddings the vision tokens replace."""

    def __post_init__(self) -> None:
        if not 0 <= self.image_token_id < self.text.vocab_size:
            raise ConfigError(
                f"image_token_id={self.image_token_id} is outside the vocabulary of {self.text.vocab_size} rows. "
                "Vision tokens could not be placed in the text. Use a decoder whose embedding has a row for <image>."
            )

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str) -> "VideoLlama3Config":
        """Read an official config.json.

        Raises:
            ConfigError: it belongs to another model, or a value is missing or not supported.
        """
        if data.get("model_type") != MODEL_TYPE:
            raise ConfigError(
                f"{where}: model_type={data.get('model_type')!r} is not {MODEL_TYPE!r}. Give the folder of a "
                "VideoLLaMA3 checkpoint. `vl3 convert` makes one from a transformers checkpoint; stage 1 makes one "
                "from a SigLIP and a Qwen2 folder."
            )
        missing = [name for name in ("vision_encoder_config", "image_token_index") if data.get(name) is None]
        if missing:
            raise ConfigError(f"{where}: {', '.join(missing)} is missing. Copy the whole checkpoint folder again.")
        if data.get("mm_projector_type", PROJECTOR_TYPE) != PROJECTOR_TYPE:
            raise ConfigError(
                f"{where}: mm_projector_type={data['mm_projector_type']!r} is not supported, only {PROJECTOR_TYPE!r}."
            )
        return cls(
            vision=read_encoder(data["vision_encoder_config"], f"{where}: vision_encoder_config"),
            text=TextConfig.from_dict(data, where),
            image_token_id=data["image_token_index"],
        )

    def to_dict(self) -> dict[str, Any]:
        """The official config.json: the decoder's keys at the top level, the encoder's in a group."""
        return {
            "architectures": ["Videollama3Qwen2ForCausalLM"],
            "model_type": MODEL_TYPE,
            **self.text.to_dict(),
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "vision_encoder_config": {"model_type": self.vision.model_type, **self.vision.to_dict()},
            "mm_projector_type": PROJECTOR_TYPE,
            "image_token_index": self.image_token_id,
        }
