"""Whole launches on an API server of our own: what the controllers would do is done by hand."""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.api_server import ApiServer, Fault
from vl3.errors import ClusterError, ConfigError, DataError
from vl3.launch.job import LaunchJob, LaunchResult
from vl3.launch.jobs import run
from vl3.launch.jobs.output import LaunchOutput
from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.owner import LauncherPod
from vl3.launch.trainjob.run import launch_trainjob
from vl3.launch.trainjob.spec import build_trainjob
from vl3.system.retry import Pauses

MakeJob = Callable[..., LaunchJob]
NAME = "vl3-4e65d3fbe8-video-1"
SECOND = "vl3-4e65d3fbe8-video-2"
NOW = "2026-11-23T14:00:00Z"


class Cluster:
    """The controllers' part: admission, pods and ends of the TrainJobs that are created."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server

    def admit(self, name: str) -> None:
        self.change(name, suspend=False)

    def change(self, name: str, *, suspend: bool | None = None, **conditions: tuple[str, str]) -> None:
        job = self.server.objects["trainjobs"][name]
        if suspend is not None:
            job["spec"]["suspend"] = suspend
        known = job.setdefault("status", {}).setdefault("conditions", [])
        for kind, (reason, message) in conditions.items():
            known.append({"type": kind, "status": "True", "reason": reason, "message": message})
        self.server.put("trainjobs", job)

    def pod(self, name: str, rank: int, phase: str = "Running", **state: Any) -> str:
        pod = f"{name}-node-0-{rank}-abcde"
        ready = "True" if phase == "Running" else "False"
        status: dict[str, Any] = {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{"name": "node", "state": state or {"running": {"startedAt": NOW}}}],
        }
        labels = {
            "jobset.sigs.k8s.io/jobset-name": name,
            "batch.kubernetes.io/job-completion-index": str(rank),
            "vl3.dev/run": "4e65d3fbe8",
            "vl3.dev/stage": "video",
        }
        spec = {"nodeName": f"gpu-{rank}", "containers": [{"name": "node", "image": "ghcr.io/vl3/trainer:0.1.0"}]}
        uid = self.server.objects.get("pods", {}).get(pod, {"metadata": {"uid": f"uid-{pod}"}})["metadata"]["uid"]
        metadata = {"name": pod, "uid": uid, "labels": labels}
        self.server.put("pods", {"metadata": metadata, "spec": spec, "status": status})
        return pod

    def complete(self, name: str) -> None:
        for rank in (0, 1):
            self.pod(name, rank, "Succeeded", terminated={"exitCode": 0})
        self.change(name, Complete=("AllJobsCompleted", "jobset completed successfully"))

    def fail(self, name: str, rank: int = 1, **end: Any) -> None:
        self.pod(name, rank, "Failed", terminated={"reason": "Error", "finishedAt": NOW, **end})
        for pod in list(self.server.objects["pods"].values()):  # the Job controller ends the others
            if pod["status"]["phase"] == "Running":
                self.server.remove("pods", pod["metadata"]["name"])
        self.change(name, Failed=("FailedJobs", "jobset failed due to one or more job failures"))

    def runs(self, name: str) -> None:
        self.admit(name)
        for rank in (0, 1):
            self.pod(name, rank)


@pytest.fixture
def cluster(server: ApiServer) -> Cluster:
    return Cluster(server)


@pytest.fixture
def play(server: ApiServer) -> Iterator[Callable[[Callable[[str], None]], None]]:
    """Plays the cluster's part for each TrainJob that is created, in a thread next to the launch."""
    threads: list[threading.Thread] = []

    def act(part: Callable[[str], None]) -> None:
        def begin(job: dict[str, Any]) -> None:
            thread = threading.Thread(target=part, args=(job["metadata"]["name"],))
            threads.append(thread)
            thread.start()

        server.on_create = begin

    yield act
    for thread in threads:
        thread.join(5)


@pytest.fixture
def launch(client: Client, limits: LaunchLimits) -> Callable[..., LaunchResult]:
    def start(job: LaunchJob, on_event: Callable[[dict[str, Any]], None] = lambda event: None) -> LaunchResult:
        return launch_trainjob(job, on_event, limits=limits, client=client)

    return start


