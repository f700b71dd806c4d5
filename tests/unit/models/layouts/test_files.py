"""Tokenizer, template and generation files beside converted weights."""

import json

import jinja2
import pytest
from transformers import AutoTokenizer

from vl3.data.sample.chat import ASSISTANT_HEADER, render_message, render_stream_frame
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import ConfigError
from vl3.models.convert import convert
from vl3.models.layouts.names import Layout


@pytest.fixture
def converted(checkpoint, tmp_path):
    """Converts a fresh checkpoint and returns the new folder."""

    def make(layout, edit=lambda folder: None):
        ours = checkpoint()
        edit(ours)
        convert(ours, tmp_path / layout, layout)
        return tmp_path / layout

    return make


def rendered(folder, messages, **options):
    path = folder / "chat_template.json"
    text = (
        json.loads(path.read_text())["chat_template"] if path.exists() else (folder / "chat_template.jinja").read_text()
    )
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(text).render(messages=messages, **options)


def test_the_official_template_gives_our_strings(converted):
    folder = converted(Layout.OFFICIAL)
    text = {"type": "text", "text": "What?"}
    video = {"type": "video", "num_frames": 2, "timestamps": [0, 1.04]}
    cases = [
        ([{"role": "user", "content": "Hi"}], render_message("user", "Hi")),
        ([{"role": "user", "content": [{"type": "image"}, text]}], render_message("user", "<image>What?")),
        ([{"role": "user", "content": [video, text]}], render_message("user", "<video>What?", [0, 1.04])),
        ([{"role": "stream", "content": [{"type": "image", "timestamp": 3}]}], render_stream_frame(3.0)),
    ]
    for messages, ours in cases:
        found = rendered(folder, messages, image_token="<image>", add_generation_prompt=True)
        assert found == ours.text + ASSISTANT_HEADER


def test_the_template_for_transformers_leaves_the_places_to_its_processor(converted):
    folder = converted(Layout.TRANSFORMERS)
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "stream", "content": [{"type": "image", "timestamp": 3}]},
    ]
    assert rendered(folder, messages) == (
        "<|im_start|>user\n<|image_pad|>\n<|video_pad|>\nWhat?<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n"
        "<|stream_start|>stream\nTime 3.0s: <|image_pad|>\n<|stream_end|>"
    )
    assert rendered(folder, messages[1:2], add_system_prompt=True).startswith("<|im_start|>system\nYou are VideoLLaMA3")


def test_places_of_images_and_videos_have_ids(converted):
    folder = converted(Layout.TRANSFORMERS)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_tokens_to_ids(["<image>", "<|image_pad|>", "<|video_pad|>"]) == [40, 43, 44]
    assert (config["image_token_id"], config["video_token_id"]) == (43, 44)
    text = "<|im_start|>\u4e00<image><|video_pad|><|stream_end|>\u4e05<|im_end|>"
    assert tokenizer.encode(text) == ChatTokenizer.from_folder(folder).encode(text) == [38, 0, 40, 44, 42, 5, 39]
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 37, "eos_token_id": 39, "pad_token_id": 37}


def test_settings_of_the_source_are_kept_where_they_mean_the_same(converted):
    def edit(folder):
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 77,
            "auto_map": {"AutoProcessor": "code.Processor"},
            "chat_template": "old",
            "added_tokens_decoder": {"40": {"content": "<image>", "special": True}},
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        (folder / "added_tokens.json").write_text('{"<image>": 40}')
        (folder / "generation_config.json").write_text('{"eos_token_id": 5}')
        (folder / "merges.txt").write_text("merges")

    folder = converted(Layout.TRANSFORMERS, edit)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 77
    assert settings["processor_class"] == "VideoLlama3Processor"
    assert "auto_map" not in settings
    assert "chat_template" not in settings
    assert [token["content"] for token in settings["added_tokens_decoder"].values()][-1] == "<|video_pad|>"
    assert json.loads((folder / "added_tokens.json").read_text())["<|video_pad|>"] == 44
    assert json.loads((folder / "generation_config.json").read_text()) == {"eos_token_id": 5}
    assert (folder / "merges.txt").read_text() == "merges"


def set_config(**values):
    def edit(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return edit


def add_words(count):
    def edit(folder):
        path = folder / "tokenizer.json"
        data = json.loads(path.read_text())
        data["added_tokens"] += [{"id": 41 + index, "content": f"word{index}"} for index in range(count)]
        path.write_text(json.dumps(data))

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_config(image_token_index=39), r"image_token_index=39 but .*tokenizer.json gives <image> the id 40"),
        (set_config(image_token_index=48), r"image_token_id=48 is outside the vocabulary of 48 rows"),
        (add_words(9), r"the highest id is 53 \(with .*<\|video_pad\|> added\) but the embedding has 48 rows"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer.json does not exist"),
    ],
    ids=["other id", "outside", "too many", "none"],
)
def test_a_tokenizer_that_does_not_fit_is_refused(converted, edit, message):
    with pytest.raises(ConfigError, match=message):
        converted(Layout.TRANSFORMERS, edit)


def test_a_folder_of_transformers_whose_places_have_other_ids_is_refused(converted, tmp_path):
    folder = converted(Layout.TRANSFORMERS)
    set_config(video_token_id=41)(folder)
    with pytest.raises(ConfigError, match=r"video_token_id=41 but .*gives <\|video_pad\|> the id 44"):
        convert(folder, tmp_path / "back", Layout.OFFICIAL)
