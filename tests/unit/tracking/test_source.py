"""The tags from which MLflow's pages show where a run came from."""

import getpass

import pytest

from vl3.tracking.source import source_tags

RAN = {
    "commit": "ab12",
    "tree": "modified",
    "command": "vl3 run start --recipe tiny",
    "versions": {"vl3": "0.1.0", "torch": "2.13.0"},
    "machine": {"host": "desk", "cores": "2", "cpu": "AMD EPYC", "memory": "24 GiB", "gpus": ""},
    "image": "",
}


def test_the_source_is_said_in_mlflows_own_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert source_tags(RAN) == {
        "mlflow.source.name": "vl3 run start --recipe tiny",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "ab12",
        "mlflow.source.git.repoURL": "https://github.com/vl3/vl3",
        "mlflow.user": "ada",
        "vl3.tree": "modified",
        "vl3.machine": "desk: 2 cores (AMD EPYC), 24 GiB",
        "vl3.versions": "vl3 0.1.0, torch 2.13.0",
    }


def test_what_is_not_known_has_no_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert source_tags({"commit": "unknown", "versions": 3}, is_cluster=True) == {"mlflow.source.type": "JOB"}
    image = source_tags(RAN | {"image": "trainer@sha256:ab"}, is_cluster=True)
    assert (image["vl3.image"], image["mlflow.source.type"]) == ("trainer@sha256:ab", "JOB")