def test_a_launch_tells_its_states_and_events(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    def part(name: str) -> None:
        server.logs[f"{name}-node-0-0-abcde"] = [
            [
                f'{NOW[:-1]}.1Z vl3-event {{"type": "metrics", "step": 7, "time": 1.5, "values": {{"loss": 2.5}}}}',
                f"{NOW[:-1]}.2Z rank 0 INFO vl3.training: hello",
                f"{NOW[:-1]}.3Z vl3-event not json",
            ]
        ]
        cluster.admit(name)
        cluster.pod(name, 0)
        time.sleep(0.1)
        cluster.pod(name, 1)
        time.sleep(0.2)
        cluster.complete(name)

    play(part)
    job, events = make_job(log_path=make_job().events_path.with_name("stage.log")), []
    result = launch(job, events.append)
    states = [event["state"] for event in events if event["type"] == "state"]
    assert set(states) <= {"queued", "admitted", "starting", "running", "complete"}
    assert states[-2:] == ["running", "complete"]
    assert [state.state for state in result.states] == states
    assert [event for event in events if event["type"] == "metrics"] == [
        {"type": "metrics", "step": 7, "time": 1.5, "values": {"loss": 2.5}}
    ]
    assert job.events_path.read_text() == '{"type": "metrics", "step": 7, "time": 1.5, "values": {"loss": 2.5}}\n'
    assert job.log_path.read_text() == "rank 0 INFO vl3.training: hello\n"
    assert result.attempts == 1
    assert server.names("trainjobs") == [NAME]


def test_the_whole_record_of_events_replaces_what_came_by_the_log(
    make_job: MakeJob, cluster: Cluster, play: Any, launch: Any
) -> None:
    play(lambda name: (cluster.runs(name), cluster.complete(name)))
    job = make_job()
    record = job.events_path.parent.parent / "store" / "work" / "events.jsonl"
    record.parent.mkdir(parents=True)
    record.write_text('{"type": "end"}\n')
    launch(job)
    assert job.events_path.read_text() == '{"type": "end"}\n'


def test_a_restarted_launch_adopts_its_job(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    play(lambda name: (cluster.runs(name), cluster.complete(name)))
    launch(make_job())
    before = server.objects["trainjobs"][NAME]["metadata"]["uid"]
    result = launch(make_job())
    assert [state.state for state in result.states] == ["complete"]
    assert server.objects["trainjobs"][NAME]["metadata"]["uid"] == before
    assert server.count("POST trainjobs") == 1


def test_another_configuration_of_the_same_run_is_refused_and_nothing_is_touched(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    play(lambda name: (cluster.runs(name), cluster.complete(name)))
    launch(make_job())
    with pytest.raises(ConfigError, match=rf"TrainJob {NAME} already exists and was made from another configuration"):
        launch(make_job(document={"other": 1}))
    assert server.names("trainjobs") == [NAME]


def test_a_create_whose_answer_is_lost_makes_one_job(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    play(lambda name: (cluster.runs(name), cluster.complete(name)))
    server.faults.append(Fault("POST trainjobs", is_cut=True))
    assert launch(make_job()).attempts == 1
    assert server.count("POST trainjobs") == 2
    assert server.names("trainjobs") == [NAME]


def test_a_webhook_that_is_down_for_a_while_is_waited_for(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    play(lambda name: (cluster.runs(name), cluster.complete(name)))
    message = 'Internal error occurred: failed calling webhook "mtrainjob.kb.io": connection refused'
    server.faults.extend(Fault("POST trainjobs", status=500, message=message) for _ in range(3))
    assert launch(make_job()).attempts == 1


def test_a_lost_node_is_followed_by_another_attempt(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    def part(name: str) -> None:
        cluster.runs(name)
        if name == SECOND:
            cluster.complete(name)
            return
        pod = server.objects["pods"][f"{name}-node-0-1-abcde"]
        lost = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "taint"}
        pod["status"]["conditions"].append(lost)
        pod["status"]["phase"] = "Failed"
        server.put("pods", pod)
        cluster.fail(name, rank=0, exitCode=1)

    play(part)
    result = launch(make_job())
    assert result.attempts == 2
    assert server.names("trainjobs") == [SECOND]
    assert server.objects["trainjobs"][SECOND]["metadata"]["annotations"]["vl3.dev/history"] == "node_lost@0"
    retrying = next(state for state in result.states if state.state == "retrying")
    assert retrying.text.startswith(f"attempt 2 follows, because pod {NAME}-node-0-1-abcde on node gpu-1 was ended by")


def test_a_launcher_killed_between_two_attempts_goes_on_with_the_second(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any, client: Client
) -> None:
    server.put("trainjobs", build_trainjob(make_job(), attempt=1))
    second = build_trainjob(make_job(), attempt=2, history="node_lost@30")
    server.put("trainjobs", second)
    cluster.runs(SECOND)
    cluster.complete(SECOND)
    assert launch(make_job()).attempts == 2
    assert server.names("trainjobs") == [SECOND]
    assert server.count("POST trainjobs") == 0


def test_retries_come_to_an_end(make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any) -> None:
    message = '{"family": "ClusterError", "message": "rank 3 did not reach the rendezvous"}'
    play(lambda name: (cluster.runs(name), cluster.fail(name, exitCode=4, message=message)))
    with pytest.raises(ClusterError) as caught:
        launch(make_job(max_retries=1))
    assert str(caught.value) == (
        f"train-video (attempt 2): pod {SECOND}-node-0-1-abcde (node rank 1, on gpu-1) ended with exit code 4: rank 3 "
        "did not reach the rendezvous. Start the run again: it resumes from what it saved last."
    )
    assert server.names("trainjobs") == []


def test_a_crash_without_progress_is_tried_again_once(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    server.logs[f"{SECOND}-node-0-1-abcde"] = [[f"{NOW} one", f"{NOW} Segmentation fault"]]
    play(lambda name: (cluster.runs(name), cluster.fail(name, exitCode=139)))
    with pytest.raises(ClusterError) as caught:
        launch(make_job(max_retries=5))
    assert "ended with exit code 139 (signal 11)" in str(caught.value)
    assert str(caught.value).endswith(f"Last lines of {SECOND}-node-0-1-abcde:\n  one\n  Segmentation fault")
    assert server.count("POST trainjobs") == 2


def test_an_error_of_the_data_is_never_tried_again(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    message = '{"family": "DataError", "message": "shard 3 is truncated. Build it again."}'
    play(lambda name: (cluster.runs(name), cluster.fail(name, exitCode=3, message=message)))
    with pytest.raises(DataError, match=r"ended with exit code 3: shard 3 is truncated\. Build it again\.$"):
        launch(make_job())
    assert server.count("POST trainjobs") == 1
    assert server.names("trainjobs") == []


def test_an_image_that_does_not_exist_ends_the_launch_and_leaves_nothing(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x": rpc error: x: not found'}

    def part(name: str) -> None:
        cluster.admit(name)
        cluster.pod(name, 0, "Pending", waiting=waiting)

    play(part)
    with pytest.raises(ConfigError, match=r"cannot get image ghcr\.io/vl3/trainer:0\.1\.0 \(ImagePullBackOff: .*not"):
        launch(make_job())
    assert server.names("trainjobs") == []
    assert server.names("pods") == []


def test_waiting_in_the_queue_has_its_own_limit(make_job: MakeJob, server: ApiServer, launch: Any) -> None:
    with pytest.raises(ClusterError, match=rf"TrainJob {NAME} waited \d+ s in queue h200 .*was withdrawn.*priority"):
        launch(make_job(queue_timeout_seconds=0.2))
    assert server.names("trainjobs") == []


def test_running_has_its_own_limit(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    play(cluster.runs)
    with pytest.raises(
        ConfigError, match=r'still running after 0\.3 s, the limit that .*SET="stages\.video\.timeout_sec'
    ):
        launch(make_job(timeout_seconds=0.3))
    assert server.names("trainjobs") == []


def test_a_job_that_has_hung_is_replaced_once_and_the_override_for_more_time_is_named(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    play(cluster.runs)
    with pytest.raises(ClusterError) as caught:
        launch(make_job(startup_seconds=0.3, max_retries=5))
    message = str(caught.value)
    assert message.startswith(f"train-video (attempt 2): TrainJob {SECOND}: no step was finished within 0.3 s of its")
    assert 'add SET="stages.video.startup_seconds=1".' in message
    assert "queue" not in message
    assert server.count("POST trainjobs") == 2
    assert server.names("trainjobs") == []


@pytest.mark.parametrize(
    "told", [(5, 6, 7), (None, None, None)], ids=["the store shows steps", "the store is silent, too"]
)
def test_a_job_whose_log_is_silent_is_not_taken_for_hung(
    told: tuple[int | None, ...],
    make_job: MakeJob,
    cluster: Cluster,
    play: Any,
    launch: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = list(told)

    def stored_step(self: LaunchOutput) -> int | None:
        if len(answers) == 1:
            cluster.complete(NAME)
        return answers.pop(0) if answers else 8

    monkeypatch.setattr(LaunchOutput, "stored_step", stored_step)
    play(cluster.runs)
    assert launch(make_job(startup_seconds=0.2)).attempts == 1
    assert answers == []


def test_the_store_tells_the_highest_step(make_job: MakeJob) -> None:
    job = make_job()
    output = LaunchOutput(job, lambda event: None)
    assert output.stored_step() == 0
    store = Path(job.work_uri.removeprefix("file://"))
    store.mkdir(parents=True)
    lines = [
        '{"type": "metrics", "step": 40, "time": 1.0, "values": {}}',
        '{"type": "progress", "done": 50, "total": 90, "text": "loss 1.0"}',
        "broken",
        '{"type": "progress", "done": 99}',
    ]
    (store / "events.jsonl").write_text("\n".join(lines))
    assert output.stored_step() == 50
    (store / "events.jsonl").unlink()
    (store / "events.jsonl").mkdir()
    assert output.stored_step() in (None, 0)


def test_a_queue_or_priority_that_is_not_there_is_named_before_anything_is_created(
    make_job: MakeJob, server: ApiServer, launch: Any
) -> None:
    with pytest.raises(ConfigError, match=r"namespace team has no LocalQueue 'nope' \(it has: h200\)"):
        launch(make_job(queue="nope"))
    with pytest.raises(ConfigError, match="the cluster has no WorkloadPriorityClass 'nope'"):
        launch(make_job(priority="nope"))
    assert server.count("POST trainjobs") == 0


@pytest.mark.parametrize(
    ("fault", "family", "message"),
    [
        (
            Fault("POST trainjobs", 403, "admission webhook \"x\" denied: runtime 'vl3-torch-h200' not found"),
            ConfigError,
            "the cluster has no ClusterTrainingRuntime vl3-torch-h200",
        ),
        (
            Fault("POST trainjobs", 403, 'trainjobs is forbidden: User "eve" cannot create resource "trainjobs" in x'),
            ConfigError,
            r"not allowed to create trainjobs\.trainer\.kubeflow\.org in namespace team: .*Role vl3-launcher",
        ),
        (
            Fault("POST trainjobs", 403, "trainjobs is forbidden: exceeded quota: vl3, requested: count/trainjobs=1"),
            ClusterError,
            "namespace team does not accept TrainJob .*exceeded quota",
        ),
        (
            Fault("GET localqueues", 404, body=b"404 page not found\n"),
            ClusterError,
            r"has no API to get localqueues\.kueue\.x-k8s\.io h200.*`vl3 cluster check`",
        ),
        (
            Fault("POST trainjobs", 422, 'TrainJob.trainer.kubeflow.org "x" is invalid: spec.trainer: bad'),
            ConfigError,
            r"refuses TrainJob .* \(422 Fault\): .*spec\.trainer: bad",
        ),
    ],
    ids=["runtime", "rbac", "quota of the namespace", "crd", "invalid"],
)
def test_a_refusal_is_one_message_and_nothing_is_left(
    make_job: MakeJob, server: ApiServer, launch: Any, fault: Fault, family: type[Exception], message: str
) -> None:
    server.faults.append(fault)
    with pytest.raises(family, match=message):
        launch(make_job())
    assert server.names("trainjobs") == []


def test_a_job_that_a_user_deletes_is_not_created_again(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    play(lambda name: (cluster.runs(name), time.sleep(0.3), server.remove("trainjobs", name)))
    with pytest.raises(ClusterError, match=rf"TrainJob {NAME} was deleted, not by this launcher"):
        launch(make_job())
    assert server.count("POST trainjobs") == 1


def test_a_preempted_job_waits_and_resumes(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    def part(name: str) -> None:
        labels = {"kueue.x-k8s.io/job-uid": server.objects["trainjobs"][name]["metadata"]["uid"]}
        workload: dict[str, Any] = {"metadata": {"name": "w", "labels": labels}, "spec": {"queueName": "h200"}}
        evicted = {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "for job u7"}
        server.put("workloads", workload)
        cluster.runs(name)
        time.sleep(0.2)
        server.put("workloads", workload | {"status": {"conditions": [evicted]}})
        cluster.change(name, suspend=True)
        for pod in server.names("pods"):
            server.remove("pods", pod)
        time.sleep(0.2)
        back = evicted | {"status": "False", "message": "Previously: for job u7"}
        server.put("workloads", workload | {"status": {"conditions": [back]}})
        cluster.runs(name)
        time.sleep(0.2)
        cluster.complete(name)

    play(part)
    result = launch(make_job())
    states = [change.state for change in result.states]
    assert [state for state in states if state in ("running", "preempted", "resumed", "complete")][-1] == "complete"
    assert states.index("running") < states.index("preempted") < states.index("resumed")
    assert result.attempts == 1
    assert next(change.text for change in result.states if change.state == "preempted") == "Preempted: for job u7"


def test_a_pod_replaced_under_a_running_job_is_a_failed_attempt(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    def part(name: str) -> None:
        cluster.runs(name)
        if name == SECOND:
            cluster.complete(name)
            return
        time.sleep(0.2)
        server.remove("pods", f"{name}-node-0-1-abcde")

    play(part)
    result = launch(make_job())
    assert result.attempts == 2
    assert server.objects["trainjobs"][SECOND]["metadata"]["annotations"]["vl3.dev/history"] == "pod_replaced@0"
    assert server.names("trainjobs") == [SECOND]


def test_a_pod_on_a_dead_node_is_not_waited_for(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, client: Client, limits: LaunchLimits
) -> None:
    def part(name: str) -> None:
        cluster.runs(name)
        if name == SECOND:
            cluster.complete(name)
            return
        pod = server.objects["pods"].pop(f"{name}-node-0-1-abcde")
        pod["metadata"]["deletionTimestamp"] = NOW
        lost = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "taint"}
        pod["status"]["conditions"].append(lost)
        pod["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-name"] = name
        server.put("pods", pod)

    play(part)
    job, seen = make_job(), []
    patient = dataclasses.replace(limits, lost_node_seconds=0.2)
    result = launch_trainjob(job, seen.append, limits=patient, client=client)
    assert result.attempts == 2
    assert server.objects["trainjobs"][SECOND]["metadata"]["annotations"]["vl3.dev/history"] == "node_lost@0"


def test_an_error_of_the_caller_frees_the_pods(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event.get("state") == "running":
            raise KeyboardInterrupt

    play(cluster.runs)
    with pytest.raises(KeyboardInterrupt):
        launch(make_job(), stop)
    assert server.names("trainjobs") == []
    assert server.names("pods") == []


def test_two_signals_free_the_pods(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def end(number: int, _: object) -> None:
        raise SystemExit(143)

    former = signal.signal(signal.SIGTERM, end)
    sent = []

    def stop(event: dict[str, Any]) -> None:
        if event.get("state") == "running" and not sent:
            sent.extend([threading.Timer(delay, os.kill, (os.getpid(), signal.SIGTERM)) for delay in (0.05, 0.4)])
            for timer in sent:
                timer.start()

    def part(name: str) -> None:
        cluster.runs(name)
        server.faults.append(Fault("DELETE trainjobs", 503, headers={"Retry-After": "1"}))

    play(part)
    try:
        with pytest.raises(SystemExit), caplog.at_level("INFO", "vl3.launch"):
            launch(make_job(), stop)
    finally:
        for timer in sent:
            timer.join()
        signal.signal(signal.SIGTERM, former)
    assert "got SIGTERM while deleting the job: the deletion continues" in caplog.text
    assert f"TrainJob {NAME} is deleted; its pods have ended and its GPUs are free" in caplog.text
    assert server.names("trainjobs") == []
    assert server.names("pods") == []


def test_an_interrupt_while_the_create_is_answered_leaves_no_job(
    make_job: MakeJob, server: ApiServer, launch: Any
) -> None:
    def interrupt(job: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else os.kill(
            os.getpid(), signal.SIGINT
        )
        time.sleep(0.3)

    server.on_create = interrupt
    with pytest.raises(KeyboardInterrupt):
        launch(make_job())
    assert server.names("trainjobs") == []


def test_a_retry_of_the_step_looks_after_the_job(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, launch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("trainjobs", build_trainjob(make_job(), attempt=1, launcher_pod="former"))
    cluster.runs(NAME)
    cluster.complete(NAME)
    monkeypatch.setattr(run, "find_launcher_pod", lambda client: LauncherPod("present", None))
    launch(make_job())
    assert server.objects["trainjobs"][NAME]["metadata"]["annotations"]["vl3.dev/launcher-pod"] == "present"


def test_an_interrupt_before_the_job_was_adopted_deletes_it(
    make_job: MakeJob, server: ApiServer, launch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(client: Client) -> None:
        raise SystemExit(143)

    server.put("trainjobs", build_trainjob(make_job(), attempt=1))
    monkeypatch.setattr(run, "find_launcher_pod", interrupt)
    with pytest.raises(SystemExit):
        launch(make_job(document={"other": 1}))
    assert server.names("trainjobs") == [NAME]
    with pytest.raises(SystemExit):
        launch(make_job())
    assert server.names("trainjobs") == []


def test_a_job_that_cannot_be_looked_for_after_an_interrupt_is_told(
    make_job: MakeJob, server: ApiServer, launch: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may go on running, so whoever cancelled must not read that nothing was there."""

    def interrupt(client: Client) -> None:
        server.faults.extend(Fault("GET trainjobs", status=403, message="no right to list jobs") for _ in range(9))
        raise SystemExit(143)

    server.put("trainjobs", build_trainjob(make_job(), attempt=1))
    monkeypatch.setattr(run, "find_launcher_pod", interrupt)
    with pytest.raises(SystemExit, match="143"):
        launch(make_job())
    assert server.names("trainjobs") == [NAME]
    assert "no right to list jobs" in caplog.text


def test_a_refusal_while_the_job_is_deleted_does_not_hide_the_interrupt(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event.get("state") == "running":
            server.faults.extend(Fault("GET pods", status=403, message="no right to list pods") for _ in range(9))
            raise SystemExit(143)

    play(cluster.runs)
    with pytest.raises(SystemExit, match="143"):
        launch(make_job(), stop)
    assert server.names("trainjobs") == []
    assert "no right to list pods" in caplog.text


def test_a_cancel_does_not_wait_for_a_log_that_goes_on(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, client: Client, limits: LaunchLimits
) -> None:
    patient = dataclasses.replace(limits, log_drain_seconds=900)

    def stop(event: dict[str, Any]) -> None:
        if event.get("state") == "running":
            raise KeyboardInterrupt

    server.logs[f"{NAME}-node-0-0-abcde"] = [["unended"]]
    play(cluster.runs)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        launch_trainjob(make_job(), stop, limits=patient, client=client)
    assert time.monotonic() - started < 600


def test_a_long_outage_leaves_the_job_and_says_so(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, client: Client, limits: LaunchLimits
) -> None:
    play(lambda name: (cluster.runs(name), time.sleep(0.3), server.stop()))
    limits = LaunchLimits(
        api_outage_seconds=0.5, pauses=Pauses(first_seconds=0.05, longest_seconds=0.1), log_drain_seconds=0.1
    )
    with pytest.raises(
        ClusterError, match=r"has given no valid answer for 1 s: .*A job that was created keeps running"
    ):
        launch_trainjob(make_job(), lambda event: None, limits=limits, client=client)
    server.start()
    assert server.names("trainjobs") == [NAME]


def test_an_idle_watch_asks_for_nothing(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any, client: Client
) -> None:
    asked: list[int] = []

    def part(name: str) -> None:
        server.logs[f"{name}-node-0-0-abcde"] = [[]]
        cluster.runs(name)
        time.sleep(0.5)
        asked.append(client.counts["GET pods"] + client.counts["GET trainjobs"] + client.counts["WATCH pods"])
        time.sleep(1.5)
        asked.append(client.counts["GET pods"] + client.counts["GET trainjobs"] + client.counts["WATCH pods"])
        cluster.complete(name)

    play(part)
    launch(make_job())
    assert asked[0] == asked[1]
    assert client.requests < 25


def test_what_cleaning_up_needs_is_imported_before_there_is_a_job(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SIGTERM in the middle of that import left a module that no later import could complete, and a traceback."""
    done: list[str] = []

    def refuse() -> NoReturn:
        done.append("connected")
        raise ClusterError("no cluster")

    monkeypatch.setattr(run, "prepare_retries", lambda: done.append("imported"))
    monkeypatch.setattr(run, "connect", refuse)
    with pytest.raises(ClusterError, match="no cluster"):
        launch_trainjob(make_job(), print)
    assert done == ["imported", "connected"]


def _queues(server: ApiServer, used: int) -> None:
    """A LocalQueue with 16 GPUs, of which some are in use."""
    quota = [{"name": name, "nominalQuota": amount} for name, amount in (("cpu", "1k"), ("memory", "64Ti"))]
    flavor = {"name": "h200", "resources": [*quota, {"name": "nvidia.com/gpu", "nominalQuota": "16"}]}
    group = {"coveredResources": ["cpu", "memory", "nvidia.com/gpu"], "flavors": [flavor]}
    usage = [{"name": "h200", "resources": [{"name": "nvidia.com/gpu", "total": str(used)}]}]
    spec, status = {"resourceGroups": [group]}, {"flavorsReservation": usage}
    server.put("localqueues", {"metadata": {"name": "h200"}, "spec": {"clusterQueue": "vl3-h200"}})
    server.put("clusterqueues", {"metadata": {"name": "vl3-h200"}, "spec": spec, "status": status})


def test_each_attempt_takes_the_nodes_that_the_queue_has(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, launch: Any
) -> None:
    """Two nodes, one of which is lost; meanwhile somebody took its GPUs, so the next attempt has one."""
    _queues(server, used=0)

    def part(name: str) -> None:
        cluster.admit(name)
        if name == NAME:
            cluster.pod(name, 0)
            _queues(server, used=8)
            cluster.fail(name, exitCode=143)
        else:
            cluster.pod(name, 0, "Succeeded", terminated={"exitCode": 0})
            cluster.change(name, Complete=("AllJobsCompleted", "jobset completed successfully"))

    play(part)
    result = launch(make_job(nodes=2, min_nodes=1, packs_per_step=16))
    assert result.attempts == 2
    created = [body for request, body in server.bodies if request == "POST trainjobs"]
    assert [job["spec"]["trainer"]["numNodes"] for job in created] == [2, 1]


def test_a_job_that_waits_gives_way_to_a_smaller_one_without_a_retry(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, play: Any, client: Client, limits: LaunchLimits
) -> None:
    _queues(server, used=0)
    limits = dataclasses.replace(limits, resize_seconds=0.2, place_seconds=0.1)

    def part(name: str) -> None:
        if name == NAME:  # Kueue gave the quota to another job first
            cluster.change(name, suspend=True)
            _queues(server, used=8)
            return
        cluster.admit(name)
        cluster.pod(name, 0, "Succeeded", terminated={"exitCode": 0})
        cluster.change(name, Complete=("AllJobsCompleted", "jobset completed successfully"))

    play(part)
    events: list[dict[str, Any]] = []
    job = make_job(nodes=2, min_nodes=1, packs_per_step=16, max_retries=0)
    assert launch_trainjob(job, events.append, limits=limits, client=client).attempts == 2
    texts = [event["text"] for event in events if event.get("state") == "retrying"]
    assert "for 2 nodes, and queue h200 has quota for 1 now" in texts[0]
    assert "vl3.dev/history" not in server.objects["trainjobs"][SECOND]["metadata"]["annotations"]


def test_a_new_launcher_adopts_the_size_that_an_earlier_one_chose(
    make_job: MakeJob, server: ApiServer, cluster: Cluster, launch: Any
) -> None:
    _queues(server, used=0)
    job = make_job(nodes=2, min_nodes=1, packs_per_step=16)
    small = dataclasses.replace(job, placement=dataclasses.replace(job.placement, nodes=1))
    server.put("trainjobs", build_trainjob(small, attempt=1))
    cluster.admit(NAME)
    cluster.pod(NAME, 0, "Succeeded", terminated={"exitCode": 0})
    cluster.change(NAME, Complete=("AllJobsCompleted", "jobset completed successfully"))
    assert launch(job).attempts == 1
    assert server.objects["trainjobs"][NAME]["spec"]["trainer"]["numNodes"] == 1
