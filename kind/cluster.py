"""Creates and deletes the kind cluster itself."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from kind.commands import KindError, run, say, step, succeeds
from kind.content import hash_of
from kind.settings import DEFAULT_NAME, NODE_PORTS, POD_SUBNET, Settings

API_SECONDS = 10


def kind_config(name: str, store: Path | None) -> dict[str, Any]:
    """Kind's configuration: a control plane and one worker, the pool `cpu`."""
    worker: dict[str, Any] = {"role": "worker", "labels": {"vl3.dev/pool": "cpu"}}
    if store is not None:
        worker["extraMounts"] = [{"hostPath": str(store), "containerPath": "/var/lib/containerd"}]
    if name == DEFAULT_NAME:  # a second cluster cannot have the same ports
        worker["extraPortMappings"] = [
            {"containerPort": port, "hostPort": port, "listenAddress": "127.0.0.1"} for port in NODE_PORTS
        ]
    kubelet = {
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        # The controllers write certificates into a Secret and wait until the kubelet mounts them: 95 s with the default
        # of 1 m.
        "syncFrequency": "3s",
        "maxPods": 200,
    }
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"apiServerAddress": "127.0.0.1", "podSubnet": POD_SUBNET},
        "nodes": [{"role": "control-plane"}, worker],
        "kubeadmConfigPatches": [yaml.safe_dump(kubelet, sort_keys=False)],
    }


def identity(config: dict[str, Any], node_image: str) -> str:
    """A hash that changes if a running cluster differs from the one that `up` would create."""
    return hash_of(json.dumps(config, sort_keys=True), node_image)


def is_running(settings: Settings, kind: Path, kubectl: Path, wanted: str) -> bool:
    """Whether a complete cluster with the identity `wanted` exists and its API answers."""
    if settings.name not in clusters(kind):
        return False
    try:
        noted = json.loads(_note(settings).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    access = (str(kubectl), "--kubeconfig", str(settings.kubeconfig), f"--request-timeout={API_SECONDS}s")
    return noted["identity"] == wanted and succeeds([*access, "get", "--raw", "/readyz"], timeout=3 * API_SECONDS)


def clusters(kind: Path) -> list[str]:
    """Names of the kind clusters on this machine, complete or not."""
    return run([kind, "get", "clusters"]).split()


def create(settings: Settings, kind: Path, config: dict[str, Any], node_image: str) -> None:
    """Create the cluster; an unfinished or different one with its name is deleted first."""
    if settings.name in clusters(kind):
        say(f"cluster {settings.name} is unfinished, different or does not answer: creating it again")
        delete(settings, kind)
    settings.state.mkdir(parents=True, exist_ok=True)
    file = settings.state / "kind.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    with step(f"kind cluster {settings.name}"):
        # If it survived us and then failed, `kind create` would delete the next cluster of this name.
        run(
            [
                *("setpriv", "--pdeathsig", "KILL"),
                *(kind, "create", "cluster", "--name", settings.name, "--config", file, "--image", node_image),
                *("--kubeconfig", settings.kubeconfig),
            ],
            timeout=600,
        )
    note = {"identity": identity(config, node_image), "node_image": node_image}
    unfinished = _note(settings).with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(note), encoding="utf-8")
    unfinished.rename(_note(settings))


def delete(settings: Settings, kind: Path) -> None:
    """Delete the cluster and its files; caches are kept."""
    _note(settings).unlink(missing_ok=True)
    with step(f"delete cluster {settings.name}"):
        run([kind, "delete", "cluster", "--name", settings.name, "--kubeconfig", settings.kubeconfig], timeout=300)
    shutil.rmtree(settings.state, ignore_errors=True)


def _note(settings: Settings) -> Path:
    return settings.state / "cluster.json"


def node_image_of(settings: Settings) -> str:
    """The node image of the running cluster."""
    try:
        return str(json.loads(_note(settings).read_text(encoding="utf-8"))["node_image"])
    except FileNotFoundError:
        raise KindError(f"There is no cluster {settings.name}: start it with `make kind-up`.") from None
