"""Progress for Kubeflow Trainer, posted to a real HTTPS server with a private CA, as Trainer's status server is."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import make_ca
from vl3.pod import trainer_status
from vl3.pod.trainer_status import TrainerStatus

PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/vl3/trainjobs/vl3-0123456789-video-1/status"


@dataclass
class StatusServer:
    """What was posted, and the environment that Trainer injects."""

    environment: dict[str, str]
    posts: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    answer: int = 200


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StatusServer]:
    ca_path, context = make_ca(tmp_path)
    (tmp_path / "token").write_text("first\n")
    state = StatusServer({})

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.posts.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(state.answer)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    state.environment = {
        "KUBEFLOW_TRAINER_SERVER_URL": f"https://127.0.0.1:{http.server_port}{PATH}",
        "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(ca_path),
        "KUBEFLOW_TRAINER_SERVER_TOKEN": str(tmp_path / "token"),
    }
    yield state
    http.shutdown()
    http.server_close()


def _train(status: TrainerStatus, *steps: int, total: int = 8) -> None:
    status.take({"type": "start", "resumed_from_step": 0})
    for step in steps:
        status.take({"type": "metrics", "step": step, "values": {"loss": 1.5 / step, "bad": float("nan"), "x" * 65: 1}})
        status.take({"type": "progress", "done": step, "total": total, "text": ""})


def _wait_for_posts(server: StatusServer, count: int) -> None:
    deadline = time.monotonic() + 300
    while len(server.posts) < count:
        assert time.monotonic() < deadline, f"{len(server.posts)} posts"
        time.sleep(0.01)


def test_progress_goes_to_the_named_job_in_trainers_words(server: StatusServer) -> None:
    with TrainerStatus(server.environment) as status:
        _train(status, 2)
        _wait_for_posts(server, 1)
        time.sleep(0.05)
        Path(server.environment["KUBEFLOW_TRAINER_SERVER_TOKEN"]).write_text("renewed")
        _train(status, 3, 4, 5, 8)  # within the pause: only the last counts
    (path, authorization, first), (_, renewed, last) = server.posts
    assert (path, authorization, renewed) == (PATH, "Bearer first", "Bearer renewed")
    assert set(first["trainerStatus"]) == {
        "progressPercentage", "estimatedRemainingSeconds", "metrics", "lastUpdatedTime"
    }  # fmt: skip
    assert first["trainerStatus"]["progressPercentage"] == 25
    assert first["trainerStatus"]["metrics"] == [{"name": "loss", "value": "0.75"}]
    assert time.strptime(first["trainerStatus"]["lastUpdatedTime"], "%Y-%m-%dT%H:%M:%SZ")
    assert last["trainerStatus"]["progressPercentage"] == 100
    assert last["trainerStatus"]["estimatedRemainingSeconds"] == 0


def test_posts_keep_their_distance(server: StatusServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_status, "_EVERY_SECONDS", 0.5)
    with TrainerStatus(server.environment) as status:
        started = time.monotonic()
        for step in range(1, 101):
            _train(status, step, total=100)
            time.sleep(0.01)
        allowed = (time.monotonic() - started) / 0.5 + 2
    assert 2 <= len(server.posts) <= allowed + 1


@pytest.mark.parametrize("fault", ["refused", "certificate", "token", "nobody", "no-url"])
def test_no_fault_reaches_the_training(
    fault: str,
    server: StatusServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer_status, "_EVERY_SECONDS", 0.01)
    environment = dict(server.environment)
    if fault == "refused":
        server.answer = 403
    elif fault == "certificate":
        environment["KUBEFLOW_TRAINER_SERVER_CA_CERT"] = str(make_ca(tmp_path / "other", "another CA")[0])
    elif fault == "token":
        environment["KUBEFLOW_TRAINER_SERVER_TOKEN"] = str(tmp_path / "gone")
    elif fault == "nobody":
        environment["KUBEFLOW_TRAINER_SERVER_URL"] = "https://127.0.0.1:9/x"
    else:
        environment["KUBEFLOW_TRAINER_SERVER_URL"] = "no address"
    with TrainerStatus(environment) as status:
        for step in range(1, 9):
            _train(status, step)
            time.sleep(0.03)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "does not accept progress (the training continues)" in warnings[0].message


def test_without_a_server_nothing_is_posted() -> None:
    with TrainerStatus({}) as status:
        _train(status, 1, 2)
