"""Bases in the formats of the real ones: what is taken, and what is refused by file, tensor and numbers."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.real_bases import text_sizes, vision_sizes, write_qwen, write_siglip, write_tokenizer
from vl3.errors import ConfigError
from vl3.models.bases import check_bases, check_chat_tokens, open_language, open_vision
from vl3.models.config import VideoLlama3Config
from vl3.models.convert import convert
from vl3.models.imports import describe, import_base
from vl3.models.layouts.names import Layout
from vl3.models.start import assemble
from vl3.models.weights import save_model
from vl3.store.artifacts import fetch

SMALL_VISION = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
SMALL_TEXT = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}


def siglip(folder: Path, **options) -> Path:
    write_siglip(folder, vision_sizes(**SMALL_VISION), **options)
    return folder


def qwen(folder: Path, vocabulary: int = 1200, **options) -> Path:
    write_qwen(folder, text_sizes(vocabulary=vocabulary, **SMALL_TEXT), **options)
    return folder


@pytest.mark.parametrize(
    ("vision", "language"),
    [
        ({"whole": True}, {"shards": 3}),
        ({"dtype": torch.bfloat16}, {"dtype": torch.float32, "with_head": True}),
    ],
)
def test_the_real_formats_are_taken(tmp_path, vision, language):
    encoder, decoder = siglip(tmp_path / "v", **vision), qwen(tmp_path / "l", **language)
    config = check_bases(encoder, decoder, vision_width=64)
    assert (config.vision.num_hidden_layers, config.text.vocab_size) == (2, 1200)
    assert config.image_token_id == 1200 - 293 + 22
    check_chat_tokens(decoder, 1200)
    model = assemble(encoder, decoder, seed=0)
    name = "embeddings.patch_embedding.weight"
    stored = load_file(encoder / "model.safetensors")
    wanted = stored.get(f"vision_model.{name}", stored.get(name))
    assert torch.equal(model.vision_encoder.get_parameter(name), wanted.float())


@pytest.mark.parametrize("layout", [Layout.OFFICIAL, Layout.TRANSFORMERS])
def test_the_encoder_of_a_video_llama_is_taken_from_either_layout(tmp_path, layout):
    encoder, decoder = siglip(tmp_path / "v"), qwen(tmp_path / "l")
    write_full_tokenizer(decoder)
    model = assemble(encoder, decoder, seed=0)
    save_model(model, decoder, tmp_path / "ours")
    folder = tmp_path / "ours"
    if layout is Layout.TRANSFORMERS:
        folder = tmp_path / "theirs"
        convert(tmp_path / "ours", folder, layout, max_shard_bytes=200_000)
        assert len(list(folder.glob("*.safetensors"))) > 1
    assert open_vision(folder).config == vision_sizes(**SMALL_VISION)
    again = assemble(folder, decoder, seed=1)
    for name, parameter in model.vision_encoder.named_parameters():
        assert torch.equal(again.vision_encoder.get_parameter(name), parameter)
    assert describe(folder) == "VideoLLaMA3, encoder 64 and decoder 64 wide"


def write_full_tokenizer(folder: Path) -> None:
    """With the placeholders that transformers' layout needs."""
    data = json.loads((folder / "tokenizer.json").read_text())
    for token, name in zip(data["added_tokens"][3:], ("<|image_pad|>", "<|video_pad|>"), strict=False):
        token["content"] = name
    (folder / "tokenizer.json").write_text(json.dumps(data))


def _config(**changes):
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def _tensor(name: str, tensor: torch.Tensor | None):
    def edit(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
        save_file(tensors, path)

    return edit


def _cut(folder: Path) -> None:
    path = next(iter(folder.glob("*.safetensors")))
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_config(hidden_size=128), r"tensor '.*' has shape \(64,.*\) but config.json requires \(128,"),
        (
            _config(patch_size=16),
            r"config\.json: the encoder's patch_size is 16, but vl3 prepares media in patches of 14",
        ),
        (_config(hidden_act="quick_gelu"), "hidden_act='quick_gelu' is not supported"),
        (
            _config(model_type="clip"),
            r"the encoder \(clip\) takes pictures of one size only.*Set model.picture_side_px=",
        ),
        (_tensor("post_layernorm.weight", None), "there is no tensor 'post_layernorm.weight' with any known prefix"),
        (_tensor("encoder.layers.1.mlp.fc1.bias", None), "1 missing tensor.*'encoder.layers.1.mlp.fc1.bias'"),
        (
            _tensor("encoder.layers.0.mlp.fc1.bias", torch.zeros(96, dtype=torch.int8)),
            "tensor 'encoder.layers.0.mlp.fc1.bias' has type I8, not one of F64, F32, F16, BF16",
        ),
        (_cut, r"model\.safetensors is truncated: tensor '.*' ends at byte \d+ but the file has \d+"),
    ],
)
def test_another_or_a_damaged_encoder_is_refused(tmp_path, damage, message):
    folder = siglip(tmp_path / "v")
    damage(folder)
    with pytest.raises(ConfigError, match=message):
        open_vision(folder)


