"""Parent and nested runs, found again by other processes; what is logged is what is read."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vl3.errors import ClusterError, ConfigError, DataError
from vl3.tracking.runs import Tracker
from vl3.tracking.step_run import StepRun

Make = Callable[..., Tracker]


def _tags(tracker: Tracker, run_id: str) -> dict[str, str]:
    return tracker.client.get_run(run_id).data.tags


def test_steps_of_several_processes_nest_under_one_parent(tracker: Make) -> None:
    ids = []
    for name in ("validate-data", "train-video"):
        with tracker().step(name, key="k") as step:
            ids.append(step.run_id)
    reader = tracker()
    parent = reader.workflow.run_id
    assert [_tags(reader, run_id)["mlflow.parentRunId"] for run_id in ids] == [parent, parent]
    assert _tags(reader, ids[1])["vl3.step"] == "train-video"
    assert _tags(reader, ids[1])["vl3.attempt"] == "1"
    assert {reader.client.get_run(run_id).info.status for run_id in ids} == {"FINISHED"}
    run = reader.client.get_run(parent)
    assert (run.info.run_name, run.info.status, run.data.tags["vl3.run_id"]) == ("my run", "RUNNING", "run-7")
    reader.finish()
    assert reader.client.get_run(parent).info.status == "FINISHED"


def test_failed_step_marks_itself_and_parent_then_is_continued(tracker: Make) -> None:
    first = tracker().step("train-video", key="k")
    first.log_metrics([(10, {"loss": 2.0}), (20, {"loss": 1.5})])
    with pytest.raises(DataError), first:
        raise DataError("a shard is broken")
    reader = tracker()
    run = reader.client.get_run(first.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["vl3.error"] == "DataError: a shard is broken"
    assert reader.client.get_run(reader.workflow.run_id).info.status == "FAILED"
    with tracker().step("train-video", key="k") as second:
        assert second.run_id == first.run_id
        assert second.is_continued
        assert reader.client.get_run(reader.workflow.run_id).info.status == "RUNNING"
        assert second.log_metrics([(20, {"loss": 9.9, "grad_norm": 1.0}), (30, {"loss": 1.0})]) == 2
    history = reader.client.get_metric_history(first.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(10, 2.0), (20, 1.5), (30, 1.0)]
    assert _tags(reader, first.run_id)["vl3.attempt"] == "2"


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit], ids=["ctrl-c", "sigterm"])
def test_interrupted_step_is_killed(tracker: Make, ending: type[BaseException]) -> None:
    with pytest.raises(ending), tracker().step("evaluate") as step:
        raise ending
    reader = tracker()
    assert reader.client.get_run(step.run_id).info.status == "KILLED"
    assert reader.client.get_run(reader.workflow.run_id).info.status == "KILLED"


def test_other_key_or_finished_step_gets_its_own_run(tracker: Make) -> None:
    ids = []
    for key in ("a", "b", "a"):
        with tracker().step("train-video", key=key) as step:
            ids.append(step.run_id)
    assert len(set(ids)) == 3


def test_other_workflow_run_has_its_own_parent(tracker: Make, tracking_uri: str) -> None:
    own = tracker().workflow.run_id
    other = Tracker(tracking_uri, "vl3", "run-8", "another")
    assert other.workflow.run_id != own


def test_log_config_flattens_within_limits_and_stores_the_whole(tracker: Make, tmp_path: Path) -> None:
    config = {
        "seed": 0,
        "stages": {"video": {"difffp": True, "rates": [1e-3, None], "mixture": {"scene_image:caption": 1.0}}},
        "frozen": None,
        "long": "x" * 7000,
        "many": {f"field{number}": number for number in range(250)},
    }
    with tracker().step("train-video") as step:
        step.log_config(config)
    reader = tracker()
    run = reader.client.get_run(step.run_id)
    params = run.data.params
    assert len(params) == 256
    assert params["stages.video.mixture.scene_image:caption"] == "1.0"
    assert (params["stages.video.rates"], params["frozen"]) == ("[0.001, null]", "None")
    assert len(params["long"]) == 6000
    assert params["long"].endswith("(7000 characters; the whole value is in the configuration artifact)")
    assert run.info.artifact_uri.startswith(f"file://{tmp_path}/run/mlartifacts/")
    stored = Path(run.info.artifact_uri.removeprefix("file://")) / "config.json"
    assert json.loads(stored.read_text()) == config


def test_changed_parameter_of_a_continued_step_is_named(tracker: Make) -> None:
    first = tracker().step("train-video")
    first.log_params({"lr": 1e-3, "steps": 10})
    with pytest.raises(DataError), first:
        raise DataError("stop")
    with tracker().step("train-video") as second:
        second.log_params({"lr": 2e-3, "steps": 10, "new": 1})
    run = tracker().client.get_run(first.run_id)
    assert run.data.params == {"lr": "0.001", "steps": "10", "new": "1"}
    assert run.data.tags["vl3.changed_params"] == "lr"


def test_log_metrics_sends_batches_with_their_times(tracker: Make) -> None:
    rows = [
        (step, {"loss": 1 / step, "lr/vision": 1e-3, "mix/scene_image:caption": float(step)}) for step in range(1, 501)
    ]
    with tracker().step("train-video") as step_run:
        sent = step_run.log_metrics(rows, times_seconds=[1_700_000_000.5 + step for step, _ in rows])
        step_run.log_metrics([(501, {"loss": math.nan})])
    assert sent == 1500
    client = tracker().client
    history = client.get_metric_history(step_run.run_id, "lr/vision")
    assert len(history) == 500
    assert (history[0].step, history[0].value, history[0].timestamp) == (1, 1e-3, 1_700_000_001_500)
    assert math.isnan(client.get_metric_history(step_run.run_id, "loss")[-1].value)


def test_log_metrics_twice_draws_one_curve(tracker: Make) -> None:
    events = [(10, {"loss": 2.0}), (20, {"loss": 1.5}), (20, {"loss": 1.4}), (30, {"loss": 1.0})]
    with tracker().step("train-video") as step:
        assert step.log_metrics(events[:2], times_seconds=[1.0, 2.0]) == 2
        assert step.log_metrics(events, times_seconds=[1.0, 2.0, 3.0, 4.0]) == 1
    history = tracker().client.get_metric_history(step.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(10, 2.0), (20, 1.5), (30, 1.0)]


def test_log_metrics_that_failed_may_be_sent_again(tracker: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    own = tracker()
    step = own.step("train-video")

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("the server is away")

    with monkeypatch.context() as patch:
        patch.setattr(own.client, "log_batch", refuse)
        with pytest.raises(ClusterError, match=r"could not log metrics .* the server is away"):
            step.log_metrics([(10, {"loss": 2.0})])
    assert step.log_metrics([(10, {"loss": 2.0})]) == 1


def test_log_dataset_keeps_uri_and_whole_digest(tracker: Make) -> None:
    with tracker().step("train-video") as step:
        step.log_dataset("tiny", "a" * 64, "s3://bucket/data")
    (given,) = tracker().client.get_run(step.run_id).inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("tiny", "a" * 36)
    assert json.loads(given.dataset.source) == {"uri": "s3://bucket/data", "sha256": "a" * 64}
    assert {tag.key: tag.value for tag in given.tags} == {"mlflow.data.context": "training", "vl3.sha256": "a" * 64}


def test_log_artifact_stores_files_and_folders(tracker: Make, tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / "report.html").write_text("<html>")
    with tracker().step("report") as step:
        step.log_artifact(report / "report.html")
        step.log_artifact(report)
    client = tracker().client
    assert [item.path for item in client.list_artifacts(step.run_id)] == ["report", "report.html"]
    assert [item.path for item in client.list_artifacts(step.run_id, "report")] == ["report/report.html"]


@pytest.mark.parametrize(
    ("uri", "page"),
    [
        ("https://mlflow.example.org:8443/team/", "https://mlflow.example.org:8443/team/#/experiments/4/runs/parent"),
        ("http://me:secret@host", "http://host/#/experiments/4/runs/parent"),
        ("sqlite:////runs/mlflow.db", ""),
        ("postgresql://me:secret@host/mlflow", ""),
    ],
)
def test_page_of_the_workflow_is_known_on_a_server(uri: str, page: str) -> None:
    def run(run_id: str) -> Any:
        info = SimpleNamespace(run_id=run_id, artifact_uri="", experiment_id="4")
        return SimpleNamespace(info=info, data=SimpleNamespace(params={}))

    client: Any = None
    parent = StepRun(client, uri, run("parent"), is_owner=True)
    step = StepRun(client, uri, run("step"), is_owner=True, parent=parent)
    assert step.workflow_page == parent.workflow_page == page


def test_injected_run_is_used_and_left_to_its_owner(tracker: Make, tracking_uri: str) -> None:
    owner = tracker()
    client = owner.client
    experiment = client.create_experiment("platform")
    parent = client.create_run(experiment)
    task = client.create_run(experiment, tags={"mlflow.parentRunId": parent.info.run_id})
    injected = {
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_EXPERIMENT_ID": experiment,
        "MLFLOW_RUN_ID": task.info.run_id,
    }
    own = Tracker("sqlite:////nowhere/else.db", "vl3", "run-9", "name", injected=injected)
    with own.step("train-video", key="k") as step:
        step.log_metrics([(1, {"loss": 1.0})])
    assert step.run_id == task.info.run_id
    assert own.workflow.run_id == parent.info.run_id
    own.finish()
    for run_id in (task.info.run_id, parent.info.run_id):
        assert client.get_run(run_id).info.status == "RUNNING"
    assert _tags(owner, task.info.run_id)["vl3.step"] == "train-video"
    assert len(client.search_runs([experiment])) == 2


def test_tracker_refuses_run_id_with_quotes(tracking_uri: str) -> None:
    with pytest.raises(ConfigError, match="is empty or has quotes"):
        Tracker(tracking_uri, "vl3", "a'b", "name")


def test_the_experiment_opens_on_training_runs(tracker: Make) -> None:
    """Without the tag MLflow's pages open on traces of language models, of which there are none."""
    made = tracker()
    experiment = made.client.get_experiment(made.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
