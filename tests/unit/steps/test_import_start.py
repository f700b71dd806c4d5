"""What a run starts from comes into its artifacts once, checked; an encoder also from the lineage of another run."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.real_bases import text_sizes, vision_sizes, write_qwen, write_siglip
from vl3.config.codec import to_dict
from vl3.config.overrides import apply_overrides
from vl3.errors import ConfigError, StorageError
from vl3.models.start import assemble
from vl3.models.weights import save_model
from vl3.recipes.catalog import get_recipe
from vl3.steps import import_start
from vl3.steps.chain import INITIAL, origin_of
from vl3.store.artifacts import fetch, publish, read_manifest
from vl3.store.bases import BASES_FILE, LANGUAGE, VISION, fetch_base, folder_digest
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.tracking.database import make_template
from vl3.tracking.registry import Registry
from vl3.tracking.runs import Tracker
from vl3.tracking.trained import CHECKPOINT_TAG
from vl3.workflow.record import StepRecord
from vl3.workflow.step import StepRequest, execute

Ask = Callable[..., StepRequest[Any]]
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
STAGES = list(get_recipe("tiny").stages)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template") / "mlflow.db")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A SigLIP and a Qwen2 in two shards."""
    root = tmp_path_factory.mktemp("bases")
    write_siglip(root / "siglip", vision_sizes(**SMALL), whole=True)
    write_qwen(root / "qwen", text_sizes(vocabulary=1200, num_key_value_heads=2, **SMALL), shards=2)
    return root / "siglip", root / "qwen"


@pytest.fixture
def ask(request_of_tiny: StepRequest, folders: tuple[Path, Path], template: Path) -> Ask:
    """A request whose bases are the two folders, with changes of the recipe's model."""

    def make(run_id: str = "test-run", **model: Any) -> StepRequest[Any]:
        values = {"vision_base": folders[0].as_uri(), "language_base": folders[1].as_uri()} | model
        config = apply_overrides(
            request_of_tiny.config, [f"model.{name}={json.dumps(value)}" for name, value in values.items()]
        )
        return dataclasses.replace(
            request_of_tiny, task="import-start", config=config, tracking_template=template, run_id=run_id
        )

    return make


def _run(request: StepRequest[Any]) -> StepRecord:
    return execute(import_start.STEP, request, lambda *_: None)[0]


def test_both_bases_are_beside_the_start_that_names_them(ask: Ask, folders: tuple[Path, Path]) -> None:
    record = _run(ask())
    start = record.outputs["start"]
    named = json.loads((fetch(start) / BASES_FILE).read_text())
    assert named == {VISION: folder_digest(folders[0]), LANGUAGE: folder_digest(folders[1])}
    assert (fetch(start) / "tokenizer.json").read_bytes() == (folders[1] / "tokenizer.json").read_bytes()
    assert folder_digest(fetch_base(start, LANGUAGE)) == named[LANGUAGE]
    assert record.values["bases"][VISION] == {"uri": folders[0].as_uri(), "sha256": named[VISION]}
    assert read_manifest(record.outputs[VISION]).provenance["source"] == folders[0].as_uri()


def test_the_same_bases_from_a_bucket_are_the_same_start(
    ask: Ask, folders: tuple[Path, Path], s3_root: str, tmp_path: Path
) -> None:
    store = open_store(f"{s3_root}/plain")
    for path in folders[0].iterdir():
        store.put_file(path, path.name)
    here, there = _run(ask()), _run(ask(vision_base=f"{s3_root}/plain"))
    assert here.outputs["start"].sha256 == there.outputs["start"].sha256
    assert here.outputs["start"].uri != there.outputs["start"].uri
    copy = Path(shutil.copytree(folders[1], tmp_path / "copy"))
    imported = publish(copy, f"{s3_root}/qwen", kind="base", created_by={})
    assert _run(ask(language_base=imported.uri)).outputs["start"].sha256 == here.outputs["start"].sha256


def test_a_base_that_was_changed_in_the_store_is_noticed(ask: Ask) -> None:
    start = _run(ask()).outputs["start"]
    folder = fetch_base(start, VISION)
    (folder / "config.json").write_text("{}")
    with pytest.raises(StorageError, match=r"config\.json"):
        fetch_base(start, VISION)
    shutil.rmtree(folder)
    with pytest.raises(StorageError, match=r"vision_base: the base that .* names is missing .* import-start brings it"):
        fetch_base(start, VISION)


