"""The chain of checkpoints is found from the last one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vl3.errors import StorageError
from vl3.steps.chain import INITIAL, MODEL, PLAN, origin_of, plan_of, trained_stages
from vl3.store.artifacts import publish
from vl3.store.reference import Reference

Train = Callable[..., Reference]


@pytest.fixture
def root(tmp_path: Path) -> str:
    return (tmp_path / "artifacts").as_uri()


@pytest.fixture
def train(tmp_path: Path, root: str) -> Train:
    """Publishes a checkpoint below the root of artifacts: `train("video", initial)`."""

    def make(
        stage: str, parent: Reference | None, *, below: str = root, forged: dict[str, str] | None = None
    ) -> Reference:
        folder = tmp_path / f"new-{stage}"
        folder.mkdir()
        (folder / "weights").write_text(stage)
        start = Reference(uri=f"{root}/steps/start/k/start", sha256="0" * 64, kind="start", created_by={})
        made_from = {INITIAL: forged or origin_of(parent or start, root)}
        uri = f"{below}/steps/train-{stage}/key/checkpoint"
        return publish(folder, uri, kind="checkpoint", created_by={"stage": stage}, made_from=made_from)

    return make


def test_stages_come_in_the_order_of_training_whatever_their_names(train: Train, root: str) -> None:
    a = train("zeta", None)
    b = train("alpha", a)
    c = train("beta", b)
    assert [(stage.name, stage.checkpoint) for stage in trained_stages(c, root)] == [
        ("zeta", a),
        ("alpha", b),
        ("beta", c),
    ]
    assert [stage.name for stage in trained_stages(a, root)] == ["zeta"]


def test_the_manifest_names_the_checkpoint_before_below_the_root_of_artifacts(
    train: Train, root: str, tmp_path: Path
) -> None:
    first = train("first", None)
    train("second", first)
    manifest = json.loads((tmp_path / "artifacts/steps/train-second/key/checkpoint/manifest.json").read_text())
    expected = {"uri": "steps/train-first/key/checkpoint", "sha256": first.sha256, "kind": "checkpoint"}
    assert manifest["made_from"] == {"initial": expected}, "no absolute path: the digest is the same in every store"


def test_a_checkpoint_from_elsewhere_is_named_whole(train: Train, root: str, tmp_path: Path) -> None:
    other = (tmp_path / "other").as_uri()
    first = train("first", None, below=other)
    second = train("second", first)
    assert [stage.checkpoint.uri for stage in trained_stages(second, root)] == [first.uri, second.uri]


def test_a_parent_that_was_replaced_or_removed_is_named(train: Train, root: str, tmp_path: Path) -> None:
    first = train("first", None)
    second = train("second", first)
    manifest = tmp_path / "artifacts/steps/train-first/key/checkpoint/manifest.json"
    manifest.write_text(manifest.read_text().replace('"stage": "first"', '"stage": "other"'))
    with pytest.raises(StorageError, match=r"train-first/key/checkpoint: the checkpoint .*second.* is another one"):
        trained_stages(second, root)
    manifest.unlink()
    with pytest.raises(StorageError, match=rf"was trained from is gone \(expected sha256 {first.sha256}\)"):
        trained_stages(second, root)


def test_a_checkpoint_that_does_not_say_where_it_came_from_is_refused(root: str, tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "weights").write_text("x")
    plain = publish(tmp_path / "w", f"{root}/plain", kind="checkpoint", created_by={"stage": "video"})
    with pytest.raises(StorageError, match="does not name the stage and the initial weights of the checkpoint"):
        trained_stages(plain, root)


@pytest.mark.parametrize("uri", ["../../etc", "/etc/passwd", "steps/../../x", "a//b"])
def test_an_origin_never_leads_out_of_the_artifacts(train: Train, root: str, uri: str) -> None:
    forged = train("video", None, forged={"uri": uri, "sha256": "0" * 64, "kind": "checkpoint"})
    with pytest.raises(StorageError, match="The manifest of that checkpoint cannot be trusted"):
        trained_stages(forged, root)


def test_the_plan_of_a_checkpoint_is_found_by_its_manifest(root: str, tmp_path: Path) -> None:
    for name in ("p", "w"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    plan = publish(tmp_path / "p", f"{root}/steps/plan-video/key/plan", kind="plan", created_by={})
    made_from = {PLAN: origin_of(plan, root)}
    checkpoint = publish(tmp_path / "w", f"{root}/c", kind="checkpoint", created_by={}, made_from=made_from)
    assert plan_of(checkpoint, root) == plan
    (tmp_path / "artifacts/steps/plan-video/key/plan/manifest.json").unlink()
    with pytest.raises(StorageError, match=r"steps/plan-video/key/plan: the plan that .*/c was trained from is gone"):
        plan_of(checkpoint, root)


def test_a_checkpoint_of_an_earlier_version_names_no_plan(train: Train, root: str) -> None:
    assert plan_of(train("video", None), root) is None


def test_a_chain_that_leads_back_to_itself_ends(train: Train, root: str, tmp_path: Path, monkeypatch) -> None:
    first = train("first", None)
    origin = {"initial": {"uri": "steps/train-first/key/checkpoint", "sha256": first.sha256, "kind": "checkpoint"}}

    class Looped:
        created_by, made_from = {"stage": "first"}, origin

    monkeypatch.setattr("vl3.steps.chain.read_manifest", lambda reference: Looped)
    with pytest.raises(StorageError, match="cannot be found"):
        trained_stages(first, root)


def test_a_chain_ends_at_the_model_that_it_was_given(train: Train, root: str, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "weights").write_text("given")
    given = publish(tmp_path / "m", f"{root}/steps/import-start/k/start", kind=MODEL, created_by={})
    last = train("video", given)
    assert [stage.name for stage in trained_stages(last, root)] == ["video"]
