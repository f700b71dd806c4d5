"""Names, shapes and config.json of the layouts."""

import pytest
from transformers.models.video_llama_3.configuration_video_llama_3 import VideoLlama3Config as TheirConfig

from vl3.errors import ConfigError
from vl3.models.layouts.names import (
    Layout,
    carried_values,
    detect_layout,
    expected_shapes,
    official_config,
    read_config,
    stored_name,
    transformers_config,
)
from vl3.models.model import VideoLlama3
from vl3.models.weights import official_name


@pytest.mark.parametrize("tied", [True, False])
def test_expected_shapes_are_those_of_the_model(make_config, tied):
    config = make_config(tied)
    model = VideoLlama3.empty(config)
    wanted = {official_name(name): tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert expected_shapes(config) == wanted


@pytest.mark.parametrize(
    ("official", "training", "theirs"),
    [
        ("model.vision_encoder.a", "model.vision_encoder.vision_encoder.a", "model.vision_model.a"),
        ("model.mm_projector.readout.0.bias", "model.mm_projector.readout.0.bias", "model.projector.readout.0.bias"),
        ("model.layers.0.a", "model.layers.0.a", "model.language_model.layers.0.a"),
        ("lm_head.weight", "lm_head.weight", "lm_head.weight"),
    ],
)
def test_names_of_each_layout(official, training, theirs):
    layouts = (Layout.OFFICIAL, Layout.TRAINING, Layout.TRANSFORMERS)
    assert [stored_name(official, layout) for layout in layouts] == [official, training, theirs]


@pytest.mark.parametrize("tied", [True, False])
def test_config_survives_transformers_and_the_way_back(make_config, tmp_path, tied):
    config = make_config(tied)
    carried = {"bos_token_id": 3, "eos_token_id": 4, "initializer_range": 0.01}
    data = transformers_config(config, carried, "BF16", image_pad_id=43, video_pad_id=44)
    theirs = TheirConfig.from_dict(data)
    assert theirs.text_config.rope_parameters == {"rope_type": "default", "rope_theta": 300.0}
    assert (theirs.text_config.eos_token_id, theirs.tie_word_embeddings) == (4, tied)
    theirs.save_pretrained(tmp_path)
    for form in (data, theirs.to_dict()):
        assert read_config(form, Layout.TRANSFORMERS, config.image_token_id, "config.json") == config
        assert carried.items() <= carried_values(form, Layout.TRANSFORMERS).items()
    official = official_config(config, carried, "BF16", difffp=False)
    assert (official["torch_dtype"], official["use_token_compression"]) == ("bfloat16", False)
    assert read_config(official, Layout.OFFICIAL, 0, "config.json") == config
    assert carried_values(official, Layout.OFFICIAL) == carried


def test_the_encoder_that_the_training_repository_names_is_known(make_config):
    data = make_config().to_dict() | {
        "vision_encoder_config": None,
        "vision_encoder": "DAMO-NLP-SG/SigLIP-NaViT",
    }
    vision = read_config(data, Layout.TRAINING, 0, "config.json").vision
    assert (vision.hidden_size, vision.num_hidden_layers, vision.head_dim) == (1152, 27, 72)
    with pytest.raises(ConfigError, match="vision_encoder_config is missing"):
        read_config(data | {"vision_encoder": "other/encoder"}, Layout.TRAINING, 0, "config.json")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("text_config"), "config.json: text_config is missing"),
        (lambda d: d["vision_config"].pop("patch_size"), "vision_config: patch_size is missing"),
        (lambda d: d["text_config"].pop("vocab_size"), "text_config: the text config lacks vocab_size"),
        (lambda d: d["text_config"].update(use_sliding_window=True), "use_sliding_window=True is not supported"),
        (lambda d: d["vision_config"].update(patch_size=[14, 14]), r"patch_size=\[14, 14\]"),
    ],
)
def test_a_config_of_transformers_that_lacks_or_asks_too_much_is_refused(make_config, edit, message):
    data = transformers_config(make_config(), {}, "F32", image_pad_id=43, video_pad_id=44)
    edit(data)
    with pytest.raises(ConfigError, match=message):
        read_config(data, Layout.TRANSFORMERS, 40, "config.json")


def test_layouts_are_told_apart():
    doubled = ["model.vision_encoder.vision_encoder.post_layernorm.bias"]
    assert detect_layout({"model_type": "videollama3_qwen2"}, [], "c") == Layout.OFFICIAL
    assert detect_layout({"model_type": "videollama3_qwen2"}, doubled, "c") == Layout.TRAINING
    assert detect_layout({"model_type": "video_llama_3"}, [], "c") == Layout.TRANSFORMERS
