"""The model that a run starts from: wherever it is, it is imported whole, or refused by what is wrong with it."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vl3.config.codec import to_dict
from vl3.errors import ConfigError, StorageError
from vl3.models.convert import convert
from vl3.models.layouts.names import Layout
from vl3.models.stored import read_headers
from vl3.recipes.catalog import get_recipe
from vl3.steps import import_start
from vl3.steps.chain import MODEL, SOURCE
from vl3.steps.import_start import check_whole
from vl3.steps.sources import find_whole, identity_of
from vl3.store.artifacts import fetch, publish, read_manifest
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.tracking.database import make_template
from vl3.tracking.registry import Registry
from vl3.workflow.record import StepRecord
from vl3.workflow.step import StepRequest, execute

Request = StepRequest[Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the stage multitask, as a training stage writes it, without its manifest."""
    from vl3.models.start import assemble
    from vl3.models.weights import save_model
    from vl3.store.bases import base_folder

    config, folder = get_recipe("tiny"), tmp_path_factory.mktemp("whole") / "checkpoint"
    language = base_folder(config.model.language_base)
    save_model(assemble(base_folder(config.model.vision_base), language, seed=7), language, folder)
    (folder / "run.json").write_text(json.dumps({"stage": "multitask", "config": to_dict(config)}))
    return folder


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow's, which each test would make for itself."""
    return make_template(tmp_path_factory.mktemp("template") / "mlflow.db")


@pytest.fixture
def ask(request_of_tiny: Request, template: Path, tmp_path: Path) -> Callable[..., Request]:
    """A request of import-start that starts from a model."""

    def make(model: Path | str, **changes: Any) -> Request:
        uri = model.as_uri() if isinstance(model, Path) else model
        return dataclasses.replace(
            request_of_tiny,
            task="import-start",
            model_uri=uri,
            stages="video",
            tracking_template=template,
            **changes,
        )

    return make


def find_model(request: Request) -> Any:
    """What the step finds, checked."""
    found = find_whole(request)
    check_whole(found)
    return found


def _run(request: Request) -> StepRecord:
    return execute(import_start.STEP, request, lambda *_: None)[0]


def _tensors(folder: Path) -> dict[str, Any]:
    return {
        name: (tensor.dtype, tensor.shape, tensor.path.read_bytes()[tensor.start : tensor.start + tensor.size_bytes])
        for name, tensor in read_headers(folder).items()
    }


def test_a_folder_is_imported_with_every_byte_of_its_weights(model: Path, ask: Callable[..., Request]) -> None:
    record = _run(ask(model))
    start = record.outputs["start"]
    folder = fetch(start)
    assert start.kind == MODEL
    assert start.uri.startswith(ask(model).artifacts_uri)
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert not (folder / "run.json").exists(), "no stage of this run made it"
    settings = json.loads((folder / "processor_config.json").read_text())
    assert (settings["image_merge_size"], settings["video_merge_size"]) == (1, 2)
    source = read_manifest(start).made_from[SOURCE]
    assert source == record.values["model"]
    assert (source["uri"], source["kind"]) == (model.as_uri(), "model")


def test_transformers_layout_becomes_ours(model: Path, tmp_path: Path, ask: Callable[..., Request]) -> None:
    convert(model, tmp_path / "theirs", Layout.TRANSFORMERS)
    folder = fetch(_run(ask(tmp_path / "theirs")).outputs["start"])
    assert json.loads((folder / "config.json").read_text())["model_type"] == "videollama3_qwen2"
    assert _tensors(folder) == _tensors(model)


def test_a_checkpoint_of_a_run_is_verified_and_named_as_the_origin(
    model: Path, tmp_path: Path, ask: Callable[..., Request]
) -> None:
    checkpoint = _publish(model, tmp_path)
    source = read_manifest(_run(ask(checkpoint.uri)).outputs["start"]).made_from[SOURCE]
    assert source == {"uri": checkpoint.uri, "sha256": checkpoint.sha256, "kind": "checkpoint"}


def test_a_changed_byte_of_a_checkpoint_is_found(model: Path, tmp_path: Path, ask: Callable[..., Request]) -> None:
    checkpoint = _publish(model, tmp_path)
    path = tmp_path / "run" / "checkpoint" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"model\.safetensors: is damaged"):
        find_model(ask(checkpoint.uri))


