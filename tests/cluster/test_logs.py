"""`vl3 run logs` against the cluster's API: pods with a step's labels, and Kubeflow Pipelines' double beside it."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.logged import LogsCommand, add_run, step_pod, writes
from tests.support.cluster.reach import KUBECONFIG, KUBECTL, NAMESPACE, Cluster
from tests.support.pipelines_server import PipelinesServer, serve

pytestmark = pytest.mark.slow


class LoggedRun:
    """A run with pods and commands of its own."""

    def __init__(self, cluster: Cluster, known: PipelinesServer, name: str) -> None:
        self.name = name
        self.known = known
        self.cluster = cluster
        self.kfp_id = add_run(known, name)
        self._commands: list[LogsCommand] = []
        self._pods: list[str] = []

    def pod(self, attempt: int, program: str, **more: Any) -> str:
        """Create the pod of an attempt; returns its name."""
        name = f"{self.name}-{attempt}"
        self.cluster.apply(step_pod(name, self.kfp_id, program, **more))
        self._pods.append(name)
        return name

    def phase(self, pod: str) -> str:
        return self.cluster.kubectl("--namespace", NAMESPACE, "get", "pod", pod, "--output", "jsonpath={.status.phase}")

    def logs(self, *options: str, **more: Any) -> LogsCommand:
        command = LogsCommand(self.cluster, self.known.endpoint, self.name, *options, **more)
        self._commands.append(command)
        return command

    def clear(self) -> None:
        for command in self._commands:
            command.stop()
        if self._pods:
            self.cluster.kubectl("--namespace", NAMESPACE, "delete", "pod", *self._pods, "--now", "--ignore-not-found")


@pytest.fixture
def run(cluster: Cluster, new_run: Callable[[str], str]) -> Iterator[LoggedRun]:
    with serve() as known:
        logged = LoggedRun(cluster, known, new_run("logs"))
        yield logged
        logged.clear()


def test_a_pod_is_waited_for_followed_and_read_again(run: LoggedRun) -> None:
    following = run.logs("--follow")
    following.wait_for(note="waiting for a pod of validate-data in namespace vl3")
    pod = run.pod(1, writes(5, pause_seconds=0.3))
    assert following.ended() == 0, following.notes
    assert following.numbers == [0, 1, 2, 3, 4]
    assert run.phase(pod) == "Succeeded"
    reading = run.logs()
    assert reading.ended() == 0, reading.notes
    assert (reading.numbers, reading.notes) == ([0, 1, 2, 3, 4], [])
    assert not any(path.endswith("/log") for path in run.known.paths("GET")), "the pods' logs are the cluster's"


def test_a_retry_is_followed_in_its_pod(run: LoggedRun) -> None:
    run.pod(1, writes(2, exit_code=1))
    following = run.logs("--follow")
    following.wait_for(2, note="waiting for another attempt or the end of validate-data")
    run.pod(2, writes(3))
    assert following.ended() == 0, following.notes
    assert following.numbers == [0, 1, 0, 1, 2]
    assert f"note: the next attempt of validate-data is pod {run.name}-2" in [text for _, text in following.notes]
    reading = run.logs()
    assert reading.ended() == 0
    assert reading.numbers == [0, 1, 2]


def test_following_ends_when_the_task_has_failed_for_good(run: LoggedRun) -> None:
    run.pod(1, writes(2, exit_code=1))
    following = run.logs("--follow")
    following.wait_for(2, note="waiting for another attempt")
    run.known.runs[0]["state"] = "FAILED"
    assert following.ended() == 0, following.notes
    assert following.numbers == [0, 1]


def test_an_image_that_cannot_be_pulled_is_the_reason(run: LoggedRun) -> None:
    run.pod(1, writes(1), image="registry.invalid/vl3/none:1")
    following = run.logs("--follow")
    following.wait_for(note="its container main cannot start: ErrImagePull")
    reading = run.logs()
    assert reading.ended() == 4
    (_, error), *more = reading.notes
    assert not more
    assert (
        f"ClusterError: pod {run.name}-1 of validate-data has not started: its container main cannot start: " in error
    )
    assert "registry.invalid/vl3/none:1" in error


def test_a_pod_that_fits_no_node_has_the_schedulers_reason(run: LoggedRun) -> None:
    pod = step_pod(f"{run.name}-1", run.kfp_id, writes(1))
    for container in pod["spec"]["containers"]:
        container["resources"] = {"requests": {"cpu": "900"}, "limits": {"cpu": "900", "memory": "64Mi"}}
    run.cluster.apply(pod)
    run._pods.append(f"{run.name}-1")
    run.logs("--follow").wait_for(note="has not started: it finds no node: 0/")


def test_no_line_is_lost_or_doubled_when_the_connection_breaks(run: LoggedRun, tmp_path: Path) -> None:
    """The command talks to a proxy of the API server, which is killed and started again while the pod writes."""
    proxy = Proxy(tmp_path)
    try:
        run.pod(1, writes(200, pause_seconds=0.05))
        following = run.logs("--follow", kubeconfig=proxy.kubeconfig)
        for lines in (20, 80, 140):
            following.wait_for(lines)
            proxy.stop()
            proxy.start()
        assert following.ended() == 0, following.notes
    finally:
        proxy.stop()
    assert following.numbers == list(range(200))


class Proxy:
    """kubectl's proxy to the API server, at one port."""

    def __init__(self, folder: Path) -> None:
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.start()
        self.kubeconfig = folder / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self._port}"}}],
            "users": [{"name": "u", "user": {}}],
        }
        self.kubeconfig.write_text(json.dumps(config))

    def start(self) -> None:
        """Serve, at the same port after the first time."""
        command = [str(KUBECTL), "--kubeconfig", str(KUBECONFIG), "proxy", f"--port={self._port}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline().rpartition(":")[2])

    def stop(self) -> None:
        """Kill it, and every connection with it."""
        assert self._process is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
