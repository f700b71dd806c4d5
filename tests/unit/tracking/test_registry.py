"""Candidates, promotion as compare-and-set, rollback."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vl3.errors import ClusterError, ConfigError, GateError
from vl3.recipes.catalog import get_recipe
from vl3.tracking.evidence import Evidence
from vl3.tracking.gates import evaluate_gates
from vl3.tracking.lock import file_lock
from vl3.tracking.registry import Registry
from vl3.tracking.versions import version_table

GATES = get_recipe("tiny").promotion.gates
Make = Callable[..., Evidence]


def _register(registry: Registry, number: int) -> int:
    return registry.register_candidate(
        f"file:///store/checkpoint-{number}",
        stage="video",
        checkpoint_sha256=f"{number:064x}",
        dataset_digest="d" * 64,
        config_digest="c" * 64,
        step=250,
        run_id="run-7",
    )


def _judge(registry: Registry, version: int, evidence: Evidence) -> None:
    registry.record_evidence(version, evidence, evaluate_gates(evidence, GATES))


def _promote(registry: Registry, number: int, make_evidence: Make) -> int:
    version = _register(registry, number)
    _judge(registry, version, make_evidence(champion=registry.champion_evidence()))
    registry.set_champion(version, holder=f"run-{number}")
    return version


def test_register_candidate_points_to_checkpoint_with_tags(registry: Registry) -> None:
    assert registry.list_versions() == []
    assert registry.champion() is None
    assert _register(registry, 1) == 1
    assert _register(registry, 2) == 2
    newest, oldest = registry.list_versions()
    assert (newest.version, newest.aliases, oldest.aliases) == (2, ("candidate",), ())
    assert oldest.source == "file:///store/checkpoint-1"
    assert oldest.made_from == {
        "checkpoint_sha256": f"{1:064x}",
        "dataset_digest": "d" * 64,
        "config_digest": "c" * 64,
        "step": 250,
        "run_id": "run-7",
    }
    version = registry.client.get_model_version("vl3-tiny", "1")
    assert set(version.tags) == {"stage", "vl3.made_from"}
    assert version.description == "Stage video (250 steps, run run-7)."
    assert (oldest.decision, oldest.mean_accuracy) == ("", None)


def test_register_candidate_twice_is_one_version(registry: Registry) -> None:
    first = _register(registry, 1)
    _register(registry, 2)
    assert _register(registry, 1) == first
    assert [row.version for row in registry.list_versions()] == [2, 1]
    assert registry.get(first).aliases == ("candidate",)


def test_set_champion_moves_alias_and_keeps_evidence(registry: Registry, make_evidence: Make) -> None:
    version = _promote(registry, 1, make_evidence)
    champion = registry.champion()
    assert champion.version == version
    assert champion.aliases == ("candidate", "champion")
    assert (champion.decision, champion.mean_accuracy) == ("passed", 0.85)
    assert champion.promotion["by"] == "run-1"
    assert champion.evidence["gates"]["task_accuracy"] == {
        "name": "task_accuracy", "passed": True, "value": 0.8, "threshold": 0.6, "detail": "lowest: heldout/streaming"
    }  # fmt: skip
    found = registry.client.get_model_version("vl3-tiny", str(version))
    assert {name: text for name, text in found.tags.items() if not name.startswith("vl3.")} == {
        "stage": "video", "mean accuracy": "0.8500", "verdict": "passed"
    }  # fmt: skip
    assert found.description == (
        f"Champion, promoted by run-1 at {champion.promotion['at']}, the first one.\n\n"
        "Score 0.850 on heldout. There was no champion to compare with. Every gate "
        "passed.\n\nStage video (250 steps, run run-7)."
    )
    evidence = registry.champion_evidence()
    assert evidence.scores == make_evidence().scores()
    assert evidence.scores["heldout/streaming"]["score"] == 0.8
    assert (evidence.version, evidence.checkpoint_sha256) == (version, f"{1:064x}")
    assert champion.evidence["dataset_digest"] == "d" * 64
    assert version_table([champion])[0] | {"registered": ""} == {
        "version": "1",
        "aliases": "candidate, champion",
        "stage": "video",
        "mean accuracy": "0.8500",
        "gates": "passed",
        "registered": "",
        "source": "file:///store/checkpoint-1",
    }


def test_set_champion_keeps_the_previous_and_rolls_back(registry: Registry, make_evidence: Make) -> None:
    first, second = _promote(registry, 1, make_evidence), _promote(registry, 2, make_evidence)
    assert registry.get(first).aliases == ("previous-champion",)
    assert registry.get(second).aliases == ("candidate", "champion")
    assert registry.rollback(holder="me") == (second, first)
    assert registry.champion().version == first
    assert registry.get(second).aliases == ("candidate",)
    assert registry.get(second).promotion["rolled_back_by"] == "me"
    assert "Rolled back by me at" in registry.client.get_model_version("vl3-tiny", str(second)).description
    with pytest.raises(GateError, match="v1 is the first champion: there is none to roll back to"):
        registry.rollback()


def test_set_champion_again_changes_nothing(registry: Registry, make_evidence: Make) -> None:
    first, second = _promote(registry, 1, make_evidence), _promote(registry, 2, make_evidence)
    assert registry.set_champion(second) == first
    assert registry.rollback() == (second, first)


def test_rolled_back_version_can_be_promoted_again(registry: Registry, make_evidence: Make) -> None:
    first, second = _promote(registry, 1, make_evidence), _promote(registry, 2, make_evidence)
    registry.rollback()
    assert registry.set_champion(second) == first
    assert registry.champion().version == second


def test_set_champion_refuses_unjudged(registry: Registry) -> None:
    version = _register(registry, 1)
    with pytest.raises(GateError, match=r"vl3-tiny v1 was never evaluated.*evaluate and promote steps"):
        registry.set_champion(version)
    assert registry.champion() is None


def test_set_champion_refuses_with_the_table(registry: Registry, make_evidence: Make) -> None:
    version = _register(registry, 1)
    _judge(registry, version, make_evidence(checkpoint_verified=None))
    with pytest.raises(GateError, match=r"(?s)v1 is refused by the gates:\ngate .*checkpoint_digest +REFUSED"):
        registry.set_champion(version)
    assert registry.champion() is None
    assert registry.get(version).decision == "refused"


def test_set_champion_refuses_when_a_gate_left_no_result(registry: Registry, make_evidence: Make) -> None:
    version = _register(registry, 1)
    _judge(registry, version, make_evidence())
    facts = dict(registry.get(version).evidence)
    del facts["gates"]["beats_chance"]
    registry.client.set_model_version_tag("vl3-tiny", "1", "vl3.evidence", json.dumps(facts))
    with pytest.raises(GateError, match=r"Without a result: beats_chance\."):
        registry.set_champion(version)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"gates": 3}', '{"gates": {"mean_accuracy": {"passed": true}}}', "{" * 9999]
)
def test_evidence_that_somebody_else_wrote_is_no_evidence(registry: Registry, make_evidence: Make, text: str) -> None:
    version = _register(registry, 1)
    _judge(registry, version, make_evidence())
    registry.client.set_model_version_tag("vl3-tiny", "1", "vl3.evidence", text)
    with pytest.raises(GateError, match="was never evaluated"):
        registry.set_champion(version)


def test_a_refusal_is_in_the_description(registry: Registry, make_evidence: Make) -> None:
    version = _register(registry, 1)
    _judge(registry, version, make_evidence(checkpoint_verified=None))
    description = registry.client.get_model_version("vl3-tiny", "1").description
    assert (
        "Refused by:\n- checkpoint_digest: the verification of the checkpoint's digests left no result" in description
    )


def test_set_champion_refuses_when_champion_moved(registry: Registry, make_evidence: Make) -> None:
    slow, quick = _register(registry, 1), _register(registry, 2)
    for version in (slow, quick):
        _judge(registry, version, make_evidence())
    registry.set_champion(quick, holder="run-quick")
    with pytest.raises(
        GateError, match=r"v1 was compared with no champion, but .* now it is v2 \(promoted by run-quick"
    ):
        registry.set_champion(slow, holder="run-slow")
    assert registry.champion().version == quick


def test_set_champion_race_has_one_winner(
    tracking_uri: str, template: Path, registry: Registry, make_evidence: Make
) -> None:
    versions = [_register(registry, number) for number in range(4)]
    for version in versions:
        _judge(registry, version, make_evidence())
    barrier, outcomes = threading.Barrier(len(versions)), {}

    def promote(version: int) -> None:
        own = Registry(tracking_uri, "vl3-tiny", template=template)
        own.champion()
        barrier.wait()
        try:
            own.set_champion(version, holder=f"run-{version}")
            outcomes[version] = "won"
        except GateError as error:
            outcomes[version] = str(error)

    threads = [threading.Thread(target=promote, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = registry.champion().version
    assert outcomes.pop(winner) == "won"
    assert len(outcomes) == 3
    assert all(f"now it is v{winner} (promoted by run-{winner}" in text for text in outcomes.values())


def test_set_champion_names_the_holder_of_the_lock(
    tracking_uri: str, registry: Registry, make_evidence: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = _register(registry, 1)
    _judge(registry, version, make_evidence())
    database = Path(tracking_uri.removeprefix("sqlite:///"))
    monkeypatch.setattr(
        "vl3.tracking.registry.file_lock", lambda path, holder: file_lock(path, holder=holder, wait_seconds=0.1)
    )
    with (
        file_lock(database, holder="run-other"),
        pytest.raises(
            ClusterError, match=rf"held by another process: process {os.getpid()} on .* since .* \(run-other\)"
        ),
    ):
        registry.set_champion(version)
    registry.set_champion(version)


def test_rollback_refuses_without_champion(registry: Registry) -> None:
    with pytest.raises(GateError, match="has no champion, so there is nothing to roll back"):
        registry.rollback()


def test_get_names_known_versions(registry: Registry) -> None:
    _register(registry, 1)
    with pytest.raises(ConfigError, match=r"vl3-tiny has no version 9 at sqlite:.*Its versions: 1\."):
        registry.get(9)