def test_what_is_wrong_with_both_is_said_at_once_and_nothing_is_published(ask: Ask, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _run(ask(vision_base="file:///nowhere", language_base="hf://a#b"))
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 bases cannot be used, listed above. Fix all of them."
    assert "model.vision_base: base 'file:///nowhere': the folder /nowhere does not exist" in lines[1]
    assert "model.language_base: 'hf://a#b' does not name a model of the hub" in lines[2]
    with pytest.raises(ConfigError, match=r"the encoder is 64 wide \(hidden_size\), but the recipe asks for 1152"):
        _run(ask(vision_width=1152))
    assert not list((tmp_path / "artifacts").rglob("vision_base/manifest.json"))


class _Chain:
    """A run with a checkpoint of each stage, as the steps leave it."""

    def __init__(self, folder: Path, request: StepRequest[Any], folders: tuple[Path, Path], stages: list[str]) -> None:
        self.root, self.checkpoints = (folder / "artifacts").as_uri(), dict[str, Reference]()
        (folder / "first").mkdir(parents=True)
        (folder / "first" / BASES_FILE).write_text("{}")
        before = publish(folder / "first", f"{self.root}/steps/import-start/k/start", kind="start", created_by={})
        tracker = Tracker(request.tracking_uri, "vl3-2b", folder.name, folder.name, template=request.tracking_template)
        for number, stage in enumerate(stages):
            making = folder / stage
            save_model(assemble(*folders, seed=number), folders[1], making)
            config = to_dict(request.config)
            (making / "run.json").write_text(json.dumps({"stage": stage, "config": config}))
            before = publish(
                making,
                f"{self.root}/steps/train-{stage}/k/checkpoint",
                kind="checkpoint",
                created_by={"stage": stage},
                made_from={INITIAL: origin_of(before, self.root)},
            )
            self.checkpoints[stage] = before
            with tracker.step(f"train-{stage}", key="k") as step:
                step.set_tags({CHECKPOINT_TAG: before.uri})


def test_an_encoder_is_taken_from_the_first_stage_of_a_run_or_a_version(
    ask: Ask, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    chain = _Chain(tmp_path / "night-7", ask(), folders, STAGES)
    first, second = chain.checkpoints[STAGES[0]], chain.checkpoints[STAGES[1]]
    assert _run(ask(vision_base="run://night-7")).values["bases"][VISION]["uri"] == first.uri
    assert _run(ask(vision_base=f"run://night-7/{STAGES[1]}")).values["bases"][VISION]["uri"] == second.uri
    last = chain.checkpoints[STAGES[-1]]
    registry = Registry(ask().tracking_uri, "vl3-2b", template=ask().tracking_template)
    registry.register_candidate(
        last.uri, stage=STAGES[-1], checkpoint_sha256=last.sha256, dataset_digest="d", config_digest="c"
    )
    assert _run(ask(vision_base="models:/vl3-2b@candidate")).values["bases"][VISION]["uri"] == first.uri
    whole = _run(dataclasses.replace(ask(), model_uri="run://night-7", stages="video"))
    assert whole.values["model"]["uri"] == last.uri


def test_a_lineage_without_a_tuned_encoder_is_refused_with_its_stages(
    ask: Ask, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    _Chain(tmp_path / "part", ask(), folders, STAGES[2:])
    with pytest.raises(ConfigError, match=rf"first stage is {STAGES[0]}, and it trained {', '.join(STAGES[2:])} fr"):
        _run(ask(vision_base="run://part"))
    with pytest.raises(ConfigError, match=rf"run part has no checkpoint of stage {STAGES[0]}; it has those of"):
        _run(ask(vision_base=f"run://part/{STAGES[0]}"))
    with pytest.raises(ConfigError, match="MLflow knows no run 'gone' with a trained stage"):
        _run(ask(vision_base="run://gone"))
    with pytest.raises(ConfigError, match="of which only the encoder can be taken"):
        _run(ask(language_base="run://part"))
    frozen = apply_overrides(ask().config, [f"stages.{STAGES[0]}.learning_rates.vision=null"])
    _Chain(tmp_path / "frozen", dataclasses.replace(ask(), config=frozen), folders, STAGES[:1])
    with pytest.raises(ConfigError, match=rf"its stage {STAGES[0]} left the encoder frozen"):
        _run(ask(vision_base="run://frozen"))