def test_a_folder_of_a_bucket_is_imported_as_files_and_as_an_artifact(
    model: Path, tmp_path: Path, s3_root: str, ask: Callable[..., Request]
) -> None:
    store = open_store(f"{s3_root}/plain")
    for path in model.iterdir():
        store.put_file(path, path.name)
    plain = find_model(ask(f"{s3_root}/plain"))
    assert (plain.folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert plain.sha256 == find_model(ask(model)).sha256, "the files count, not where they are"
    copy = Path(shutil.copytree(model, tmp_path / "new"))
    artifact = publish(copy, f"{s3_root}/artifact", kind="checkpoint", created_by={})
    found = find_model(ask(artifact.uri))
    assert (found.uri, found.sha256, found.kind) == (artifact.uri, artifact.sha256, "checkpoint")
    with pytest.raises(ConfigError, match=r"nothing: there is no config\.json, so this is no model"):
        find_model(ask(f"{s3_root}/nothing"))


def test_the_same_model_gives_the_same_artifact_and_another_one_another(
    model: Path, ask: Callable[..., Request]
) -> None:
    first, again = _run(ask(model)), _run(ask(model, run_id="another"))
    assert first.outputs == again.outputs
    (model / "notes.md").write_text("not a part of the model")
    assert _run(ask(model)).outputs == first.outputs
    generation = model / "generation_config.json"
    generation.write_text(json.dumps({"eos_token_id": 1}))
    assert _run(ask(model)).outputs["start"].uri != first.outputs["start"].uri


def test_a_registered_version_is_found_by_alias_and_number(
    model: Path, tmp_path: Path, ask: Callable[..., Request]
) -> None:
    checkpoint = _publish(model, tmp_path)
    registry = Registry(ask(model).tracking_uri, "vl3-tiny", template=ask(model).tracking_template)
    registry.register_candidate(
        checkpoint.uri, stage="video", checkpoint_sha256=checkpoint.sha256, dataset_digest="d", config_digest="c"
    )
    for uri in ("models:/vl3-tiny@candidate", "models:/vl3-tiny/1"):
        found = find_model(ask(uri))
        assert (found.uri, found.sha256, found.kind) == (checkpoint.uri, checkpoint.sha256, "checkpoint")
    with pytest.raises(ConfigError, match=r"vl3-tiny has no alias 'champion' at .*\. Its aliases: candidate"):
        find_model(ask("models:/vl3-tiny@champion"))
    with pytest.raises(ConfigError, match=r"vl3-tiny has no version 2 at .*\. Its versions: 1"):
        find_model(ask("models:/vl3-tiny/2"))
    with pytest.raises(ConfigError, match=r"vl3-tony has no alias 'candidate' at .*\. Its aliases: none"):
        find_model(ask("models:/vl3-tony@candidate"))


def test_a_registered_checkpoint_that_was_replaced_is_refused(
    model: Path, tmp_path: Path, ask: Callable[..., Request]
) -> None:
    checkpoint = _publish(model, tmp_path)
    registry = Registry(ask(model).tracking_uri, "vl3-tiny", template=ask(model).tracking_template)
    registry.register_candidate(
        checkpoint.uri, stage="video", checkpoint_sha256="0" * 64, dataset_digest="d", config_digest="c"
    )
    with pytest.raises(StorageError, match="is not the checkpoint that was registered as vl3-tiny version 1"):
        find_model(ask("models:/vl3-tiny/1"))


def test_an_alias_that_moves_leaves_a_run_with_the_model_it_began_with(
    model: Path, tmp_path: Path, ask: Callable[..., Request]
) -> None:
    first = _publish(model, tmp_path)
    registry = Registry(ask(model).tracking_uri, "vl3-tiny", template=ask(model).tracking_template)
    given = {"stage": "video", "dataset_digest": "d", "config_digest": "c"}
    registry.register_candidate(first.uri, checkpoint_sha256=first.sha256, **given)
    begun = _run(ask("models:/vl3-tiny@candidate")).outputs["start"]
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": 1}))
    second = _publish(model, tmp_path / "later")
    registry.register_candidate(second.uri, checkpoint_sha256=second.sha256, **given)
    assert _run(ask("models:/vl3-tiny@candidate")).outputs["start"] == begun
    other = _run(ask("models:/vl3-tiny@candidate", run_id="another")).outputs["start"]
    assert read_manifest(other).made_from[SOURCE]["uri"] == second.uri


def test_what_a_name_stands_for_is_settled_for_each_run_and_a_commit_for_all() -> None:
    commit = "hf://owner/name@" + "0a" * 20
    assert identity_of("hf://owner/name", "one") == {"uri": "hf://owner/name", "run_id": "one"}
    assert identity_of("run://a", "one") == {"uri": "run://a", "run_id": "one"}
    assert identity_of(commit, "one") == identity_of(commit, "two") == {"uri": commit}


def _publish(model: Path, parent: Path) -> Reference:
    copy = shutil.copytree(model, parent / "run" / "new")
    uri = (parent / "run" / "checkpoint").as_uri()
    return publish(Path(copy), uri, kind="checkpoint", created_by={"stage": "multitask"})


def _cut(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def _noise(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 400)


def _edit(name: str, **values: Any) -> Callable[[Path], None]:
    def edit(model: Path) -> None:
        path = model / name
        data = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(data | values))

    return edit


def _remove(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def _directory(name: str) -> Callable[[Path], None]:
    def make(model: Path) -> None:
        (model / name).unlink()
        (model / name).mkdir()

    return make


def _pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def _other_patch(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["vision_encoder_config"]["patch_size"] = 16
    (model / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, r"model\.safetensors is truncated: tensor .* ends at byte \d+ but the file has \d+"),
        (_noise, r"model\.safetensors is damaged: it has no valid safetensors header"),
        (_pickle, r"has pytorch_model\.bin but no model\.safetensors. Pickle files are not opened"),
        (_remove("config.json"), r"config\.json does not exist"),
        (_remove("tokenizer.json"), r"tokenizer\.json does not exist"),
        (_edit("config.json", model_type="llama"), r"model_type='llama' is neither 'videollama3_qwen2'"),
        (_edit("config.json", hidden_size=999), None),
        (_edit("config.json", image_token_index=3), r"image_token_index=3 but .*tokenizer\.json gives <image> the id"),
        (_edit("tokenizer.json", added_tokens=[{"content": "<image>"}]), "added_tokens holds no tokens with ids"),
        (_edit("preprocessor_config.json", min_tokens="x"), "hold a value that cannot be used .min_tokens='x'"),
        (_edit("config.json", vision_encoder_config=True), "vision_encoder_config is True, not a group of values"),
        (_directory("config.json"), r"config\.json cannot be read as JSON .*Is a directory"),
        (_edit("adapter_config.json", base_model_name_or_path="a/b"), r"holds LoRA adapters of a/b .*Merge them into"),
        (_edit("preprocessor_config.json", patch_size=16), r"patch_size=16, but config\.json gives .* patch_size=14"),
        (_other_patch, None),
    ],
)
def test_a_folder_that_is_no_whole_model_is_refused(
    model: Path, ask: Callable[..., Request], damage: Callable[[Path], None], message: str | None
) -> None:
    damage(model)
    with pytest.raises(ConfigError, match=message):
        find_model(ask(model))


def test_the_recipes_bases_need_not_be_there(model: Path, ask: Callable[..., Request]) -> None:
    gone = dataclasses.replace(get_recipe("tiny").model, vision_base="file:///nowhere", language_base="file:///nowhere")
    config = dataclasses.replace(get_recipe("tiny"), model=gone)
    assert _run(ask(model, config=config)).outputs["start"].kind == MODEL


def test_other_folders_are_named_for_what_they_are(
    model: Path, tmp_path: Path, ask: Callable[..., Request], request_of_tiny: Request
) -> None:
    with pytest.raises(ConfigError, match="nowhere: there is no such folder, so there is no model"):
        find_model(ask("file:///nowhere"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "index").write_text("")
    dataset = publish(tmp_path / "new", (tmp_path / "dataset").as_uri(), kind="dataset", created_by={})
    with pytest.raises(ConfigError, match="dataset is a dataset, not a model"):
        find_model(ask(dataset.uri))
    checkpoint = tmp_path / "runs/a/artifacts/steps/train-video/k/checkpoint"
    shutil.copytree(model, checkpoint)
    with pytest.raises(ConfigError, match=rf"is the folder of a run, which has several models.*: {checkpoint}"):
        find_model(ask(tmp_path / "runs/a"))
