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
        ([{"role": "user", "content": [video, text]}], render_message("user", "<video>What?", [[0, 1.04]])),
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
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 39
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


IDS = {"bos_token_id": 37, "eos_token_id": 39, "pad_token_id": 37}
WITHOUT_EOS = {
    "_from_model_config": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "transformers_version": "5.23.0",
    "use_cache": True,
}


def set_generation(text):
    return lambda folder: (folder / "generation_config.json").write_text(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps(WITHOUT_EOS), IDS),
        ('{"eos_token_id": 5, "pad_token_id": 10000}', IDS),
        ('{"eos_token_id": [5, 37, 39]}', IDS | {"eos_token_id": [39, 37]}),
        ('{"eos_token_id": "</s>", "bos_token_id": null}', IDS),
        (
            '{"do_sample": true, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}',
            IDS | {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05},
        ),
        ('{"temperature": NaN, "top_p": 2, "top_k": 1.5, "do_sample": "yes", "max_new_tokens": true}', IDS),
        ('{"suppress_tokens": [39], "min_new_tokens": 500, "forced_eos_token_id": 1, "stop_strings": ["a"]}', IDS),
        ("[1]", IDS),
        ("not json", IDS),
    ],
    ids=["no eos", "wrong ids", "several ends", "no ids", "sampling", "bad sampling", "no end", "a list", "noise"],
)
@pytest.mark.parametrize("layout", [Layout.TRANSFORMERS, Layout.OFFICIAL])
def test_an_export_ends_at_the_end_of_a_message_whatever_the_base_says(converted, layout, text, expected):
    folder = converted(layout, set_generation(text))
    assert json.loads((folder / "generation_config.json").read_text()) == expected


def test_a_base_without_settings_of_its_tokenizer_gets_those_of_the_chat_format(converted):
    def edit(folder):
        for name in ("tokenizer_config.json", "generation_config.json", "chat_template.jinja", "chat_template.json"):
            (folder / name).unlink(missing_ok=True)

    tokenizer = AutoTokenizer.from_pretrained(converted(Layout.TRANSFORMERS, edit))
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 39)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|endoftext|>", 37)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n"


def test_a_base_that_ends_elsewhere_does_not_end_the_export_there(converted):
    def edit(folder):
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "pad_token": "<image>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "<image>"}}))
        path = folder / "tokenizer.json"
        data = json.loads(path.read_text())
        data["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
        path.write_text(json.dumps(data))
        set_config(eos_token_id=5, pad_token_id=47, bos_token_id=3)(folder)

    folder = converted(Layout.TRANSFORMERS, edit)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (39, 37)
    assert len(tokenizer.encode("<|im_start|><image><|im_end|><|im_end|>")) == 4
    text = json.loads((folder / "config.json").read_text())["text_config"]
    assert (text["eos_token_id"], text["pad_token_id"], text["bos_token_id"]) == (39, 37, 37)


def test_generate_of_transformers_stops_on_the_exported_folder(converted):
    import torch
    from transformers import AutoModelForImageTextToText, LogitsProcessor

    class Answers(LogitsProcessor):
        """Every answer is three tokens and the end; what follows would be more."""

        def __call__(self, input_ids, scores):
            wanted = 39 if input_ids.shape[1] == 6 else 7
            return torch.full_like(scores, -1e9).index_fill_(1, torch.tensor([wanted]), 0.0)

    folder = converted(Layout.TRANSFORMERS, set_generation(json.dumps(WITHOUT_EOS)))
    model = AutoModelForImageTextToText.from_pretrained(folder)
    found = model.generate(input_ids=torch.tensor([[38, 1, 2]]), max_new_tokens=50, logits_processor=[Answers()])
    assert found[0].tolist() == [38, 1, 2, 7, 7, 7, 39]


def test_a_vocabulary_without_the_end_of_a_message_is_refused(converted):
    def edit(folder):
        path = folder / "tokenizer.json"
        path.write_text(path.read_text().replace("<|im_end|>", "<|other|>"))

    with pytest.raises(ConfigError, match=r"has no <\|im_end\|>, with which every answer ends"):
        converted(Layout.TRANSFORMERS, edit)
