"""A real MLflow server behind a proxy that breaks the first request of every call, in one way at a time.

What is noted and who is champion is the same as without faults, and nothing is there twice.
"""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_proxy import Fault, FaultProxy, Request
from tests.support.mlflow_server import start_mlflow
from vl3.errors import ClusterError
from vl3.recipes.catalog import get_recipe
from vl3.tracking import client as client_module
from vl3.tracking import leftovers, outbox, runs
from vl3.tracking.client import open_client, patiently
from vl3.tracking.gates import evaluate_gates
from vl3.tracking.registry import Registry
from vl3.tracking.runs import Tracker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
GATES = get_recipe("tiny").promotion.gates
FAULTS: dict[str, tuple[str, float | str]] = {
    "hangs": ("silence", 30.0),
    "resets": ("reset", 0),
    "answers-500": ("refuse", "500"),
    "answers-a-page": ("refuse", "200"),
    "answers-half-a-json": ("say", '{"run": {"info": {"run_id": "ab'),
    "answers-a-list": ("say", "[]"),
}
OTHER_JSON = {
    "an-object": '{"status": "ok"}',
    "wrong-types": '{"registered_models": 3, "registered_model": "x", "model_version": [1], "model_versions": {}}',
}
MOST_STARTS = 4


class EachCallOnce(Fault):
    """Breaks the first request of every call (method and path)."""

    def __init__(self, action: str, value: float | str) -> None:
        super().__init__(action, value=value)
        self.calls: set[str] = set()

    def takes(self, request: Request) -> bool:
        call = f"{request.method} {re.sub('[0-9a-f]{32}', '{}', request.target.partition('?')[0])}"
        is_new = call not in self.calls
        self.calls.add(call)
        return is_new


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    with start_mlflow(tmp_path_factory.mktemp("server")) as port:
        proxy = FaultProxy(port)
        yield proxy
        proxy.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs is given up within seconds, no failure is repeated by MLflow's client, and at the end the
    outbox waits longer: a busy machine answers late.
    """
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(client_module, "PROBE_TIMEOUT_SECONDS", 3.0)
    monkeypatch.setattr(outbox, "_DOWN_SHARE", 1.0)
    monkeypatch.setattr(runs, "SERVER_PATIENCE_SECONDS", 60.0)


def _chain(uri: str, run_id: str, folder: Path, make_evidence: Callable[..., Any]) -> None:
    """What the steps of a run do with MLflow, each with a tracker of its own."""

    def tracker() -> Tracker:
        return Tracker(uri, f"vl3-{run_id}", run_id, run_id, leftovers_uri=(folder / "untracked").as_uri())

    patiently(lambda: tracker().workflow.log_params({"seed": 0}))
    with tracker().step("train-video", key="k") as step:
        step.log_params({"steps": 2})
        step.log_metrics([(1, {"loss": 2.0}), (2, {"loss": 1.0})], times_seconds=[1.0, 2.0])
        step.log_dataset("tiny", "a" * 64, "s3://bucket/data")
        step.log_text("<html>", "report.html")
        step.register(model=run_id, of_workflow=True, **_version())
    patiently(lambda: _promote(Registry(uri, run_id), make_evidence))
    with tracker().notes("finish") as notes:
        notes.set_tags({"verdict": "champion"})
        notes.finish("FINISHED")


def _chain_or_error(*settings: Any) -> str:
    try:
        _chain(*settings)
    except ClusterError as error:
        return str(error)
    return ""


def _version() -> dict[str, Any]:
    sums = dict.fromkeys(("checkpoint_sha256", "dataset_digest", "config_digest"), "1" * 64)
    return {"source_uri": "s3://bucket/checkpoint", "stage": "video", "step": 2, "run_id": "r", **sums}


def _promote(registry: Registry, make_evidence: Callable[..., Any]) -> None:
    version = registry.register_candidate(**_version())
    evidence = make_evidence(champion=registry.champion_evidence(_version()["checkpoint_sha256"]))
    registry.record_evidence(version, evidence, evaluate_gates(evidence, GATES))
    registry.set_champion(version, holder="r")


def _found(uri: str, run_id: str) -> dict[str, Any]:
    client = open_client(uri)
    (experiment,) = [found for found in client.search_experiments() if found.name == f"vl3-{run_id}"]
    runs = {run.data.tags["vl3.kind"]: run for run in client.search_runs([experiment.experiment_id])}
    step, parent = runs["step"], runs["workflow"]
    models = [model for model in client.search_registered_models() if model.name.startswith(run_id)]
    return {
        "runs": len(client.search_runs([experiment.experiment_id])),
        "states": (step.info.status, parent.info.status),
        "params": (step.data.params, parent.data.params),
        "loss": [(one.step, one.value) for one in client.get_metric_history(step.info.run_id, "loss")],
        "dataset": [one.dataset.name for one in step.inputs.dataset_inputs],
        "artifacts": [one.path for one in client.list_artifacts(step.info.run_id)],
        "verdict": parent.data.tags["verdict"],
        "models": [(model.name, dict(model.aliases)) for model in models],
        "versions": [one.version for one in client.search_model_versions(f"name = '{run_id}'")],
    }


@pytest.mark.parametrize("name", FAULTS)
def test_each_call_fails_once_and_the_result_is_the_same(
    name: str, proxy: FaultProxy, tmp_path: Path, make_evidence: Callable[..., Any]
) -> None:
    fault = EachCallOnce(*FAULTS[name])
    with proxy.fault(fault):
        said = [_chain_or_error(proxy.endpoint, name, tmp_path, make_evidence)]
        while said[-1] and len(said) < MOST_STARTS:
            said.append(_chain_or_error(proxy.endpoint, name, tmp_path, make_evidence))
    assert said.pop() == ""
    for message in said:
        assert re.search(r"MLflow at http://127\.0\.0\.1:\d+ (could not|does not answer)", message)
        assert "start the same run again" in message
    with Tracker(proxy.endpoint, f"vl3-{name}", name, name, leftovers_uri=(tmp_path / "untracked").as_uri()).notes(
        "finish"
    ) as notes:
        notes.finish("FINISHED")  # as a start of the same run again: sends what is left
    assert list((tmp_path / "untracked").glob("*.jsonl")) == []
    assert len(fault.calls) > 15
    assert _found(proxy.endpoint, name) == {
        "runs": 2,
        "states": ("FINISHED", "FINISHED"),
        "params": ({"steps": "2"}, {"seed": "0"}),
        "loss": [(1, 2.0), (2, 1.0)],
        "dataset": ["tiny"],
        "artifacts": ["report.html"],
        "verdict": "champion",
        "models": [(name, {"candidate": "1", "champion": "1"})],
        "versions": ["1"],
    }


@pytest.mark.parametrize("name", OTHER_JSON)
def test_json_that_is_not_mlflows_makes_no_champion(
    name: str, proxy: FaultProxy, make_evidence: Callable[..., Any]
) -> None:
    """What the registry is asked to write is read again; notes are not."""
    with proxy.fault(EachCallOnce("say", OTHER_JSON[name])):
        for _ in range(MOST_STARTS):
            try:
                patiently(lambda: _promote(Registry(proxy.endpoint, name), make_evidence))
                break
            except ClusterError:
                continue
    registry = Registry(proxy.endpoint, name)
    assert [(row.version, row.aliases) for row in registry.list_versions()] == [(1, ("candidate", "champion"))]
    assert registry.champion_evidence().scores == make_evidence().scores()
    assert [model.name for model in registry.client.search_registered_models() if name in model.name] == [name]


def test_a_server_that_is_away_is_not_waited_for_and_gets_everything_later(
    proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runs, "SERVER_PATIENCE_SECONDS", 0.5)
    uri = (tmp_path / "untracked").as_uri()

    def tracker() -> Tracker:
        return Tracker(proxy.endpoint, "vl3-away", "away", "away", leftovers_uri=uri)

    with proxy.fault(Fault("silence", value=30.0, times=10**6)), tracker().step("train-video", key="k") as step:
        started = time.monotonic()
        for number in range(1, 1001):
            step.log_metrics([(number, {"loss": 1 / number})], times_seconds=[float(number)])
        assert time.monotonic() - started < 1.0  # without a wait it takes 10 ms
    (left,) = leftovers.read_all(uri, "away")
    assert (left.task, left.key, [call.name for call in left.calls]) == ("train-video", "k", ["log_metrics", "finish"])
    assert len(left.calls[0].arguments["rows"]) == 1000
    assert "1001 notes of train-video for MLflow could not be sent. They are kept at file://" in caplog.text
    monkeypatch.setattr(runs, "SERVER_PATIENCE_SECONDS", 60.0)
    with tracker().step("evaluate", key="e"):
        pass
    client = tracker().client
    run_id = tracker().reopen_step("train-video", "k").run_id
    assert len(client.get_metric_history(run_id, "loss")) == 1000
    assert client.get_run(run_id).info.status == "FINISHED"
    assert list((tmp_path / "untracked").iterdir()) == []
