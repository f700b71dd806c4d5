"""Sizes of the smallest models that have every part."""

from typing import Any

from vl3.models.config import TextConfig, VisionConfig


def text_config(**changes: Any) -> TextConfig:
    """A decoder of one block, 32 wide, over 48 tokens."""
    sizes: dict[str, Any] = {
        "vocab_size": 48,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 300.0,
        "tie_word_embeddings": True,
    }
    return TextConfig(**sizes | changes)


def vision_config(**changes: Any) -> VisionConfig:
    """An encoder of one block, 32 wide."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    return VisionConfig(**sizes | changes)
