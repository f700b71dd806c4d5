"""The weights that a stage publishes: the same bytes at any number of ranks, in shards, in the type asked for."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.checkpoints import make_trainer, open_checkpoints
from vl3.config.stages import LearningRates, LoraConfig
from vl3.models.lora import add_adapters, merge_adapters
from vl3.models.stored import read_headers
from vl3.models.unread import InMemory
from vl3.models.weights import load_model, official_name
from vl3.store.artifacts import fetch, find
from vl3.training import publication as publication_module
from vl3.training.engine import TrainingEngine
from vl3.training.events import EventLog
from vl3.training.fragments import WEIGHTS
from vl3.training.optimizer_groups import freeze_parts, parameter_groups, trainable_parameters
from vl3.training.publication import Destination, Publication, cut_into_shards
from vl3.training.saver import Saver
from vl3.training.snapshot import EngineState

pytestmark = pytest.mark.usefixtures("process_group")
RATES = LearningRates(vision=None, projector=1e-3, language=1e-3)
Publish = Callable[..., Path]


@pytest.fixture
def publish(make_model: Callable[[], Any], make_config: Callable[..., Any], tmp_path: Path) -> Publish:
    """Publishes the weights of a model with a frozen encoder as some number of ranks would; returns the folder."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")

    def call(uri: str, *, dtype: str = "fp32", ranks: int = 1, lora: bool = False, **engine: Any) -> Path:
        model = make_model()
        sources = {name: InMemory(one.detach().clone()) for name, one in model.named_parameters()}
        if lora:
            adapt(model)
        parts = model.parts()
        freeze_parts(parts, RATES, adapters_only=lora)
        made = [Publication(model, sources, dtype=dtype, rank=rank, world_size=ranks) for rank in range(ranks)]
        named, groups = trainable_parameters(parts), parameter_groups(parts, RATES, weight_decay=0.0)
        state = EngineState(TrainingEngine(model, groups, make_config(**engine), rows_per_rank=1).deepspeed, named)
        checkpoints = open_checkpoints(tmp_path / uri.rpartition("/")[2])
        with contextlib.closing(Saver(checkpoints, state, EventLog(None), rank=0, world_size=1)) as saver:
            saver.has_room(8)
            saver.save(make_trainer(8), (WEIGHTS,))
            assert saver.settle(0) == ""
        to = Destination(
            uri=uri,
            work_uri=f"{uri}-work",
            tokenizer_folder=tmp_path / "tokenizer",
            run={"stage": "video"},
            created_by={"step": "train"},
            made_from={},
        )
        stored: dict[str, Any] = {}
        for one in made[1:]:
            stored |= one._write_shards(checkpoints, 8, to)
        stored |= made[0]._write_shards(checkpoints, 8, to)
        made[0]._publish(to, stored)
        reference = find(uri)
        assert reference is not None
        return fetch(reference, cache=tmp_path / "cache")

    return call


def adapt(model: Any) -> None:
    """Add adapters that change something."""
    add_adapters(model, LoraConfig(rank=2), seed=3)
    torch.manual_seed(4)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_limit_cuts_names_in_order() -> None:
    assert cut_into_shards({"c": 8, "a": 6, "b": 4}, 10) == {
        "model-00001-of-00002.safetensors": ["a", "b"], "model-00002-of-00002.safetensors": ["c"],
    }  # fmt: skip
    assert cut_into_shards({"a": 6, "b": 4}, 10) == {"model.safetensors": ["a", "b"]}
    assert cut_into_shards({"a": 60, "b": 4}, 10) == {
        "model-00001-of-00002.safetensors": ["a"], "model-00002-of-00002.safetensors": ["b"],
    }  # fmt: skip


def test_one_two_and_three_ranks_publish_the_same_bytes(
    publish: Publish, make_model: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication_module, "SHARD_BYTES", 40_000)
    one, two = publish((tmp_path / "one").as_uri()), publish((tmp_path / "two").as_uri(), ranks=2)
    three = publish((tmp_path / "three").as_uri(), ranks=3, zero_stage=3)
    assert content(one) == content(two) == content(three)
    assert "model.safetensors.index.json" in content(one)
    assert len(list(one.glob("model-0*.safetensors"))) > 2
    first = dict(make_model().named_parameters())
    again = dict(load_model(one).named_parameters())
    assert set(again) == set(first)
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_masters_are_published_unrounded_and_a_release_in_bf16(publish: Publish, tmp_path: Path) -> None:
    plain = load_file(publish((tmp_path / "plain").as_uri()) / "model.safetensors")
    masters = load_file(publish((tmp_path / "masters").as_uri(), precision="bf16") / "model.safetensors")
    release = load_file(publish((tmp_path / "release").as_uri(), precision="bf16", dtype="bf16") / "model.safetensors")
    assert {tensor.dtype for tensor in masters.values()} == {torch.float32}
    frozen = [name for name in plain if "vision_encoder" in name]
    assert frozen
    assert all(torch.equal(masters[name], plain[name]) for name in frozen), "what is not trained is not rounded"
    assert {tensor.dtype for tensor in release.values()} == {torch.bfloat16}
    assert all(torch.equal(release[name], masters[name].bfloat16()) for name in masters)


def test_adapters_are_merged_as_in_one_process(
    publish: Publish, make_model: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication_module, "SHARD_BYTES", 40_000)
    folder = publish((tmp_path / "lora").as_uri(), ranks=2, lora=True)
    model = make_model()
    first = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    adapt(model)
    merge_adapters(model)
    published = dict(load_model(folder).named_parameters())
    assert {official_name(name) for name in published} == set(read_headers(folder))
    assert all(torch.equal(published[name], one) for name, one in model.named_parameters())
    assert any(not torch.equal(published[name], one) for name, one in first.items())


def test_shards_reach_an_object_store_without_a_copy_on_rank_0(
    publish: Publish, s3_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vl3.store.objects import open_store

    monkeypatch.setattr(publication_module, "SHARD_BYTES", 40_000)
    local, stored = publish((tmp_path / "one").as_uri()), publish(f"{s3_root}/model", ranks=2)
    assert content(local) == content(stored)
    assert open_store(f"{s3_root}/model-work").list() == []
