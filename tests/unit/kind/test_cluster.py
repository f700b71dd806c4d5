"""The kind cluster's configuration, and when a running one is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kind import cluster
from kind.cluster import identity, is_running, kind_config
from kind.settings import Settings, read_settings


def settings_in(folder: Path, name: str = "vl3") -> Settings:
    return Settings(name=name, cache=folder / "cache", state=folder / "state", pull=False)


def test_the_usual_cluster_has_a_worker_with_store_ports_and_pool() -> None:
    config = kind_config("vl3", Path("/cache/stores/vl3-1"))
    control_plane, worker = config["nodes"]
    assert control_plane == {"role": "control-plane"}
    assert worker["labels"] == {"vl3.dev/pool": "cpu"}
    assert worker["extraMounts"] == [{"hostPath": "/cache/stores/vl3-1", "containerPath": "/var/lib/containerd"}]
    assert [(port["hostPort"], port["listenAddress"]) for port in worker["extraPortMappings"]] == [
        (30833, "127.0.0.1"),
        (30500, "127.0.0.1"),
    ]
    kubelet = yaml.safe_load(config["kubeadmConfigPatches"][0])
    assert kubelet["kind"] == "KubeletConfiguration"
    assert kubelet["failCgroupV1"] is False


def test_a_second_cluster_leaves_the_ports_alone() -> None:
    assert "extraPortMappings" not in kind_config("other", None)["nodes"][1]


def test_another_name_has_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VL3_CACHE", "/somewhere")
    monkeypatch.delenv("VL3_KIND_PULL", raising=False)
    usual, other = read_settings(), read_settings("other")
    assert usual.kubeconfig.parts[-3:] == ("build", "kind", "kubeconfig")
    assert other.kubeconfig.parts[-3:] == ("build", "kind-other", "kubeconfig")
    assert usual.cache == Path("/somewhere/kind")
    assert usual.worker == "vl3-worker"
    assert not usual.pull


@pytest.mark.parametrize(
    ("names", "note", "answers", "expected"),
    [
        ("vl3", "same", True, True),
        ("other", "same", True, False),
        ("vl3", None, True, False),
        ("vl3", "different", True, False),
        ("vl3", "same", False, False),
    ],
    ids=["whole", "absent", "unfinished", "different", "silent"],
)
def test_only_a_whole_cluster_that_answers_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: str, note: str | None, answers: bool, expected: bool
) -> None:
    settings = settings_in(tmp_path)
    settings.state.mkdir()
    if note:
        (settings.state / "cluster.json").write_text(json.dumps({"identity": note}))
    monkeypatch.setattr(cluster, "run", lambda *_, **__: names)
    monkeypatch.setattr(cluster, "succeeds", lambda *_, **__: answers)
    assert is_running(settings, Path("kind"), Path("kubectl"), "same") is expected


def test_identity_follows_configuration_and_node_image() -> None:
    config = kind_config("vl3", None)
    changed: dict[str, Any] = {**config, "networking": {}}
    assert len({identity(config, "a"), identity(config, "b"), identity(changed, "a")}) == 3


def test_status_without_a_cluster_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(cluster.KindError, match=r"There is no cluster vl3: start it with `make kind-up`"):
        cluster.node_image_of(settings_in(tmp_path))
