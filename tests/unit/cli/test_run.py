"""`vl3 run` as a person uses it, against a server of the test's own."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.support.api_server import ApiServer, Fault
from tests.support.workflows import compile_train
from vl3.cli import main
from vl3.cli import run as run_noun
from vl3.errors import ClusterError
from vl3.pipelines.compile import compile_manifests

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


def _spec(tmp_path) -> dict[str, Any]:
    compile_train(tmp_path / "train.yaml")
    return next(yaml.safe_load_all((tmp_path / "train.yaml").read_text(encoding="utf-8")))


def test_status_shows_every_task(vl3, pipelines_server, tmp_path) -> None:
    details = [{"display_name": "validate-data", "state": "FAILED", "error": {"message": "exit code 1"}}]
    pipelines_server.add_run("night-7", pipeline_spec=_spec(tmp_path), run_details={"task_details": details})
    code, out, _ = vl3("status", "night-7")
    assert code == 0
    assert out[0].startswith("run night-7: RUNNING  http://")
    assert [line.split() for line in out[1:4]] == [
        ["check-prerequisites", "WAITING"],
        ["validate-data", "FAILED", "exit", "code", "1"],
        ["train-vision-adaptation", "WAITING"],
    ]
    assert len(out) == 11


def test_status_follow_ends_with_the_runs_end(vl3, pipelines_server, tmp_path) -> None:
    details = [{"display_name": "validate-data", "state": "FAILED", "error": {"message": "exit code 1"}}]
    pipelines_server.add_run("good", "SUCCEEDED")
    pipelines_server.add_run("bad", "FAILED", pipeline_spec=_spec(tmp_path), run_details={"task_details": details})
    assert vl3("status", "good", "--follow") == (0, ["run: SUCCEEDED"], "")
    code, out, err = vl3("status", "bad", "--follow")
    assert (code, out) == (1, ["validate-data: FAILED", "run: FAILED"])
    assert err.startswith("Vl3Error: run bad ended as FAILED in validate-data (exit code 1). `vl3 run logs bad TASK`")


def _logged_run(pipelines_server, tmp_path, state: str = "RUNNING") -> str:
    """A run whose server knows the pod of `train-vision-adaptation` (tests/unit/pipelines/test_submit.py)."""
    details = [
        {"display_name": "train-stage", "state": state},
        {"display_name": "executor", "state": state, "child_tasks": [{"pod_name": "w-2555505217"}]},
    ]
    spec = _spec(tmp_path)
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


@pytest.fixture
def api_server(tmp_path, monkeypatch) -> Iterator[ApiServer]:
    """A cluster that the kubeconfig names."""
    server = ApiServer(tmp_path)
    monkeypatch.setattr("kubernetes.config.KUBE_CONFIG_DEFAULT_LOCATION", str(server.kubeconfig))
    yield server
    server.stop()


@pytest.mark.parametrize("follow", [[], ["--follow"]])
def test_logs_come_from_the_pod(vl3, pipelines_server, api_server: ApiServer, tmp_path, follow: list[str]) -> None:
    api_server.put("pods", _pod(_logged_run(pipelines_server, tmp_path), "Succeeded"))
    api_server.logs["p"] = [["2026-11-28T19:00:00Z a", "2026-11-28T19:00:01Z b"]]
    assert vl3("logs", "night-7", "train-vision-adaptation", *follow) == (0, ["a", "b"], "")
    assert not any(path.endswith("/log") for path in pipelines_server.paths("GET"))


@pytest.mark.usefixtures("api_server")
def test_logs_of_a_pod_that_is_gone_come_from_the_server(vl3, pipelines_server, tmp_path) -> None:
    _logged_run(pipelines_server, tmp_path, "SUCCEEDED")
    for follow in ([], ["--follow"]):
        assert vl3("logs", "night-7", "train-vision-adaptation", *follow) == (0, ["of the server"], "")
    code, _, err = vl3("logs", "night-7", "report")
    assert (code, err.startswith("ConfigError: task report of run night-7 has no log: it has not started")) == (2, True)
    code, _, err = vl3("logs", "night-7", "train")
    assert code == 2
    assert err.startswith(
        "ConfigError: run night-7 has no task 'train'. Its tasks: check-prerequisites, validate-data,"
    )


def test_logs_without_a_cluster_are_the_servers(vl3, pipelines_server, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("kubernetes.config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    _logged_run(pipelines_server, tmp_path)
    code, out, err = vl3("logs", "night-7", "train-vision-adaptation")
    assert (code, out) == (0, ["of the server"])
    assert err.startswith("note: the log is the server's own copy, because the pods cannot be read: no cluster is")
    code, out, err = vl3("logs", "night-7", "train-vision-adaptation", "--follow")
    assert (code, out) == (2, [])
    assert err.startswith(
        "ConfigError: the log of train-vision-adaptation cannot be followed, because its pods cannot be read: no "
        "cluster is configured"
    )


def test_logs_of_a_hidden_namespace_say_so(vl3, pipelines_server, api_server: ApiServer, tmp_path) -> None:
    _logged_run(pipelines_server, tmp_path)
    said = 'pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "team"'
    api_server.faults.append(Fault("GET pods", status=403, message=said))
    code, out, err = vl3("logs", "night-7", "train-vision-adaptation")
    assert (code, out) == (0, ["of the server"])
    assert "not allowed to list pods in namespace team" in err
    assert err.endswith("to bind it to this identity.")


def test_cancel_waits_then_sees_that_the_gpus_are_free(vl3, pipelines_server, freed: list[Any]) -> None:
    pipelines_server.add_run("night-7")
    code, out, _ = vl3("cancel", "night-7", "--namespace", "team-a")
    assert code == 0
    assert out == [
        "run night-7 has ended (CANCELED). Its exit handler was to free its GPUs; looking whether they are.",
        "it has no TrainJobs left; its GPUs are free",
    ]
    assert freed == [("night-7", "team-a")]


def test_cancel_of_a_run_that_has_ended_says_so(vl3, pipelines_server, freed: list[Any]) -> None:
    pipelines_server.add_run("night-7", "SUCCEEDED")
    assert vl3("cancel", "night-7")[1] == ["run night-7 has already ended (SUCCEEDED); nothing to cancel"]
    assert freed == []


def test_cancel_names_what_it_freed(vl3, pipelines_server, monkeypatch) -> None:
    monkeypatch.setattr(run_noun, "cancel_jobs", lambda run_id, namespace: ["vl3-abc-video-1"])
    pipelines_server.add_run("night-7")
    assert vl3("cancel", "night-7")[1][1] == "deleted vl3-abc-video-1; its GPUs are free"


def test_cancel_says_when_it_cannot_see_the_cluster(vl3, pipelines_server, monkeypatch) -> None:
    def free(run_id: str, namespace: str | None) -> list[str]:
        raise ClusterError("no kubeconfig.")

    monkeypatch.setattr(run_noun, "cancel_jobs", free)
    pipelines_server.add_run("night-7")
    code, _, err = vl3("cancel", "night-7")
    assert code == 4
    assert "it could not be checked whether its TrainJobs are gone: no kubeconfig. Its exit handler deletes" in err


def test_the_command_is_found_without_kfp() -> None:
    program = "import sys, vl3.cli.main; sys.exit(any(name in sys.modules for name in ('kfp', 'torch', 'mlflow')))"
    assert (
        subprocess.run([sys.executable, "-c", program], cwd=main.__file__.split("/src/")[0], check=False).returncode
        == 0
    )
