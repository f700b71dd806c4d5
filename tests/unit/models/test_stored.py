"""Headers of safetensors and the index of shards, where they contradict themselves."""

import json

import pytest
import torch
from safetensors.torch import save_file

from vl3.errors import ConfigError
from vl3.models.stored import read_headers


def test_headers_say_where_the_bytes_lie(tmp_path):
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4).half()}, tmp_path / "model.safetensors")
    tensors = read_headers(tmp_path)
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("F16", (4,)),
    }
    raw = (tmp_path / "model.safetensors").read_bytes()
    start = tensors["a"].start
    assert raw[start : start + tensors["a"].size_bytes] == torch.arange(6.0).numpy().tobytes()


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    for name in ("1", "2"):
        save_file({"a": torch.ones(1), f"b{name}": torch.ones(1)}, tmp_path / f"model-{name}.safetensors")
    weight_map = {"a": "model-1.safetensors", "b2": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ConfigError, match=r"'a' is in both model-1.safetensors and model-2.safetensors"):
        read_headers(tmp_path)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "model.bin"])
def test_an_index_that_leaves_the_folder_is_refused(tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ConfigError, match=r"is not a safetensors file of this folder"):
        read_headers(tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
    ],
    ids=["length", "type", "negative", "before"],
)
def test_an_entry_that_contradicts_itself_is_damage(tmp_path, entry):
    header = json.dumps({"a": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ConfigError, match=r"model.safetensors is damaged"):
        read_headers(tmp_path)
