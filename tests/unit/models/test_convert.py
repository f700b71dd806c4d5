"""Conversion between layouts: bytes stay, names change, and what does not fit is named."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3ForConditionalGeneration

from vl3.errors import ConfigError, StorageError
from vl3.models import convert as convert_module
from vl3.models.convert import convert
from vl3.models.layouts.names import Layout
from vl3.models.stored import read_headers
from vl3.models.weights import load_model


def stored_bytes(folder):
    """Type, shape and bytes of every tensor of a folder."""
    return {
        name: (tensor.dtype, tensor.shape, tensor.path.read_bytes()[tensor.start : tensor.start + tensor.size_bytes])
        for name, tensor in read_headers(folder).items()
    }


def edit_tensors(folder, edit):
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("max_shard_bytes", [10**9, 30_000], ids=["one file", "sharded"])
def test_round_trips_keep_every_byte(checkpoint, tmp_path, tied, dtype, max_shard_bytes):
    ours = checkpoint(tied, dtype)
    out = convert(ours, tmp_path / "theirs", Layout.TRANSFORMERS, max_shard_bytes=max_shard_bytes)
    back = convert(tmp_path / "theirs", tmp_path / "back", Layout.OFFICIAL, max_shard_bytes=max_shard_bytes)
    convert(tmp_path / "back", tmp_path / "again", Layout.TRANSFORMERS)
    convert(tmp_path / "again", tmp_path / "end", Layout.OFFICIAL)
    assert (out.source_layout, back.source_layout) == (Layout.OFFICIAL, Layout.TRANSFORMERS)
    assert (out.num_files > 3) == (max_shard_bytes == 30_000)
    wanted = stored_bytes(ours)
    assert {dtype for dtype, _, _ in wanted.values()} == {"F32" if dtype == torch.float32 else "BF16"}
    for name in ("back", "end"):
        assert stored_bytes(tmp_path / name) == wanted
    assert (tmp_path / "end" / "model.safetensors").read_bytes() == (ours / "model.safetensors").read_bytes()
    assert sum(size for _, _, size in ((d, s, len(b)) for d, s, b in wanted.values())) == out.size_bytes


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_what_transformers_saves_again_comes_back_unchanged(checkpoint, tmp_path, tied):
    ours = checkpoint(tied)
    convert(ours, tmp_path / "theirs", Layout.TRANSFORMERS, max_shard_bytes=30_000)
    model, report = VideoLlama3ForConditionalGeneration.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not any(report.values())
    model.save_pretrained(tmp_path / "saved", max_shard_size="30KB")
    (tmp_path / "saved" / "tokenizer.json").write_bytes((tmp_path / "theirs" / "tokenizer.json").read_bytes())
    assert convert(tmp_path / "saved", tmp_path / "back", Layout.OFFICIAL).source_layout == Layout.TRANSFORMERS
    assert stored_bytes(tmp_path / "back") == stored_bytes(ours)
    assert load_model(tmp_path / "back").config == load_model(ours).config


def test_shards_hold_no_more_than_asked_and_are_indexed(checkpoint, tmp_path):
    convert(checkpoint(), tmp_path / "out", Layout.OFFICIAL, max_shard_bytes=30_000)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    held = [[tensor.nbytes for tensor in load_file(file).values()] for file in files]
    sizes = [sum(sizes_bytes) for sizes_bytes in held]
    assert [sizes_bytes for sizes_bytes in held if sum(sizes_bytes) > 30_000] == [[75_264]]  # one tensor is larger
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(sizes)
    assert {name: file.name for file in files for name in load_file(file)} == index["weight_map"]


def test_the_training_repositorys_doubled_prefix_is_read(checkpoint, tmp_path):
    ours = checkpoint()
    wanted = stored_bytes(ours)
    single, doubled = "model.vision_encoder.", "model.vision_encoder.vision_encoder."
    edit_tensors(ours, lambda t: t.update({n.replace(single, doubled): t.pop(n) for n in list(t) if single in n}))
    assert convert(ours, tmp_path / "out", Layout.OFFICIAL).source_layout == Layout.TRAINING
    assert stored_bytes(tmp_path / "out") == wanted


def test_a_tied_folder_that_repeats_its_embedding_loses_the_copy(checkpoint, tmp_path):
    ours = checkpoint()
    wanted = stored_bytes(ours)
    edit_tensors(ours, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    convert(ours, tmp_path / "out", Layout.OFFICIAL)
    assert stored_bytes(tmp_path / "out") == wanted
    edit_tensors(ours, lambda t: t["lm_head.weight"].add_(1))
    with pytest.raises(ConfigError, match=r"'lm_head.weight' differs from 'model.embed_tokens.weight'"):
        convert(ours, tmp_path / "other", Layout.OFFICIAL)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), r"ours: 1 missing tensor\(s\): 'model.norm.weight'"),
        (lambda t: t.update(extra=torch.ones(1)), r"ours: 1 unknown tensor\(s\): 'extra'"),
        (lambda t: t.update({"model.norm.weight": torch.ones(31)}), r"'model.norm.weight' has shape \(31,\).*\(32,\)"),
        (lambda t: t.update({"model.norm.weight": torch.ones(32).char()}), r"'model.norm.weight' has type I8"),
        (lambda t: t.update({"lm_head.weight": torch.ones(2, 2)}), r"'lm_head.weight' differs"),
    ],
    ids=["missing", "surplus", "shape", "quantised", "head"],
)
def test_wrong_tensors_are_named_and_nothing_is_written(checkpoint, tmp_path, edit, message):
    ours = checkpoint()
    edit_tensors(ours, edit)
    with pytest.raises(ConfigError, match=message):
        convert(ours, tmp_path / "out", Layout.TRANSFORMERS)
    assert not list(tmp_path.glob("out*"))


def test_an_untied_config_needs_a_head(checkpoint, tmp_path):
    ours = checkpoint()
    edit_json(ours / "config.json", tie_word_embeddings=False)
    with pytest.raises(ConfigError, match=r"1 missing tensor\(s\): 'lm_head.weight'"):
        convert(ours, tmp_path / "out", Layout.TRANSFORMERS)


def test_another_model_is_refused(checkpoint, tmp_path):
    ours = checkpoint()
    edit_json(ours / "config.json", model_type="qwen2")
    with pytest.raises(ConfigError, match=r"model_type='qwen2' is neither 'videollama3_qwen2' .* nor 'video_llama_3'"):
        convert(ours, tmp_path / "out", Layout.TRANSFORMERS)


def test_a_pickle_is_refused_with_reason_and_remedy(checkpoint, tmp_path):
    ours = checkpoint()
    (ours / "model.safetensors").rename(ours / "pytorch_model.bin")
    with pytest.raises(
        ConfigError, match=r"pytorch_model.bin .*opening one can run any code.*Convert it to safetensors"
    ):
        convert(ours, tmp_path / "out", Layout.TRANSFORMERS)


def test_a_size_that_no_file_can_keep_is_refused(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="max_shard_bytes=0 must be greater than 0"):
        convert(checkpoint(), tmp_path / "out", Layout.TRANSFORMERS, max_shard_bytes=0)


def test_a_target_that_holds_something_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(StorageError, match=r"out exists and is not empty. It is never overwritten"):
        convert(checkpoint(), tmp_path / "out", Layout.TRANSFORMERS)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_full_disk_is_named_and_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    ours = checkpoint()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"model.safetensors: the disk is full \(\d+ bytes were to be written\)"):
        convert(ours, tmp_path / "out", Layout.TRANSFORMERS)
    assert not list(tmp_path.glob("out*"))


def test_too_little_space_is_seen_before_anything_is_written(checkpoint, tmp_path, monkeypatch):
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("vl3.system.files.shutil.disk_usage", lambda _: free)
    with pytest.raises(StorageError, match=r"0 MB are free and 0 MB are needed for the converted checkpoint out"):
        convert(checkpoint(), tmp_path / "out", Layout.TRANSFORMERS)
    assert not list(tmp_path.glob("out*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from vl3.models import convert as module

copied = []
copy = module._copy

def dies(tensor, file):
    copied.append(tensor)
    if len(copied) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    copy(tensor, file)

module._copy = dies
module.convert(Path(sys.argv[1]), Path(sys.argv[2]), module.Layout.TRANSFORMERS, max_shard_bytes=30_000)
"""


def test_a_kill_leaves_nothing_that_loads_and_the_next_attempt_succeeds(checkpoint, tmp_path):
    ours, out = checkpoint(), tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, str(ours), str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    partial = tmp_path / "out.partial"
    assert not out.exists()
    assert list(partial.glob("*.safetensors"))
    with pytest.raises(ConfigError, match=r"config.json does not exist"):
        load_model(partial)
    with pytest.raises(OSError, match=r"no file named model.safetensors"):
        VideoLlama3ForConditionalGeneration.from_pretrained(partial)
    convert(ours, out, Layout.TRANSFORMERS)
    assert not partial.exists()
    assert not list(out.glob("*-of-*"))


def test_a_source_that_shrinks_while_it_is_read_is_named(checkpoint, tmp_path, monkeypatch):
    ours = checkpoint()
    write = convert_module._write_shards

    def shrink(shards, folder):
        os.truncate(ours / "model.safetensors", 5000)
        write(shards, folder)

    monkeypatch.setattr(convert_module, "_write_shards", shrink)
    with pytest.raises(ConfigError, match=r"model.safetensors became shorter while it was read"):
        convert(ours, tmp_path / "out", Layout.TRANSFORMERS)
    assert not list(tmp_path.glob("out*"))