def test_an_encoder_of_another_width_is_refused_with_both_numbers(tmp_path):
    with pytest.raises(ConfigError, match=r"the encoder is 64 wide \(hidden_size\), but the recipe asks for 1152") as e:
        open_vision(siglip(tmp_path / "v"), width=1152)
    assert "set model.vision_width=64 if this one is meant" in str(e.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_config(model_type="llama"), "model_type='llama' is not 'qwen2'"),
        (_config(vocab_size=999), r"'model.embed_tokens.weight' has shape \(1200, 64\) but .* requires \(999, 64\)"),
        (_config(num_key_value_heads=4), r"k_proj.weight' has shape \(32, 64\) but config.json requires \(64, 64\)"),
        (_config(use_sliding_window=True), "use_sliding_window=True is not supported"),
        (
            _tensor("lm_head.weight", torch.ones(1200, 64)),
            "tie_word_embeddings is true but tensor 'lm_head.weight' dif",
        ),
    ],
)
def test_another_decoder_is_refused(tmp_path, damage, message):
    folder = qwen(tmp_path / "l")
    damage(folder)
    with pytest.raises(ConfigError, match=message):
        open_language(folder)


def test_a_shard_that_is_missing_or_damaged_is_named(tmp_path):
    folder = qwen(tmp_path / "l", shards=3)
    path = folder / "model-00002-of-00003.safetensors"
    content = path.read_bytes()
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ConfigError, match=r"model-00002-of-00003\.safetensors is damaged: it has no valid safetensors"):
        open_language(folder)
    path.write_bytes(content[:-1])
    with pytest.raises(ConfigError, match=r"model-00002-of-00003\.safetensors is truncated"):
        open_language(folder)
    path.unlink()
    with pytest.raises(ConfigError, match=r"model-00002-of-00003\.safetensors is listed in .* but missing"):
        open_language(folder)


def test_a_tokenizer_that_does_not_fit_the_embedding_is_refused(tmp_path):
    folder = qwen(tmp_path / "l")
    write_tokenizer(folder, 1800)
    with pytest.raises(ConfigError, match=r"image_token_id=1529 is outside the vocabulary of 1200 rows"):
        check_bases(siglip(tmp_path / "v"), folder)
    with pytest.raises(ConfigError, match=r"the highest id is 1529 .*but the embedding has 1200 rows"):
        check_chat_tokens(folder, 1200)


def test_a_base_is_published_once_with_what_it_came_from(tmp_path):
    folder, target = qwen(tmp_path / "l", shards=2), (tmp_path / "store" / "qwen").as_uri()
    (folder / "pytorch_model.bin").write_bytes(b"\x80")
    brought = import_base(folder.as_uri(), target)
    assert brought.what == "Qwen2 decoder, 2 blocks, 64 wide, 1200 rows"
    names = {path.name for path in fetch(brought.reference).iterdir()}
    assert "pytorch_model.bin" not in names
    assert {"config.json", "tokenizer.json", "model.safetensors.index.json", "manifest.json"} <= names
    assert import_base(folder.as_uri(), target).reference == brought.reference
    _config(initializer_range=1.0)(folder)
    with pytest.raises(ConfigError, match="store/qwen: another base is there, whose files differ"):
        import_base(folder.as_uri(), target)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="model_type='llama' is nothing that a run can start from"):
        import_base(folder.as_uri(), (tmp_path / "other").as_uri())


def test_sizes_of_the_real_vocabulary_have_room_for_the_methods_tokens():
    config = VideoLlama3Config(vision=vision_sizes(), text=text_sizes(), image_token_id=151_665)
    assert math.prod((config.text.vocab_size, config.text.hidden_size)) == 233_373_696
