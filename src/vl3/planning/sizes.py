"""Sizes of the model that a recipe trains: read from its bases, or those that are published for the hub's."""

from vl3.models.config import TextConfig, VideoLlama3Config, VisionConfig

_SO400M = VisionConfig(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16)
"""config.json of google/siglip-so400m-patch14-384."""
_QWEN25_1_5B = TextConfig(
    vocab_size=151936,
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    max_position_embeddings=32768,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    tie_word_embeddings=True,
)
"""config.json of Qwen/Qwen2.5-1.5B-Instruct."""
_QWEN25_7B = TextConfig(
    vocab_size=152064,
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    max_position_embeddings=32768,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    tie_word_embeddings=False,
)
"""config.json of Qwen/Qwen2.5-7B-Instruct."""

PUBLISHED = {
    "vl3_2b": VideoLlama3Config(vision=_SO400M, text=_QWEN25_1_5B, image_token_id=151665),
    "vl3_7b": VideoLlama3Config(vision=_SO400M, text=_QWEN25_7B, image_token_id=151665),
}
"""The two models of the paper (arXiv 2501.13106)."""
