"""The exit handler: what it frees, what it tells MLflow, and in which order."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from vl3.config.overrides import apply_overrides
from vl3.errors import ClusterError, ConfigError
from vl3.launch.kube import client as kube_client
from vl3.launch.kube import connection, owner
from vl3.steps import finish
from vl3.steps.finish import final_state, find_failure
from vl3.workflow.failures import note_failure, noted_failures
from vl3.workflow.key import KeyParts
from vl3.workflow.step import StepRequest, StepWork

NO_PARTS = KeyParts(config={}, inputs={}, modules={}, libraries={})


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was done, in order; stands for MLflow."""
    done: list[Any] = []
    monkeypatch.setattr(finish, "finish_parent_run", lambda request, state, tags: done.append((state, dict(tags))))
    monkeypatch.setattr(connection, "connect", lambda: (_ for _ in ()).throw(ConfigError("there is no cluster")))
    return done


@pytest.fixture
def request_at_end(request_of_tiny: StepRequest) -> Callable[..., StepRequest]:
    def make(state: str, *overrides: str, message: str | None = None) -> StepRequest:
        values = {"state": state, "task": "exit-handler-1", "message": message}
        return replace(request_of_tiny, values=values, config=apply_overrides(request_of_tiny.config, overrides))

    return make


def _run(request: StepRequest) -> Any:
    return finish.run(
        StepWork(
            request=request, parts=KeyParts(config={}, inputs={}, modules={}, libraries={}), progress=lambda *_: None
        )
    )


def _collector(monkeypatch: pytest.MonkeyPatch, collect: Callable[[str], list[str]]) -> None:
    module = ModuleType("vl3.launch.collect")
    module.cancel_run = collect  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vl3.launch.collect", module)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("SUCCEEDED", "FINISHED"),
        ("COMPLETE", "FINISHED"),
        ("FAILED", "FAILED"),
        ("Error", "FAILED"),
        ("CANCELED", "KILLED"),
        ("RUNNING", "KILLED"),
        ("None", "KILLED"),
    ],
)
def test_the_engines_word_becomes_mlflows(word: str, state: str) -> None:
    assert final_state(word) == state


def test_a_good_run_is_finished_and_says_nothing_of_failures(request_at_end, log: list[Any]) -> None:
    outcome = _run(request_at_end("SUCCEEDED"))
    assert log == [("FINISHED", {"vl3.state": "FINISHED", "vl3.failed_task": "", "vl3.error": ""})]
    assert outcome.values == {"state": "FINISHED", "failed_task": None, "freed": []}


def test_a_failed_run_names_the_task_by_its_note_and_keeps_the_note(request_at_end, log: list[Any]) -> None:
    request = request_at_end("FAILED")
    uri = request.artifacts_uri
    note_failure(uri, request.run_id, task="train-video", family="ClusterError", message="node lost")
    assert _run(request).values["failed_task"] == "train-video"
    state, tags = log[0]
    assert (state, tags["vl3.failed_task"], tags["vl3.error"]) == ("FAILED", "train-video", "ClusterError: node lost")
    assert [note.task for note in noted_failures(uri, request.run_id)] == ["train-video"], "`vl3 run status` reads it"


def test_a_cancelled_run_is_killed_even_if_an_earlier_try_of_a_step_failed(request_at_end, log: list[Any]) -> None:
    request = request_at_end("RUNNING")
    assert _run(request).values == {"state": "KILLED", "failed_task": None, "freed": []}
    assert log == [("KILLED", {"vl3.state": "KILLED", "vl3.failed_task": "", "vl3.error": ""})]
    note_failure(request.artifacts_uri, request.run_id, task="train-video", family="ClusterError", message="node lost")
    assert _run(request).values["failed_task"] == "train-video"
    assert (log[1][0], log[1][1]["vl3.error"]) == ("KILLED", "ClusterError: node lost")


def test_without_a_note_the_engines_own_message_has_to_do(request_at_end) -> None:
    failure = find_failure(request_at_end("FAILED", message="OOMKilled"))
    assert failure is not None
    assert (failure.task, failure.message) == ("exit-handler-1", "OOMKilled")
    assert find_failure(request_at_end("FAILED")) is None


def test_a_store_that_fails_does_not_keep_the_rest_from_being_done(request_at_end, caplog) -> None:
    request = replace(request_at_end("FAILED"), artifacts_uri="ftp://host/x")
    assert find_failure(request) is None
    assert "the failed task is not known" in caplog.text


def test_trainjobs_are_removed_before_mlflow_is_told(request_at_end, log: list[Any], monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    _collector(monkeypatch, lambda run_id: log.append(run_id) or ["vl3-abc-video-1"])
    outcome = _run(request_at_end("FAILED", "launch.backend=trainjob"))
    assert log[0] == "test-run"
    assert log[1][0] == "FAILED"
    assert outcome.values["freed"] == ["vl3-abc-video-1"]
    assert "deleted 1 TrainJobs and waited until their GPUs were free: vl3-abc-video-1" in caplog.text


def test_a_cluster_that_does_not_answer_fails_the_task_after_mlflow_was_told(
    request_at_end, log: list[Any], monkeypatch
) -> None:
    def collect(run_id: str) -> list[str]:
        raise ClusterError("the API server does not answer")

    _collector(monkeypatch, collect)
    with pytest.raises(ClusterError, match="does not answer"):
        _run(request_at_end("FAILED", "launch.backend=trainjob"))
    assert [entry[0] for entry in log] == ["FAILED"]


def test_the_images_of_the_steps_are_said_to_mlflow(
    log: list[Any], request_at_end: Callable[..., StepRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    _collector(monkeypatch, lambda run_id: [])
    monkeypatch.setattr(connection, "connect", lambda: None)
    monkeypatch.setattr(kube_client, "Client", lambda _: None)
    monkeypatch.setattr(owner, "find_launcher_pod", lambda _: owner.LauncherPod("pod", {"name": "vl3-train-x7"}))
    images = {"evaluate": "evaluator@sha256:cd", "validate-data": "data@sha256:ab"}
    monkeypatch.setattr(owner, "images_of_run", lambda client, pod: images)
    _run(request_at_end("SUCCEEDED", "launch.backend=trainjob"))
    assert log[-1][1]["vl3.images"] == "evaluate evaluator@sha256:cd, validate-data data@sha256:ab"


def test_a_cluster_that_does_not_tell_images_ends_no_run(
    log: list[Any], request_at_end: Callable[..., StepRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    _collector(monkeypatch, lambda run_id: [])
    _run(request_at_end("SUCCEEDED", "launch.backend=trainjob"))
    assert "vl3.images" not in log[-1][1]
