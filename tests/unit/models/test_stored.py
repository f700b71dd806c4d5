"""Headers of safetensors and the index of shards, where they contradict themselves."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import save_file

from tests.support.documents import changed
from vl3.errors import ConfigError
from vl3.models.stored import read_headers, read_json


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


HEADER = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "pt"}}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed(HEADER))
def test_a_header_of_any_content_is_read_or_refused(data, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(len(data).to_bytes(8, "little") + data + bytes(24))
    try:
        tensors = read_headers(tmp_path)
    except ConfigError:
        return
    assert all(tensor.start + tensor.size_bytes <= len(data) + 32 for tensor in tensors.values())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed({"weight_map": {"a": "model.safetensors"}}))
def test_an_index_of_any_content_leads_to_no_other_folder(data, tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_bytes(data)
    try:
        tensors = read_headers(tmp_path)
    except ConfigError:
        return
    assert {tensor.path for tensor in tensors.values()} <= {tmp_path / "model.safetensors"}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=changed({"model_type": "videollama3", "vision": {"width": 128}}))
def test_a_json_file_of_any_content_is_an_object_or_refused(data, tmp_path):
    (tmp_path / "config.json").write_bytes(data)
    try:
        found = read_json(tmp_path / "config.json")
    except ConfigError:
        return
    assert isinstance(found, dict)
