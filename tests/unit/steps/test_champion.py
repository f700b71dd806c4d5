"""Which champion a run's checkpoint is compared with, and whether its checkpoint can be evaluated."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.evidence import beside, evidence
from vl3.recipes.catalog import get_recipe
from vl3.steps.champion import champion_digest, find_champion
from vl3.store.artifacts import publish
from vl3.store.reference import Reference
from vl3.tracking.gates import evaluate_gates
from vl3.tracking.registry import Registry
from vl3.workflow.step import StepRequest

TEMPLATE = Path(sys.prefix, "share", "vl3", "mlflow.db")


def _checkpoint(root: Path, name: str) -> Reference:
    folder = root / f"new-{name}"
    folder.mkdir(parents=True)
    (folder / "w").write_text(name)
    return publish(folder, (root / name).as_uri(), kind="checkpoint", created_by={"stage": "video"})


def _promoted(request: StepRequest[Any], checkpoint: Reference) -> int:
    registry = Registry(request.tracking_uri, "vl3-tiny", template=TEMPLATE)
    version = registry.register_candidate(
        checkpoint.uri, stage="video", checkpoint_sha256=checkpoint.sha256, dataset_digest="d", config_digest="c"
    )
    proof = beside(evidence(), registry.champion_evidence(checkpoint.sha256))
    registry.record_evidence(version, proof, evaluate_gates(proof, get_recipe("tiny").promotion.gates))
    registry.set_champion(version)
    return version


@pytest.fixture
def request_of_last(request_of_tiny: StepRequest[Any], tmp_path: Path) -> StepRequest[Any]:
    """A run whose last checkpoint is `mine`."""
    inputs = {"checkpoint": _checkpoint(tmp_path / "store", "mine")}
    return replace(request_of_tiny, inputs=inputs, tracking_template=TEMPLATE)


def test_looking_for_a_champion_makes_no_store(request_of_last: StepRequest[Any]) -> None:
    assert find_champion(request_of_last) is None
    assert champion_digest(request_of_last) == ""
    assert not Path(request_of_last.tracking_uri.removeprefix("sqlite:///")).exists()


def test_a_run_is_compared_with_the_champion_and_then_with_the_one_before_it(
    request_of_last: StepRequest[Any], tmp_path: Path
) -> None:
    other = _checkpoint(tmp_path / "store", "other")
    version = _promoted(request_of_last, other)
    found = find_champion(request_of_last)
    assert (found.version, found.checkpoint.uri, found.why) == (version, other.uri, "")
    key = champion_digest(request_of_last)
    _promoted(request_of_last, request_of_last.inputs["checkpoint"])  # the same evaluation is to be reused after that
    assert champion_digest(request_of_last) == key == other.sha256


def test_a_champion_whose_checkpoint_is_gone_or_another_one_says_so(
    request_of_last: StepRequest[Any], tmp_path: Path
) -> None:
    other = _checkpoint(tmp_path / "store", "other")
    _promoted(request_of_last, replace(other, sha256="f" * 64))
    found = find_champion(request_of_last)
    assert found.checkpoint is None
    assert found.why == (
        f"at {other.uri} is another checkpoint ({other.sha256[:12]}) than it was registered with (ffffffffffff)"
    )
    (tmp_path / "store" / "other" / "manifest.json").unlink()
    assert find_champion(request_of_last).why.startswith(f"its checkpoint at {other.uri} is gone. Roll back")
