"""The pods of a compiled workflow's tasks, without Kubeflow Pipelines.

What KFP would make of a task (container, size, environment, volumes, identity) is made here from the compiled workflow,
so the image, the settings' names, the requests and Pod Security are the real ones. What KFP's launcher would carry
between tasks, the files with the references of artifacts, lies on a volume that all pods of a run mount.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster.reach import NAMESPACE, Cluster
from vl3.pipelines.tasks import ordered_tasks

ARTIFACTS = "/artifacts"
"""Where the volume with the files of all tasks is mounted."""


def artifact_path(task: str, name: str) -> str:
    """The file of a task's output."""
    return f"{ARTIFACTS}/{task}/{name}"


def executor_pod(
    ir: Path,
    task: str,
    name: str,
    parameters: dict[str, Any],
    *,
    inputs: Mapping[str, str] | None = None,
    claim: str | None = None,
) -> dict[str, Any]:
    """The pod of a task, as KFP's driver and launcher would run it.

    Args:
        ir: a compiled workflow.
        task: name of the task, `train-video`.
        name: name of the pod.
        parameters: values of the task's parameters.
        inputs: file of each input artifact.
        claim: PersistentVolumeClaim of the artifacts' files; None for a task without artifacts.
    """
    spec, platform = yaml.safe_load_all(ir.read_text(encoding="utf-8"))
    references = {one["taskInfo"]["name"]: one["componentRef"]["name"] for _, one in ordered_tasks(spec)}
    component = spec["components"][references[task]]
    label = component["executorLabel"]
    container = spec["deploymentSpec"]["executors"][label]["container"]
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][label]
    made = component.get("outputDefinitions", {}).get("artifacts", {})
    given = {
        "inputs": {"parameterValues": parameters, "artifacts": _artifacts(inputs or {})},
        "outputs": {
            "artifacts": _artifacts({one: artifact_path(task, one) for one in made}),
            "outputFile": "/tmp/output.json",
        },
    }
    texts = {"{{$}}": json.dumps(given), "{{$.inputs.parameters['executor_input']}}": json.dumps(given)}
    volumes = [*_volumes(settings), *([_claimed(claim)] if claim else [])]
    identity = {
        key: int(value) if key != "runAsNonRoot" else value for key, value in settings["securityContext"].items()
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {**settings["podMetadata"]["labels"], "workflows.argoproj.io/workflow": name},
            "annotations": settings["podMetadata"]["annotations"],
        },
        "spec": {
            "serviceAccountName": "vl3-launcher",
            "automountServiceAccountToken": True,  # as in pipeline-runner and default-editor
            "restartPolicy": "Never",
            "securityContext": {"fsGroup": identity["runAsGroup"]},  # for the volume of the artifacts
            "containers": [
                {
                    "name": "main",
                    "image": container["image"],
                    "imagePullPolicy": settings["imagePullPolicy"],
                    "command": container["command"],
                    "args": [texts.get(text, text) for text in container["args"]],
                    "env": [*_environment(settings, "configMapAsEnv"), *_environment(settings, "secretAsEnv")],
                    "resources": _resources(container["resources"]),
                    "volumeMounts": [{"name": item["name"], "mountPath": item["path"]} for item in volumes],
                    "securityContext": {
                        **identity,
                        "readOnlyRootFilesystem": True,  # more than KFP asks: the images run so
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }
            ],
            "volumes": [{key: value for key, value in item.items() if key != "path"} for item in volumes],
        },
    }


def ended(cluster: Cluster, pod: str) -> str:
    """Phase of a pod that has ended; empty while it has not."""
    phase = cluster.kubectl("--namespace", NAMESPACE, "get", "pod", pod, "--output", "jsonpath={.status.phase}")
    return phase if phase in ("Succeeded", "Failed") else ""


def _artifacts(paths: Mapping[str, str]) -> dict[str, Any]:
    kind = {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
    return {one: {"artifacts": [{"name": one, "type": kind, "uri": path}]} for one, path in paths.items()}


def _resources(compiled: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {
        "requests": {"cpu": compiled["resourceCpuRequest"], "memory": compiled["resourceMemoryRequest"]},
        "limits": {"cpu": compiled["resourceCpuLimit"], "memory": compiled["resourceMemoryLimit"]},
    }


def _volumes(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The volumes of a pod, each with the path at which it is mounted."""
    empty = [
        {
            "name": item["volumeName"],
            "path": item["mountPath"],
            "emptyDir": {key: item[key] for key in ("medium", "sizeLimit") if key in item},
        }
        for item in settings["emptyDirMounts"]
    ]
    maps = [
        {"name": "ca", "path": item["mountPath"], "configMap": {"name": item["configMapName"], "optional": True}}
        for item in settings["configMapAsVolume"]
    ]
    return [*empty, *maps]


def _claimed(claim: str) -> dict[str, Any]:
    return {"name": "artifacts", "path": ARTIFACTS, "persistentVolumeClaim": {"claimName": claim}}


def _environment(settings: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    reference, name, key = (
        ("configMapKeyRef", "configMapName", "configMapKey")
        if kind == "configMapAsEnv"
        else ("secretKeyRef", "secretName", "secretKey")
    )
    return [
        {
            "name": item["envVar"],
            "valueFrom": {reference: {"name": group[name], "key": item[key], "optional": group["optional"]}},
        }
        for group in settings[kind]
        for item in group["keyToEnv"]
    ]
