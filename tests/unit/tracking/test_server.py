"""The same calls through MLflow's own server (its REST application, served in this process)."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vl3.errors import ClusterError, ConfigError
from vl3.tracking import lock
from vl3.tracking.client import open_client
from vl3.tracking.database import ensure_database
from vl3.tracking.lock import name_lock
from vl3.tracking.registry import Registry
from vl3.tracking.runs import Tracker


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    ensure_database(folder / "mlflow.db", template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("_MLFLOW_SERVER_REGISTRY_STORE", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(folder / "artifacts"))
        patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        from mlflow.server import app
        from werkzeug.serving import make_server

        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _register(registry: Registry, uri: str) -> int:
    return registry.register_candidate(uri, stage="video", checkpoint_sha256="1", dataset_digest="2", config_digest="3")


def test_runs_through_the_server(server_uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Tracker(server_uri, "vl3", "run-1", "name").step("train-video", key="k") as step:
        step.log_params({"seed": 0})
        step.log_json({"seed": 0}, "config.json")
        step.log_metrics([(1, {"loss": 2.0})])
        step.log_dataset("tiny", "a" * 64, "s3://bucket/data")
    tracker = Tracker(server_uri, "vl3", "run-1", "name")
    client, run_id = tracker.client, tracker.reopen_step("train-video", "k").run_id
    run = client.get_run(run_id)
    assert (run.info.status, run.data.params, run.data.metrics) == ("FINISHED", {"seed": "0"}, {"loss": 2.0})
    assert [item.path for item in client.list_artifacts(run_id)] == ["config.json"]
    assert run.inputs.dataset_inputs[0].dataset.digest == "a" * 36
    assert "View run" not in capfd.readouterr().out


def test_two_runs_may_make_an_experiment_at_once(server_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (Tracker(server_uri, "race", run, "name") for run in ("run-1", "run-2"))
    answers = iter([None, second.client.get_experiment_by_name])

    def look(name: str) -> object:
        answer = next(answers)
        return answer if answer is None else answer(name)

    monkeypatch.setattr(second.client, "get_experiment_by_name", look)
    made = first.experiment_id
    assert second.experiment_id == made


def test_server_takes_s3_and_refuses_local_folders(server_uri: str) -> None:
    registry = Registry(server_uri, "vl3-tiny")
    with pytest.raises(ConfigError, match=rf"{server_uri} refuses a model version at file:///store/x: .*s3://"):
        _register(registry, "file:///store/x")
    assert _register(registry, "s3://bucket/x") == 1
    assert [row.source for row in registry.list_versions()] == ["s3://bucket/x"]
    assert [model.name for model in registry.client.search_registered_models()] == ["vl3-tiny"]  # no lock left


def test_name_lock_lets_one_in_and_names_the_holder(server_uri: str) -> None:
    client = open_client(server_uri)
    held = r'held by another process: \{"holder": "run-first".*delete the registered model of this name'
    second = name_lock(client, "m", holder="run-second", wait_seconds=0.0)
    with name_lock(client, "m", holder="run-first"), pytest.raises(ClusterError, match=held), second:
        pass
    with name_lock(client, "m", holder="run-second", wait_seconds=0.0):
        pass


def test_a_lock_that_a_killed_process_left_is_removed(server_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = open_client(server_uri)
    client.create_registered_model("left--promotion-lock", description='{"holder": "a killed pod"}')
    with pytest.raises(ClusterError, match=r"a killed pod.*removed 10 minutes after it was taken"):
        name_lock(client, "left", holder="run", wait_seconds=0.0).__enter__()
    monkeypatch.setattr(lock, "ABANDONED_SECONDS", 0.2)
    time.sleep(0.3)
    with name_lock(client, "left", holder="run", wait_seconds=0.0):
        assert "run" in client.get_registered_model("left--promotion-lock").description
    assert not client.search_registered_models("name = 'left--promotion-lock'")


def test_a_lock_whose_making_was_not_answered_is_our_own(server_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's client retries when an answer is lost, and then gets the answer that the name is taken."""
    client = open_client(server_uri)
    make = client.create_registered_model

    def make_twice(name: str, **settings: str) -> None:
        make(name, **settings)
        make(name, **settings)

    monkeypatch.setattr(client, "create_registered_model", make_twice)
    with name_lock(client, "twice", holder="run", wait_seconds=0.0):
        pass
    assert not client.search_registered_models("name = 'twice--promotion-lock'")


def test_a_server_needs_no_database_library(server_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where mlflow-skinny alone is installed."""
    monkeypatch.setattr("vl3.tracking.client.find_spec", lambda name: None)
    with Tracker(server_uri, "vl3", "run-light", "name").step("promote", key="k") as step:
        step.set_tags({"a": "b"})
    with pytest.raises(ConfigError, match=r"'sqlite:.*only MLflow's client for servers is installed here"):
        open_client("sqlite:////somewhere/mlflow.db")
