"""Model configurations from and to config.json."""

import pytest

from vl3.errors import ConfigError
from vl3.models.config import TextConfig, VideoLlama3Config, VisionConfig

OFFICIAL_2B = {
    "model_type": "videollama3_qwen2",
    "vocab_size": 151936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "rope_scaling": None,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "sliding_window": None,
    "use_token_compression": True,
    "mm_projector_type": "mlp2x_gelu",
    "image_token_index": 151665,
    "vision_encoder_config": {
        "model_type": "videollama3_vision_encoder",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "patch_size": 14,
    },
}


def test_the_official_2b_file_is_read():
    config = VideoLlama3Config.from_dict(OFFICIAL_2B, "config.json")
    assert config.vision.head_dim == 72
    assert config.vision.patch_dim == 588
    assert config.text.rope_theta == 1e6
    assert config.text.tie_word_embeddings is True
    assert config.image_token_id == 151665


def test_writing_and_reading_give_the_same_config(make_config):
    config = make_config(tied=False)
    assert VideoLlama3Config.from_dict(config.to_dict(), "config.json") == config


def test_rope_theta_inside_rope_parameters_is_read():
    data = {**OFFICIAL_2B, "rope_parameters": {"rope_theta": 300.0, "rope_type": "default"}}
    del data["rope_theta"]
    assert TextConfig.from_dict(data, "x").rope_theta == 300.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2"}, "model_type='qwen2' is not 'videollama3_qwen2'"),
        ({"mm_projector_type": "linear"}, "mm_projector_type='linear'"),
        ({"image_token_index": 151936}, "image_token_id=151936 is outside the vocabulary of 151936 rows"),
        ({"use_sliding_window": True}, "use_sliding_window=True is not supported"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "rope_type='yarn' is not supported"),
        ({"rope_theta": None}, "text config lacks rope_theta"),
        ({"num_key_value_heads": 5}, "num_key_value_heads=5: each must be a multiple of the next"),
        ({"hidden_size": 0}, "hidden_size=0 must be greater than 0"),
        ({"vision_encoder_config": {"hidden_size": 1152}}, "lacks intermediate_size, num_hidden_layers"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(ConfigError, match=message):
        VideoLlama3Config.from_dict(OFFICIAL_2B | change, "config.json")


def test_a_missing_group_is_named():
    data = {name: value for name, value in OFFICIAL_2B.items() if name != "vision_encoder_config"}
    with pytest.raises(ConfigError, match=r"config.json: vision_encoder_config is missing"):
        VideoLlama3Config.from_dict(data, "config.json")


def test_heads_that_2d_rope_cannot_halve_are_refused():
    with pytest.raises(ConfigError, match="hidden_size=36 / num_attention_heads=2 is not a multiple of 4"):
        VisionConfig(hidden_size=36, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)


def test_another_activation_is_refused():
    with pytest.raises(ConfigError, match="hidden_act='relu'"):
        VisionConfig(hidden_size=32, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, hidden_act="relu")
