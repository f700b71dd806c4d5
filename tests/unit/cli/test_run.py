"""`vl3 run` as a person uses it, against a server of the test's own."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.support.api_server import ApiServer, Fault
from tests.support.pipelines_server import recorded
from tests.support.workflows import TASKS, compile_train
from vl3.cli import main
from vl3.cli import run as run_noun
from vl3.errors import ClusterError
from vl3.pipelines.compile import compile_manifests
from vl3.workflow.failures import note_failure

S3 = ("--data", "s3://bucket/data", "--artifacts", "s3://bucket/artifacts")


@pytest.fixture
def vl3(pipelines_server, monkeypatch, capsys) -> Callable[..., tuple[int, list[str], str]]:
    """Runs `vl3 run ...` here: exit code, lines on stdout, last line on stderr."""
    monkeypatch.setenv("VL3_KFP_ENDPOINT", pipelines_server.endpoint)
    monkeypatch.setattr("vl3.pipelines.submit._POLL_SECONDS", 0.01)

    def run(*arguments: str) -> tuple[int, list[str], str]:
        code = main.run(["run", *arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), (err.splitlines() or [""])[-1]

    return run


@pytest.fixture
def freed(monkeypatch) -> list[Any]:
    """What the cluster was asked to free; no TrainJob is left."""
    asked: list[Any] = []

    def free(run_id: str, namespace: str | None) -> list[str]:
        asked.append((run_id, namespace))
        return []

    monkeypatch.setattr(run_noun, "cancel_jobs", free)
    return asked


def test_submit_says_where_the_run_is_and_not_twice(pipelines_server, vl3) -> None:
    code, out, err = vl3("submit", *S3, "--set", "seed=3", "--set", "data.max_frames=8")
    assert (code, err) == (0, "")
    (kept,) = pipelines_server.runs
    run_id = kept["runtime_config"]["parameters"]["workflow"]["run_id"]
    link = f"{pipelines_server.endpoint}/#/runs/details/{kept['run_id']}"
    assert re.fullmatch(rf"submitted run {run_id} \(workflow [0-9a-f]{{10}} uploaded with the run\): {link}", out[0])
    assert kept["runtime_config"]["parameters"]["workflow"]["overrides"] == [
        "seed=3",
        "data.max_frames=8",
        "launch.backend=trainjob",
    ]
    code, out, _ = vl3("submit", *S3, "--set", "seed=3", "--set", "data.max_frames=8")
    assert (code, out) == (0, [f"run {run_id} is active (PENDING), not submitted again: {link}"])
    assert len(pipelines_server.runs) == 1


def test_submit_says_that_the_version_of_git_is_run(pipelines_server, vl3) -> None:
    manifests = compile_manifests()
    pipeline = yaml.safe_load(manifests["train-pipeline.yaml"])
    version = next(yaml.safe_load_all(manifests["train-versions.yaml"]))
    name = version["metadata"]["name"]
    code, _, err = vl3("submit", *S3, "--version", "git")
    assert code == 2
    assert f"has no pipeline version {name}" in err
    pipelines_server.add_version([pipeline, version])
    code, out, err = vl3("submit", *S3, "--version", "git", "--run-id", "night-7")
    assert (code, err) == (0, "")
    link = f"{pipelines_server.endpoint}/#/runs/details/{pipelines_server.runs[0]['run_id']}"
    assert out == [f"submitted run night-7 (pipeline version {name} from git): {link}"]
    code, out, _ = vl3("status", "night-7")
    assert code == 0
    assert [line.split() for line in out if "check-prerequisites" in line] == [["check-prerequisites", "WAITING"]]


@pytest.mark.parametrize("version", ["", "GIT", "main", "vl3-train-a35b08ed5a"])
def test_another_version_is_refused_before_the_server_is_asked(pipelines_server, vl3, version: str) -> None:
    code, _, err = vl3("submit", *S3, f"--version={version}")
    assert code == 2
    assert "'uploaded'" in err
    assert "'git'" in err
    assert pipelines_server.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit"], "ConfigError: --data is missing"),
        (["submit", *S3, "--recipe", "tinny"], "The nearest is 'tiny'"),
        (["submit", *S3, "--run-id", "a/b"], "run id 'a/b' is not valid in the store"),
        (["submit", "--data", "s3://[b/x", *S3[2:]], "'[b' is not a valid bucket name"),
        (["submit", "--data", "s3:///x", *S3[2:]], "--data s3:///x does not work on a cluster"),
        (["submit", *S3[:2], "--artifacts", "s3://b/../x"], "is not a valid bucket name"),
        (["submit", *S3[:2], "--artifacts", "s3://bucket/../x"], "has an empty part, '.' or '..'"),
        (["submit", *S3, "--endpoint", "http://[x"], "endpoint 'http://[x' is not a URL"),
        (["submit", *S3, "--endpoint", "http://x:port"], "endpoint 'http://x:port' is not a URL"),
        (["submit", *S3, "--endpoint", "nowhere"], "endpoint 'nowhere' is not a URL"),
        (["status", "night-7"], "run 'night-7' is not known to"),
        (["logs", "night-7", "report"], "run 'night-7' is not known to"),
        (["cancel", "night-7"], "run 'night-7' is not known to"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(vl3, pipelines_server, arguments: list[str], message: str) -> None:
    code, out, err = vl3(*arguments)
    assert (code, out) == (2, [])
    assert message in err
    assert pipelines_server.runs == []


def test_a_server_that_is_away_ends_with_4(vl3) -> None:
    code, _, err = vl3("list", "--endpoint", "http://127.0.0.1:9")
    assert code == 4
    assert err.startswith("ClusterError: http://127.0.0.1:9 cannot be reached")


def test_list_is_a_table(vl3, pipelines_server, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no run is
    assert vl3("list") == (0, ["no run of this workflow yet"], "")
    pipelines_server.add_run("night-7", "FAILED")
    pipelines_server.add_run("night-8")
    _, out, _ = vl3("list")
    assert [line.split()[:3] for line in out] == [
        ["run", "state", "recipe"],
        ["night-8", "RUNNING", "tiny"],
        ["night-7", "FAILED", "tiny"],
    ]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The compiled workflow."""
    path = tmp_path_factory.mktemp("ir") / "train.yaml"
    compile_train(path)
    return next(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.fixture
def api_server(tmp_path, monkeypatch) -> Iterator[ApiServer]:
    """A cluster that the kubeconfig names, with the recorded pods of both runs."""
    server = ApiServer(tmp_path)
    for pod in recorded("pods-of-both-runs")["items"]:
        server.put("pods", pod)
    monkeypatch.setattr("kubernetes.config.KUBE_CONFIG_DEFAULT_LOCATION", str(server.kubeconfig))
    yield server
    server.stop()


@pytest.fixture
def no_cluster(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("kubernetes.config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))


def _note(monkeypatch, uri: str, at: str, message: str, task: str = "check-prerequisites") -> None:
    """A failed task's note, written at a time."""
    monkeypatch.setattr("vl3.workflow.failures.now", lambda: at)
    note_failure(uri, "rec-fail", task=task, family="DataError", message=message)


@pytest.fixture
def failed(pipelines_server, spec: dict[str, Any], tmp_path) -> str:
    """The recorded failed run, whose artifacts are in a folder; returns their URI."""
    run = pipelines_server.add_recorded_run("failing-failed", spec)
    uri = (tmp_path / "artifacts").as_uri()
    run["runtime_config"]["parameters"]["workflow"]["artifacts_uri"] = uri
    return uri


def _lines(out: list[str]) -> dict[str, list[str]]:
    """Task -> its words on a line of `vl3 run status`."""
    return {line.split()[0]: line.split()[1:] for line in out[1:]}


def test_status_shows_every_task_with_the_error_that_it_noted(vl3, monkeypatch, failed: str) -> None:
    _note(monkeypatch, failed, "2026-11-28T19:13:05.700+00:00", "s3://vl3/nothing: the annotations\nof a run")
    code, out, _ = vl3("status", "rec-fail")
    assert code == 0
    assert out[0].startswith("run rec-fail: FAILED  http://")
    assert list(_lines(out)) == TASKS
    expected = "check-prerequisites FAILED DataError: s3://vl3/nothing: the annotations"
    assert " ".join(out[1].split()) == expected
    assert _lines(out)["validate-data"] == ["SKIPPED"]
    assert _lines(out)["finish"] == ["SUCCEEDED"]


@pytest.mark.parametrize("at", ["2026-11-28T19:12:23.000+00:00", "2026-11-28T19:14:00.000+00:00", "no time"])
@pytest.mark.usefixtures("api_server")
def test_a_note_of_another_attempt_says_nothing_and_the_pod_does(vl3, monkeypatch, failed: str, at: str) -> None:
    _note(monkeypatch, failed, at, "of another attempt")
    _, out, _ = vl3("status", "rec-fail")
    assert " ".join(_lines(out)["check-prerequisites"]) == "FAILED its container main ended with exit code 1"


def test_status_does_without_the_store_and_the_cluster_and_says_so(
    vl3, pipelines_server, spec, monkeypatch, no_cluster: None
) -> None:
    pipelines_server.add_recorded_run("failing-failed", spec)
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    code, out, err = vl3("status", "rec-fail")
    assert (code, err) == (0, "")
    assert _lines(out)["check-prerequisites"] == ["FAILED"]
    assert len(out) == 1 + len(TASKS) + 2
    assert out[-2].startswith("note: the errors of failed tasks could not be read: ")
    assert "127.0.0.1:9" in out[-2]
    assert out[-1].startswith("note: the states of pods could not be read: no cluster is configured")


def test_the_status_of_a_run_that_is_not_ours(vl3, pipelines_server, spec, no_cluster: None) -> None:
    run = pipelines_server.add_recorded_run("failing-failed", spec)
    run["runtime_config"] = {"parameters": {"x": 1}}
    code, out, _ = vl3("status", run["run_id"])
    assert (code, _lines(out)["check-prerequisites"]) == (0, ["FAILED"])
    assert [line.partition(" could")[0] for line in out[1 + len(TASKS) :]] == ["note: the states of pods"]


@pytest.mark.usefixtures("api_server")
def test_a_pod_that_cannot_start_is_shown_with_the_clusters_reason(vl3, pipelines_server, spec) -> None:
    pipelines_server.add_recorded_run("step-cannot-be-pulled", spec)
    _, out, _ = vl3("status", "rec-cancel")
    assert out[0].startswith("run rec-cancel: RUNNING")
    words = _lines(out)
    assert words["check-prerequisites"] == ["SUCCEEDED"]
    assert words["validate-data"][0] == "PENDING"
    reason = " ".join(words["validate-data"][1:])
    assert reason.startswith("its container main cannot start: ImagePullBackOff: Back-off pulling image")
    assert "no such host" in reason


def test_a_pod_without_a_node_is_shown_with_the_schedulers_reason(vl3, pipelines_server, spec, api_server) -> None:
    pipelines_server.add_recorded_run("step-cannot-be-pulled", spec)
    (pod,) = (one for one in recorded("pods-of-both-runs")["items"] if one["status"]["phase"] == "Pending")
    message = "0/1 nodes are available: 1 Insufficient cpu."
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    api_server.put("pods", pod | {"status": {"phase": "Pending", "conditions": [scheduled]}})
    _, out, _ = vl3("status", "rec-cancel", "--json")
    (task,) = (task for task in json.loads("\n".join(out))["tasks"] if task["task"] == "validate-data")
    assert (task["state"], task["text"]) == ("PENDING", f"it finds no node: {message}")


def test_status_follow_ends_with_the_runs_end(vl3, pipelines_server, monkeypatch, failed: str) -> None:
    _note(monkeypatch, failed, "2026-11-28T19:13:05.700+00:00", "no data")
    pipelines_server.add_run("good", "SUCCEEDED")
    assert vl3("status", "good", "--follow") == (0, ["run: SUCCEEDED"], "")
    code, out, err = vl3("status", "rec-fail", "--follow")
    skipped = [f"{task}: SKIPPED" for task in TASKS[1:-1]]
    assert (code, out) == (1, ["check-prerequisites: FAILED", *skipped, "finish: SUCCEEDED", "run: FAILED"])
    assert err.startswith(
        "Vl3Error: run rec-fail ended as FAILED in check-prerequisites (DataError: no data). `vl3 run lo"
    )


@pytest.mark.usefixtures("api_server")
def test_status_follow_of_a_run_that_is_cancelled(vl3, pipelines_server, spec) -> None:
    run = pipelines_server.add_recorded_run("step-cannot-be-pulled", spec)
    pipelines_server.post(f"/apis/v2beta1/runs/{run['run_id']}:terminate", {})
    pipelines_server.polls_until_end = 3
    code, out, err = vl3("status", "rec-cancel", "--follow")
    assert (code, out[0]) == (1, "check-prerequisites: SUCCEEDED")
    assert out[1].startswith("validate-data: PENDING (its container main cannot start: ImagePullBackOff")
    skipped = [f"{task}: SKIPPED" for task in TASKS[4:-1]]
    ended = ["import-start: SKIPPED", "build-data: SKIPPED", "validate-data: CANCELED", *skipped, "finish: SUCCEEDED"]
    assert out[2:] == ["run: CANCELING", *ended, "run: CANCELED"]
    assert re.fullmatch(
        r"Vl3Error: run rec-cancel was cancelled \(http://.*\); submitted again, it resumes where it stopped\.", err
    )


def test_what_cannot_be_read_is_said_once_while_a_run_is_followed(
    vl3, pipelines_server, spec, no_cluster: None
) -> None:
    run = pipelines_server.add_recorded_run("step-cannot-be-pulled", spec)
    pipelines_server.post(f"/apis/v2beta1/runs/{run['run_id']}:terminate", {})
    _, out, _ = vl3("status", "rec-cancel", "--follow")
    assert [line.partition(":")[0] for line in out].count("note") == 1
    assert "validate-data: RUNNING" in out


def test_list_calls_a_cancelled_run_cancelled(vl3, pipelines_server, spec, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no run is
    pipelines_server.add_recorded_run("cancelled", spec)
    pipelines_server.add_recorded_run("failing-failed", spec)
    _, out, _ = vl3("list")
    assert [line.split()[:2] for line in out[1:]] == [["rec-cancel", "CANCELED"], ["rec-fail", "FAILED"]]


def _logged_run(pipelines_server, spec: dict[str, Any], state: str = "RUNNING") -> str:
    """A run whose server knows the pod of `train-vision-adaptation` (tests/unit/pipelines/test_submit.py)."""
    details = [
        {"display_name": "train-stage", "state": state},
        {"display_name": "executor", "state": state, "child_tasks": [{"pod_name": "w-2555505217"}]},
    ]
    run = pipelines_server.add_run("night-7", pipeline_spec=spec, run_details={"task_details": details})
    pipelines_server.logs["w-retry-system-container-impl-2555505217"] = "of the server"
    return run["run_id"]


def _pod(kfp_id: str, phase: str) -> dict[str, Any]:
    labels = {"pipeline/runid": kfp_id, "vl3.dev/task": "train-vision-adaptation"}
    containers = [{"name": "main", "state": {"terminated": {"exitCode": 0}}}]
    return {
        "metadata": {"name": "p", "labels": labels, "creationTimestamp": "2026-11-28T19:00:00Z"},
        "status": {"phase": phase, "containerStatuses": containers},
    }


@pytest.mark.parametrize("follow", [[], ["--follow"]])
def test_logs_come_from_the_pod(vl3, pipelines_server, api_server: ApiServer, spec, follow: list[str]) -> None:
    api_server.put("pods", _pod(_logged_run(pipelines_server, spec), "Succeeded"))
    api_server.logs["p"] = [["2026-11-28T19:00:00Z a", "2026-11-28T19:00:01Z b"]]
    assert vl3("logs", "night-7", "train-vision-adaptation", *follow) == (0, ["a", "b"], "")
    assert not any(path.endswith("/log") for path in pipelines_server.paths("GET"))


@pytest.mark.usefixtures("api_server")
def test_logs_of_a_pod_that_is_gone_come_from_the_server(vl3, pipelines_server, spec) -> None:
    _logged_run(pipelines_server, spec, "SUCCEEDED")
    for follow in ([], ["--follow"]):
        assert vl3("logs", "night-7", "train-vision-adaptation", *follow) == (0, ["of the server"], "")
    code, _, err = vl3("logs", "night-7", "report")
    assert (code, err.startswith("ConfigError: task report of run night-7 has no log: it has not started")) == (2, True)
    code, _, err = vl3("logs", "night-7", "train")
    assert code == 2
    assert err.startswith(
        "ConfigError: run night-7 has no task 'train'. Its tasks: check-prerequisites, import-start, build-data,"
    )


@pytest.mark.usefixtures("no_cluster")
def test_logs_without_a_cluster_are_the_servers(vl3, pipelines_server, spec) -> None:
    _logged_run(pipelines_server, spec)
    code, out, err = vl3("logs", "night-7", "train-vision-adaptation")
    assert (code, out) == (0, ["of the server"])
    assert err.startswith("note: the log is the server's own copy, because the pods cannot be read: no cluster is")
    code, out, err = vl3("logs", "night-7", "train-vision-adaptation", "--follow")
    assert (code, out) == (2, [])
    assert err.startswith(
        "ConfigError: the log of train-vision-adaptation cannot be followed, because its pods cannot be read: no "
        "cluster is configured"
    )


def test_logs_of_a_hidden_namespace_say_so(vl3, pipelines_server, api_server: ApiServer, spec) -> None:
    _logged_run(pipelines_server, spec)
    said = 'pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "team"'
    api_server.faults.append(Fault("GET pods", status=403, message=said))
    code, out, err = vl3("logs", "night-7", "train-vision-adaptation")
    assert (code, out) == (0, ["of the server"])
    assert "not allowed to list pods in namespace team" in err
    assert err.endswith("to bind it to this identity.")


def test_cancel_waits_for_the_exit_handler_then_sees_that_the_gpus_are_free(
    vl3, pipelines_server, spec, freed: list[Any]
) -> None:
    pipelines_server.add_recorded_run("step-cannot-be-pulled", spec)
    code, out, _ = vl3("cancel", "rec-cancel", "--namespace", "team-a")
    assert code == 0
    assert out == [
        "run rec-cancel has ended (CANCELED). Its exit handler has freed its GPUs.",
        "it has no TrainJobs left; its GPUs are free",
    ]
    assert freed == [("rec-cancel", "team-a")]
    assert vl3("cancel", "rec-cancel")[1] == ["run rec-cancel has already ended (CANCELED); nothing to cancel"]


@pytest.mark.usefixtures("freed")
def test_cancel_says_how_an_exit_handler_ended_that_did_not_succeed(vl3, pipelines_server, spec) -> None:
    run = pipelines_server.add_recorded_run("step-cannot-be-pulled", spec)
    for node in pipelines_server.ends[run["run_id"]]["run_details"]["task_details"]:
        if node["display_name"] == "finish":
            node["state"] = "FAILED"
    assert vl3("cancel", "rec-cancel")[1][0].endswith(
        "has ended (CANCELED). Its exit handler did not end well (FAILED)."
    )


def test_cancel_of_a_run_that_has_ended_says_so(vl3, pipelines_server, freed: list[Any]) -> None:
    pipelines_server.add_run("night-7", "SUCCEEDED")
    assert vl3("cancel", "night-7")[1] == ["run night-7 has already ended (SUCCEEDED); nothing to cancel"]
    assert freed == []


def test_cancel_names_what_it_freed(vl3, pipelines_server, monkeypatch) -> None:
    monkeypatch.setattr(run_noun, "cancel_jobs", lambda run_id, namespace: ["vl3-abc-video-1"])
    pipelines_server.add_run("night-7")
    assert vl3("cancel", "night-7")[1][1] == "deleted vl3-abc-video-1; its GPUs are free"


def _no_cluster(run_id: str, namespace: str | None) -> list[str]:
    raise ClusterError("no kubeconfig.")


def test_cancel_says_when_it_cannot_see_the_cluster(vl3, pipelines_server, monkeypatch) -> None:
    monkeypatch.setattr(run_noun, "cancel_jobs", _no_cluster)
    pipelines_server.add_run("night-7")
    code, _, err = vl3("cancel", "night-7")
    assert code == 4
    assert "it could not be checked whether its TrainJobs are gone: no kubeconfig. The namespace's collector" in err


def test_cancel_takes_the_exit_handlers_word_when_it_cannot_see_the_cluster(
    vl3, pipelines_server, spec, monkeypatch
) -> None:
    monkeypatch.setattr(run_noun, "cancel_jobs", _no_cluster)
    pipelines_server.add_recorded_run("step-cannot-be-pulled", spec)
    code, out, err = vl3("cancel", "rec-cancel")
    assert (code, err) == (0, "")
    assert out[1] == "note: this was not checked from here: no kubeconfig."


def test_the_command_is_found_without_kfp() -> None:
    program = "import sys, vl3.cli.main; sys.exit(any(name in sys.modules for name in ('kfp', 'torch', 'mlflow')))"
    assert (
        subprocess.run([sys.executable, "-c", program], cwd=main.__file__.split("/src/")[0], check=False).returncode
        == 0
    )
