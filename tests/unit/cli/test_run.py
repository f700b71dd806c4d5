"""`vl3 run` as a person uses it, against a server of the test's own."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml

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
