"""What the compiled workflow asks of a cluster, for every task."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.workflows import TASKS, TRAIN, compile_train
from vl3.components import images
from vl3.config.parameters import WorkflowParameters
from vl3.pipelines.compile import compile_workflow
from vl3.pipelines.pod_settings import settings_of
from vl3.pipelines.workflows import get_workflow

MONTH_SECONDS = 31 * 24 * 3600
"""For the launchers, which have no deadline: they wait for quota and train for weeks."""


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The compiled workflow: what to run, and how on Kubernetes."""
    path = tmp_path_factory.mktemp("ir") / "train.yaml"
    compile_train(path)
    spec, platform = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.fixture
def pods(documents: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each task's pod: container, retry policy and Kubernetes settings in one."""
    spec, platform = documents
    tasks = spec["root"]["dag"]["tasks"] | spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    found = {}
    for task in tasks.values():
        component = spec["components"][task["componentRef"]["name"]]
        if "executorLabel" in component:
            label = component["executorLabel"]
            container = spec["deploymentSpec"]["executors"][label]["container"]
            found[task["taskInfo"]["name"]] = {"container": container, "task": task, **platform[label]}
    return found


def test_every_task_has_a_pod(pods: dict[str, dict[str, Any]]) -> None:
    assert sorted(pods) == sorted(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_pod_is_restricted_sized_and_labelled(pods: dict[str, dict[str, Any]], name: str) -> None:
    pod = pods[name]
    assert pod["securityContext"] == {"runAsUser": "65532", "runAsGroup": "65532", "runAsNonRoot": True}
    assert pod["imagePullPolicy"] == "IfNotPresent"
    resources = pod["container"]["resources"]
    for kind in ("resourceCpuRequest", "resourceCpuLimit", "resourceMemoryRequest", "resourceMemoryLimit"):
        assert resources[kind]
    labels = pod["podMetadata"]["labels"]
    assert labels["app.kubernetes.io/part-of"] == "vl3"
    assert labels["vl3.dev/task"] == name
    assert pod["podMetadata"]["annotations"] == {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    assert {"volumeName": "tmp", "mountPath": "/tmp"} in pod["emptyDirMounts"]
    (authority,) = pod["configMapAsVolume"]
    assert (authority["configMapName"], authority["mountPath"], authority["optional"]) == (
        "vl3-ca",
        "/etc/vl3/ca",
        True,
    )


@pytest.mark.parametrize("name", TASKS)
def test_settings_and_secrets_come_by_name(pods: dict[str, dict[str, Any]], name: str) -> None:
    found = {
        (kind, entry["optional"]): {key["envVar"] for key in entry["keyToEnv"]}
        for kind in ("configMapAsEnv", "secretAsEnv")
        for entry in pods[name][kind]
        if entry.get("secretName") not in ("vl3-hub", "vl3-endpoints")
    }
    assert found == {
        ("configMapAsEnv", False): {"HOME"},
        ("configMapAsEnv", True): {"AWS_ENDPOINT_URL", "AWS_REGION", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"},
        ("secretAsEnv", False): {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
        ("secretAsEnv", True): {"AWS_SESSION_TOKEN"},
    }
    secrets = {entry["secretName"] for entry in pods[name]["secretAsEnv"]}
    assert secrets == {"vl3-s3"} | {"import-start": {"vl3-hub"}, "evaluate": {"vl3-endpoints"}}.get(name, set())
    assert {entry["configMapName"] for entry in pods[name]["configMapAsEnv"]} == {"vl3-settings"}


def test_only_the_step_that_imports_knows_the_hub(pods: dict[str, dict[str, Any]]) -> None:
    hub = {name: entry for name in pods for entry in pods[name]["secretAsEnv"] if entry["secretName"] == "vl3-hub"}
    assert set(hub) == {"import-start"}
    assert {key["envVar"] for key in hub["import-start"]["keyToEnv"]} == {"HF_TOKEN", "HF_ENDPOINT"}
    assert hub["import-start"]["optional"] is True


def test_only_a_step_that_asks_endpoints_knows_their_key(tmp_path: Path) -> None:
    for workflow, asking in (("train", {"evaluate"}), ("curate", {"curate-images", "curate-videos"})):
        path = tmp_path / f"{workflow}.yaml"
        compile_workflow(get_workflow(workflow), WorkflowParameters(), path)
        _, platform = yaml.safe_load_all(path.read_text(encoding="utf-8"))
        pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        found = {
            name.removeprefix("exec-")
            for name, pod in pods.items()
            for entry in pod["secretAsEnv"]
            if entry["secretName"] == "vl3-endpoints"
        }
        assert found == asking


def test_only_what_a_retry_can_cure_is_retried(pods: dict[str, dict[str, Any]]) -> None:
    retries = {name: pod["task"].get("retryPolicy", {}).get("maxRetryCount", 0) for name, pod in pods.items()}
    assert retries == {name: {"check-prerequisites": 0, "finish": 4}.get(name, 2) for name in TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_the_last_retry_of_the_longest_step_is_still_made(pods: dict[str, dict[str, Any]], name: str) -> None:
    """Argo counts `backoffMaxDuration` from the first pod's creation, over all tries and the pauses between them."""
    policy = pods[name]["task"]["retryPolicy"]
    tries = 1 + policy.get("maxRetryCount", 0)
    pauses = [_seconds(policy["backoffDuration"]) * policy["backoffFactor"] ** number for number in range(tries - 1)]
    longest = int(pods[name].get("activeDeadlineSeconds", MONTH_SECONDS))
    assert _seconds(policy["backoffMaxDuration"]) > tries * longest + sum(pauses)


def _seconds(duration: str) -> int:
    """KFP's compiler passes the whole seconds on, which Argo reads as an int and counts in int64 nanoseconds."""
    assert duration.endswith("s")
    assert int(duration[:-1]) * 10**9 < 2**63
    return int(duration[:-1])


def test_launchers_have_no_deadline_of_their_own_and_all_others_have(pods: dict[str, dict[str, Any]]) -> None:
    without = {name for name, pod in pods.items() if "activeDeadlineSeconds" not in pod}
    assert without == {name for name in TASKS if name.startswith("train-")}
    assert pods["finish"]["activeDeadlineSeconds"] == "1800"
    assert {pods[name]["activeDeadlineSeconds"] for name in ("build-data", "validate-data", "evaluate")} == {"604800"}


def test_images_by_role(pods: dict[str, dict[str, Any]]) -> None:
    expected = {"launcher": images.LAUNCHER, "data": images.DATA, "evaluator": images.EVALUATOR}
    for name, pod in pods.items():
        assert pod["container"]["image"] == expected[settings_of(name).role]
        assert pod["podMetadata"]["labels"]["app.kubernetes.io/component"] == settings_of(name).role


@pytest.mark.parametrize("name", TASKS)
def test_a_pod_has_the_size_of_the_recipe(pods: dict[str, dict[str, Any]], name: str) -> None:
    of_roles = {"launcher": ("100m", "1024Mi"), "data": ("1000m", "2048Mi"), "evaluator": ("1000m", "4096Mi")}
    cpu, memory = of_roles[settings_of(name).role]
    found = {key: value for key, value in pods[name]["container"]["resources"].items() if key.startswith("resource")}
    assert found == {
        "resourceCpuRequest": cpu,
        "resourceCpuLimit": "2000m",
        "resourceMemoryRequest": memory,
        "resourceMemoryLimit": memory,
    }


def test_an_override_sizes_the_pods_of_its_kind_alone(tmp_path: Path) -> None:
    overrides = ("step_pods.data.cpus=0.25", "step_pods.data.memory_gib=0.5", "step_pods.data.shm_gib=0.125")
    compile_workflow(TRAIN, WorkflowParameters(recipe="tiny", overrides=overrides), tmp_path / "train.yaml")
    spec, platform = yaml.safe_load_all((tmp_path / "train.yaml").read_text(encoding="utf-8"))
    executors = spec["deploymentSpec"]["executors"]
    resources = executors["exec-validate-data"]["container"]["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceMemoryLimit"]) == ("250m", "512Mi")
    assert executors["exec-evaluate"]["container"]["resources"]["resourceCpuRequest"] == "1000m"
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-validate-data"]
    assert {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "128Mi"} in settings[
        "emptyDirMounts"
    ]


def test_evaluation_has_shared_memory(pods: dict[str, dict[str, Any]]) -> None:
    shm = {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "512Mi"}
    assert [name for name, pod in pods.items() if shm in pod["emptyDirMounts"]] == ["evaluate"]


def test_no_value_of_a_secret_and_no_cache_in_the_workflow(documents: tuple[dict[str, Any], dict[str, Any]]) -> None:
    spec, _ = documents
    dags = [spec["root"]["dag"], spec["components"]["comp-exit-handler-1"]["dag"]]
    caching = [task.get("cachingOptions", {}) for dag in dags for task in dag["tasks"].values()]
    assert not any(options.get("enableCache") for options in caching)
