"""Weights that are read in part and straight to where they belong, and models of which only headers are read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vl3.errors import ConfigError, StorageError
from vl3.models import unread
from vl3.models.shards import Share, read_share
from vl3.models.start import assemble
from vl3.models.stored import check_tensors, read_headers, read_json
from vl3.models.unread import InFile, InMemory, our_name, unread_model
from vl3.models.weights import official_name


@pytest.fixture
def folder(tmp_path):
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}, tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_part_of_a_tensor_is_read_in_chunks_and_converted(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(unread, "CHUNK_BYTES", 10)  # two or five values at once
    values = torch.randn(7, 3).to(dtype)
    save_file({"x": torch.zeros(5), "w": values}, tmp_path / "model.safetensors")
    source = InFile(read_headers(tmp_path)["w"])
    assert (source.shape, source.num_values, source.dtype) == ((7, 3), 21, dtype)
    for first, count in ((0, 21), (4, 9), (20, 1), (7, 0)):
        for wanted in (torch.float32, torch.bfloat16):
            out = torch.empty(count, dtype=wanted)
            source.read_into(out, first)
            assert torch.equal(out, values.flatten()[first : first + count].to(wanted))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
def test_the_shares_of_all_ranks_make_the_whole(ranks):
    values = torch.arange(10.0)
    pieces = []
    for rank in range(ranks):
        share = Share(rank, ranks)
        piece = torch.full((share.size(10),), -1.0)
        read_share(InMemory(values), share, piece)
        assert torch.equal(piece[len(share.values(10)) :], torch.zeros(len(piece) - len(share.values(10))))
        pieces.append(piece)
    assert torch.equal(torch.cat(pieces)[:10], values)
    assert [Share(3, 4).values(10), Share(3, 4).size(10)] == [range(9, 10), 3]
    assert len(Share(6, 7).values(3)) == 0


def test_a_file_that_became_shorter_is_said(folder):
    source = InFile(read_headers(folder)["b"])
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(StorageError, match=r"model\.safetensors became shorter while it was read"):
        source.read_into(torch.empty(4))
    path.unlink()
    with pytest.raises(StorageError, match=r"model\.safetensors: cannot be read"):
        source.read_into(torch.empty(4))


def test_a_model_is_loaded_with_its_own_types_or_another(checkpoint):
    folder = checkpoint(dtype=torch.bfloat16)
    assert {p.dtype for p in unread_model(folder).load().parameters()} == {torch.bfloat16}
    model = unread_model(folder).load(torch.float32)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.training is False
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


def test_our_names_and_the_official_ones_are_each_others_inverse(make_model):
    for tied in (True, False):
        names = [name for name, _ in make_model(tied).named_parameters()]
        assert [our_name(official_name(name)) for name in names] == names


_CHILD = """
import resource, sys, torch
from pathlib import Path
from vl3.models.shards import Share, read_share
from vl3.models.unread import unread_model
model, ranks = unread_model(Path(sys.argv[1])), int(sys.argv[2])
own = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
now = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) * 1024
model.empty()
before, kept, size = now(), [], 0
if ranks == 1:
    kept = model.load(torch.bfloat16)
    size = sum(p.numel() * 2 for p in kept.parameters())
else:
    for source in model.sources.values():
        share = Share(1, ranks)
        piece = torch.empty(share.size(source.num_values), dtype=torch.bfloat16)
        read_share(source, share, piece)
        kept.append(piece)
        size += piece.numel() * 2
print((own() - before) / size, size)
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_loading_takes_hardly_more_memory_than_what_is_loaded(tmp_path, ranks):
    """The host memory of a rank: under 1.2 times its share of a model whose largest tensor is half of it, in fp32."""
    from tests.support.models import text_config, vision_config
    from vl3.models.config import VideoLlama3Config
    from vl3.models.model import VideoLlama3
    from vl3.models.weights import save_tensors

    text = text_config(vocab_size=120_000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=4)
    config = VideoLlama3Config(vision=vision_config(), text=text, image_token_id=40)
    shapes = {official_name(name): p.shape for name, p in VideoLlama3.empty(config).named_parameters()}
    save_tensors({name: torch.zeros(shape) for name, shape in shapes.items()}, config, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path), str(ranks)],
        capture_output=True, text=True, env=dict(os.environ, MALLOC_ARENA_MAX="1"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ratio, size = done.stdout.split()
    assert int(size) > 170e6 / ranks
    assert float(ratio) < 1.2


def test_shards_are_read_through_their_index(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "model-2.safetensors")
    index = '{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    stored = read_headers(tmp_path)
    assert sorted(stored) == ["a", "b"]
    out = torch.empty(2)
    InFile(stored["b"]).read_into(out)
    assert out.tolist() == [1, 1]
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model-2.safetensors is listed in .* but missing"):
        read_headers(tmp_path)


def _check(folder: Path, expected, dropped=()):
    check_tensors(folder, read_headers(folder), expected, dropped)


def test_missing_and_surplus_tensors_are_named(folder):
    with pytest.raises(ConfigError, match=r"1 missing tensor.*'c'; 1 unknown tensor.*'b'"):
        _check(folder, {"a": (2, 3), "c": (1,)})
    _check(folder, {"a": (2, 3)}, dropped=["b"])


def test_a_tensor_of_another_shape_is_named(folder):
    with pytest.raises(ConfigError, match=r"tensor 'a' has shape \(2, 3\) but config.json requires \(3, 2\)"):
        _check(folder, {"a": (3, 2), "b": (4,)})


def test_a_file_that_is_cut_short_names_the_first_lost_tensor(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ConfigError, match="is truncated: tensor 'b' ends at byte"):
        read_headers(folder)


@pytest.mark.parametrize("content", [b"", b"no tensors here, only words", b"\x05\0\0\0\0\0\0\0[1,2]"])
def test_a_damaged_header_is_named(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model.safetensors is damaged: it has no valid safetensors header"):
        read_headers(tmp_path)


def test_a_pickle_is_refused_with_the_reason(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ConfigError, match=r"has pytorch_model.bin .* opening one can run any code"):
        read_headers(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"has no model.safetensors"):
        read_headers(tmp_path)


def test_json_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"config.json does not exist"):
        read_json(tmp_path / "config.json")
    for content, message in (("{", "cannot be read as JSON"), ("[]", "it is a JSON list and not an object")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ConfigError, match=message):
            read_json(tmp_path / "config.json")


def test_the_start_is_read_in_the_type_that_is_asked_for(bases):
    from vl3.models.start import unread_start

    vision, language, _, _ = bases()
    whole = dict(assemble(vision, language, seed=3).named_parameters())
    half = dict(unread_start(vision, language, seed=3).load(torch.bfloat16).named_parameters())
    assert all(torch.equal(half[name], whole[name].to(torch.bfloat16)) for name in whole)
