"""`vl3 registry` on a real SQLite store: list, promote by evidence only, roll back."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.evidence import beside, evidence
from vl3.cli.main import run
from vl3.cli.output import aligned_rows
from vl3.recipes.catalog import get_recipe
from vl3.tracking.gates import evaluate_gates
from vl3.tracking.registry import Registry

TEMPLATE = Path(sys.prefix, "share", "vl3", "mlflow.db")
"""Migrated empty database that set-up makes; without it MLflow migrates here, which takes seconds."""


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("VL3_MLFLOW_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ["list", "ui"])
def test_without_a_database_one_sentence_says_how_to_get_one(
    command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["registry", command, "--run", "mine"]) == 2
    assert capsys.readouterr().err == (
        f"ConfigError: no run has been tracked yet: there is no {place}/runs/mlflow.db. Start one with `make "
        "run-pipeline`, or name another store with --tracking.\n"
    )


def test_the_database_of_an_older_run_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "runs" / "old").mkdir(parents=True)
    (place / "runs" / "old" / "mlflow.db").touch()
    assert run(["registry", "list", "--run", "old"]) == 2
    err = capsys.readouterr().err
    assert (
        f"{place}/runs/old has one of its own from an older vl3: --tracking sqlite:///{place}/runs/old/mlflow.db."
        in err
    )


def test_a_password_is_refused_and_shown_to_nobody(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["registry", "list", "--tracking", "http://me:hunter2@host:5000"]) == 2
    err = capsys.readouterr().err
    assert "--tracking http://***@host:5000 has a password" in err
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in err
    logs = "".join(path.read_text() for path in (place / "state").rglob("*.log"))
    assert "--tracking" in logs
    assert "hunter2" not in err + logs


def test_the_pages_of_a_server_are_where_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["registry", "ui", "--tracking", "https://mlflow.example.org"]) == 0
    assert capsys.readouterr().out == "MLflow runs at https://mlflow.example.org already: open it in a browser\n"


def test_columns_stand_under_their_names() -> None:
    rows = [{"version": "2", "aliases": "champion"}, {"version": "10", "aliases": ""}]
    assert aligned_rows(rows) == "version  aliases\n2        champion\n10"


def register(uri: str, name: str, accuracy: float) -> int:
    """A version whose tags hold the decision of every gate."""
    registry = Registry(uri, "vl3-tiny", template=TEMPLATE)
    version = registry.register_candidate(
        f"file:///checkpoints/{name}", stage="video", checkpoint_sha256=name, dataset_digest="d", config_digest="c"
    )
    proof = beside(evidence({"chart": round(accuracy * 100)}), registry.champion_evidence())
    registry.record_evidence(version, proof, evaluate_gates(proof, get_recipe("tiny").promotion.gates))
    return version


def test_promotion_by_evidence_and_the_way_back(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "runs" / "mine").mkdir(parents=True)
    uri = f"sqlite:///{place}/runs/mlflow.db"
    options = ["--run", "mine"]
    register(uri, "one", 0.9)
    capsys.readouterr()

    assert run(["registry", "promote", "1", *options]) == 0
    assert capsys.readouterr().out == "vl3-tiny: champion is v1 (before: none)\n"

    register(uri, "two", 0.5)
    assert run(["registry", "promote", "2", *options]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("GateError: ")
    assert "mean_accuracy" in err

    register(uri, "three", 0.95)
    assert run(["registry", "promote", "3", *options]) == 0
    assert run(["registry", "rollback", *options]) == 0
    assert capsys.readouterr().out == (
        "vl3-tiny: champion is v3 (before: v1)\nvl3-tiny: champion is v1 again (before: v3)\n"
    )

    assert run(["registry", "list", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["version", "aliases", "stage", "mean", "accuracy", "gates", "registered", "source"]
    assert [line.split()[0] for line in lines[1:]] == ["3", "2", "1"]
    assert "0.5000         refused" in lines[2]
    assert "champion" in lines[3]
    assert run(["registry", "list", *options, "--json"]) == 0
    versions = json.loads(capsys.readouterr().out)
    assert [(one["version"], one["aliases"], one["mean_accuracy"]) for one in versions][2] == (1, ["champion"], 0.9)
