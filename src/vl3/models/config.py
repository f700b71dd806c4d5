"""Sizes of the model, read from and written to the official checkpoint's config.json (no torch here)."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from vl3.errors import ConfigError

MODEL_TYPE = "videollama3_qwen2"
"""`model_type` of the official checkpoints."""
PROJECTOR_TYPE = "mlp2x_gelu"
"""The one projector of the released models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionConfig:
    """Shape of the AVT encoder: a SigLIP tower with 2D-RoPE in place of learned positions."""

    hidden_size: int
    """Width."""
    intermediate_size: int
    """Width inside the MLP."""
    num_hidden_layers: int
    """Blocks."""
    num_attention_heads: int
    """Heads of each block."""
    patch_size: int = 14
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
                f"vision config: hidden_size={self.hidden_size} over num_attention_heads={self.num_attention_heads} "
                "gives a head size that is not a multiple of 4; 2D-RoPE halves it for rows and columns and pairs each "
                "half. Choose another number of heads."
            )
        if self.hidden_act != "gelu_pytorch_tanh":
            raise ConfigError(
                f"vision config: hidden_act={self.hidden_act!r} is not the encoder's activation. Use gelu_pytorch_tanh."
            )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        return self.num_channels * self.patch_size**2

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str) -> "VisionConfig":
        """Read a SigLIP, official or transformers vision config; keys of no concern here are passed over.

        Raises:
            ConfigError: a size is missing; where names the file.
        """
        names = {field.name for field in fields(cls)}
        missing = [name for name in _REQUIRED_VISION_KEYS if name not in data]
        if missing:
            raise ConfigError(
                f"{where}: the vision config lacks {', '.join(missing)}. The class defaults are not the model's sizes, "
                "so they are not guessed. Write the sizes into the file."
            )
        return cls(**{name: value for name, value in data.items() if name in names})

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON data."""
        return asdict(self)


_REQUIRED_VISION_KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
