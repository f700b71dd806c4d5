"""Reading safetensors folders, and refusing what is damaged or is a pickle."""

import json

import pytest
import torch
from safetensors.torch import save_file

from vl3.errors import ConfigError
from vl3.models.stored import read_json
from vl3.models.tensors import TensorFolder


@pytest.fixture
def folder(tmp_path):
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}, tmp_path / "model.safetensors")
    return tmp_path


def test_tensors_are_read_by_name(folder):
    source = TensorFolder(folder)
    assert source.names == ["a", "b"]
    assert source.shape("a") == (2, 3)
    assert source.read("a").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert source.read("b", torch.bfloat16).dtype == torch.bfloat16


def test_shards_are_read_through_their_index(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    source = TensorFolder(tmp_path)
    assert source.names == ["a", "b"]
    assert source.read("b").tolist() == [1, 1]
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model-2.safetensors is listed in .* but missing"):
        TensorFolder(tmp_path)


def test_missing_and_surplus_tensors_are_named(folder):
    with pytest.raises(ConfigError, match=r"1 missing tensor.*'c'; 1 unknown tensor.*'b'"):
        TensorFolder(folder).check({"a": (2, 3), "c": (1,)})
    TensorFolder(folder).check({"a": (2, 3)}, dropped=["b"])


def test_a_tensor_of_another_shape_is_named(folder):
    with pytest.raises(ConfigError, match=r"tensor 'a' has shape \(2, 3\) but config.json requires \(3, 2\)"):
        TensorFolder(folder).check({"a": (3, 2), "b": (4,)})


def test_a_file_that_is_cut_short_names_the_first_lost_tensor(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ConfigError, match="is truncated: tensor 'b' ends at byte"):
        TensorFolder(folder)


@pytest.mark.parametrize("content", [b"", b"no tensors here, only words", b"\x05\0\0\0\0\0\0\0[1,2]"])
def test_a_damaged_header_is_named(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model.safetensors is damaged: it has no valid safetensors header"):
        TensorFolder(tmp_path)


def test_a_pickle_is_refused_with_the_reason(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ConfigError, match=r"has pytorch_model.bin .* opening one can run any code"):
        TensorFolder(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"has no model.safetensors"):
        TensorFolder(tmp_path)


def test_json_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"config.json does not exist"):
        read_json(tmp_path / "config.json")
    for content, message in (("{", "cannot be read as JSON"), ("[]", "it is a JSON list and not an object")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ConfigError, match=message):
            read_json(tmp_path / "config.json")
