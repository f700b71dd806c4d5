"""Model folders: round trip, names of the official checkpoint, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from vl3.errors import ConfigError, StorageError
from vl3.models.weights import load_model, official_name, save_model


@pytest.fixture
def tokenizer_folder(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("hello")
    (folder / "notes.txt").write_text("not a tokenizer file")
    return folder


@pytest.mark.parametrize("tied", [True, False])
def test_saving_what_was_loaded_gives_the_same_bytes(make_model, make_row, tokenizer_folder, tmp_path, tied):
    model, row = make_model(tied), make_row()
    save_model(model, tokenizer_folder, tmp_path / "first")
    loaded = load_model(tmp_path / "first")
    save_model(loaded, tmp_path / "first", tmp_path / "second")
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    assert loaded(**row).loss_sum.item() == model(**row).loss_sum.item()
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_names_are_the_official_ones(make_model, tokenizer_folder, tmp_path):
    save_model(make_model(), tokenizer_folder, tmp_path / "out")
    names = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert {
        "model.vision_encoder.embeddings.patch_embedding.weight",
        "model.vision_encoder.encoder.layers.1.self_attn.out_proj.bias",
        "model.vision_encoder.post_layernorm.bias",
        "model.mm_projector.readout.2.weight",
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.k_proj.bias",
        "model.norm.weight",
    } <= names
    assert "lm_head.weight" not in names
    assert official_name("lm_head.weight") == "lm_head.weight"


def test_another_type_may_be_asked_for(make_model, tokenizer_folder, tmp_path):
    save_model(make_model(), tokenizer_folder, tmp_path / "out")
    assert {p.dtype for p in load_model(tmp_path / "out", dtype=torch.bfloat16).parameters()} == {torch.bfloat16}


def change(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "1 missing tensor.*'model.norm.weight'"),
        (lambda t: t.update(extra=torch.ones(1)), "1 unknown tensor.*'extra'"),
        (lambda t: t.update({"model.norm.weight": torch.ones(31)}), r"'model.norm.weight' has shape \(31,\)"),
        (lambda t: t.update({"lm_head.weight": torch.ones(48, 32)}), "'lm_head.weight' differs from 'model.embed_tok"),
    ],
    ids=["missing", "surplus", "shape", "head"],
)
def test_wrong_tensors_are_named(make_model, tokenizer_folder, tmp_path, edit, message):
    save_model(make_model(), tokenizer_folder, tmp_path / "out")
    change(tmp_path / "out", edit)
    with pytest.raises(ConfigError, match=message):
        load_model(tmp_path / "out")


def test_a_tied_folder_that_repeats_its_embedding_is_read(make_model, tokenizer_folder, tmp_path):
    save_model(make_model(), tokenizer_folder, tmp_path / "out")
    change(tmp_path / "out", lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert load_model(tmp_path / "out").lm_head is None


def test_a_vocabulary_that_does_not_match_is_named(make_model, tokenizer_folder, tmp_path):
    save_model(make_model(), tokenizer_folder, tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 50}))
    with pytest.raises(ConfigError, match=r"'model.embed_tokens.weight' has shape \(48, 32\).*\(50, 32\)"):
        load_model(tmp_path / "out")


def test_weights_without_a_tokenizer_are_not_saved(make_model, tmp_path):
    with pytest.raises(ConfigError, match=r"has no tokenizer.json"):
        save_model(make_model(), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_a_storage_error(make_model, tokenizer_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        save_model(make_model(), tokenizer_folder, tmp_path / "file" / "out")


def test_weights_that_cannot_be_written_are_a_storage_error(make_model, tokenizer_folder, tmp_path):
    (tmp_path / "out" / "model.safetensors").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"model.safetensors: the weights cannot be written \("):
        save_model(make_model(), tokenizer_folder, tmp_path / "out")
