"""One attempt: a job followed from its creation (or adoption) to its end."""

import queue
import time
from collections.abc import Sequence

from vl3.errors import ClusterError
from vl3.launch.diagnosis import causes
from vl3.launch.diagnosis.causes import AttemptFailure
from vl3.launch.diagnosis.failure import find_trouble
from vl3.launch.diagnosis.warnings import LatestWarning
from vl3.launch.job import LaunchJob
from vl3.launch.jobs.durations import Durations, now
from vl3.launch.jobs.kinds import JobKind
from vl3.launch.jobs.logs import LogFollower, LogLine, last_lines
from vl3.launch.jobs.observed import ObservedObjects
from vl3.launch.jobs.output import LaunchOutput
from vl3.launch.jobs.queue_position import QueuePosition
from vl3.launch.jobs.state import RUNNING, WAITING, Observation, observe
from vl3.launch.kube.client import Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import (
    Object,
    container_status,
    is_over,
    name_of,
    rank_of,
    uid_of,
)
from vl3.launch.kube.outages import until_answered
from vl3.launch.kube.resources import PODS, WORKLOADS
from vl3.launch.kube.watch import Change, ResourceWatcher
from vl3.launch.stall import Overdue, StallWatch

_TICK_SECONDS = 1.0


class Attempt:
    """Follows one job. Threads watch and read; only the launching thread makes decisions."""

    def __init__(
        self,
        job: LaunchJob,
        kind: JobKind,
        created: Object,
        client: Client,
        limits: LaunchLimits,
        output: LaunchOutput,
    ) -> None:
        assert job.placement is not None
        self.durations = Durations(limits)
        self.tails: dict[str, list[str]] = {}
        """Last lines of the pods of a failed attempt."""
        self._job = job
        self._placement = job.placement
        self._kind = kind
        self._name = name_of(created)
        self._num_pods = kind.num_pods(created)
        self._client = client
        self._limits = limits
        self._output = output
        self._stall = StallWatch(job, time.monotonic())
        self._observed = ObservedObjects(created, kind)
        self._inbox: queue.SimpleQueue[Change | LogLine] = queue.SimpleQueue()
        self._followers: dict[str, LogFollower] = {}
        self._queue_position = QueuePosition(client, job.placement.queue, every_seconds=limits.place_seconds)
        self._latest_warning = LatestWarning(client, self._name, every_seconds=limits.place_seconds)
        self._stored_step = 0
        self._sized_at = 0.0
        self._said: tuple[str, str] | None = None
        self._said_at = 0.0
        self._drain_seconds = 0.0  # set when the job has ended: only then the rest of its log is worth a wait
        queries = {
            kind.resource: {"fieldSelector": f"metadata.name={self._name}"},
            WORKLOADS: {"labelSelector": f"kueue.x-k8s.io/job-uid={uid_of(created)}"},
            PODS: {"labelSelector": kind.pods_of(self._name)},
        }
        self._watchers = [
            ResourceWatcher(client, resource, query, self._inbox.put, limits) for resource, query in queries.items()
        ]

    @property
    def images(self) -> tuple[str, ...]:
        """The images that its pods run, by digest."""
        return self._observed.images

    def follow(self) -> AttemptFailure | None:
        """Follow to the end; returns None when the job is complete, otherwise what ended it.

        Raises:
            LostTouchError: the API server does not answer any more; the job keeps running.
            Vl3Error: the API server refuses a request that is needed.
        """
        for watcher in self._watchers:
            watcher.start()
        try:
            while True:
                self._take_messages()
                if self._observed.is_whole:
                    is_over, failure = self._look()
                    if is_over:
                        return failure
        finally:
            for watcher in self._watchers:
                watcher.stop()
            self._end_logs()

    def _look(self) -> tuple[bool, AttemptFailure | None]:
        """Report what is new; returns whether the attempt is over, and why it failed."""
        observed, moment = self._observed, now()
        observation = observe(observed.job, observed.workload, observed.pods, nodes=self._num_pods)
        self.durations.look(observation, moment)
        self._follow_logs()
        if observation.state in ("complete", "failed"):
            self._drain_seconds = self._limits.log_drain_seconds
        if observation.state == "complete":
            self._say(observation)
            return True, None
        if observation.state == "failed":
            return True, self._why_failed()
        if observation.state == "deleted":
            return True, AttemptFailure(
                causes.DELETED, f"{self._kind.name} {self._name} was deleted, not by this launcher"
            )
        trouble = find_trouble(observed.job, observed.workload, observed.pods, observed.lost_pods)
        self._say(self._with_details(observation, trouble, moment))
        failure = self._time_over(observation, moment) or self.durations.lasting(trouble, moment)
        return failure is not None, failure

    def _with_details(self, observation: Observation, trouble: AttemptFailure | None, moment: float) -> Observation:
        """The observation with details that need a request: the place in the queue, or events."""
        details = ""
        if observation.state in WAITING:
            details = self._queue_position.text(self._observed.workload, moment)
        else:
            self._queue_position.forget()
        if self._observed.workload is None or (trouble is not None and trouble.cause is causes.NO_PODS):
            details += self._latest_warning.text(moment)
        else:
            self._latest_warning.forget()
        return Observation(observation.state, observation.text + details, observation.since)

    def _time_over(self, observation: Observation, moment: float) -> AttemptFailure | None:
        waited = self.durations.waited(moment)
        if waited > self._placement.queue_timeout_seconds:
            text = f"{self._kind.name} {self._name} waited {waited:.0f} s in queue {self._placement.queue} "
            return AttemptFailure(causes.QUEUE_TIMEOUT, text + f"({observation.text}) and was withdrawn")
        smaller = self._smaller(observation, waited, moment)
        if smaller is not None:
            return smaller
        if observation.state not in RUNNING:
            self._stall.restart(time.monotonic())
        overdue = self._stall.overdue(time.monotonic(), running_seconds=self.durations.running_seconds)
        if overdue is None or (overdue.family is ClusterError and self._has_gone_on()):
            return None
        return AttemptFailure(
            _cause_of(overdue), f"{self._kind.name} {self._name}: {overdue.text}", remedy=overdue.remedy
        )

    def _smaller(self, observation: Observation, waited: float, moment: float) -> AttemptFailure | None:
        """Whether a job of fewer nodes should take the place of one that waits for quota."""
        fewer = [count for count in self._job.node_counts if count < self._placement.nodes]
        is_due = moment - self._sized_at >= self._limits.place_seconds
        if not fewer or self._kind.affordable is None or observation.state not in WAITING or not is_due:
            return None
        if waited < self._limits.resize_seconds:
            return None
        self._sized_at = moment
        count = self._kind.affordable(self._placement, fewer, self._client, self._limits)
        if count is None:
            return None
        text = (
            f"{self._kind.name} {self._name} waited {waited:.0f} s for {self._placement.nodes} nodes, and queue "
            f"{self._placement.queue} has quota for {count} now"
        )
        return AttemptFailure(causes.RESIZED, text)

    def _has_gone_on(self) -> bool:
        """Whether a silent job is at work, or may be: its log may be what fails, and not the job.

        The pods copy their events to the store, too. A store that cannot be read proves nothing, so that the job gets
        the same time again.
        """
        step = self._output.stored_step()
        if step is not None and step <= max(self._stall.done, self._stored_step):
            return False
        self._stored_step = step or self._stored_step
        self._stall.sign(time.monotonic())
        return True

    def _why_failed(self) -> AttemptFailure:
        job = self._observed.job
        assert job is not None
        # The watcher may not have delivered the pods' final status yet.
        answer = until_answered(
            lambda: self._client.list(PODS, labelSelector=self._kind.pods_of(self._name)), self._client, self._limits
        )
        self._observed.take(Change("synced", PODS, tuple(answer.get("items") or ())))
        self._follow_logs()
        failure = self._kind.why_failed(job, self._observed.all_pods)
        first = sorted(self._observed.pods, key=lambda pod: (name_of(pod) != failure.pod, rank_of(pod)))
        self.tails = last_lines(self._client, first, self._limits)
        return failure

    def _say(self, observation: Observation) -> None:
        """Report a new state at once, and a new text of the same state (`3 of 64 pods ready`) from time to time."""
        said = (observation.state, observation.text)
        is_new = self._said is None or observation.state != self._said[0]
        if is_new or (said != self._said and now() - self._said_at >= self._limits.say_seconds):
            self._said, self._said_at = said, now()
            self._output.state(*said)

    def _take_messages(self) -> None:
        """Wait for a message, then handle all that have arrived."""
        try:
            self._take(self._inbox.get(timeout=_TICK_SECONDS))
            while True:
                self._take(self._inbox.get_nowait())
        except queue.Empty:
            return

    def _take(self, message: Change | LogLine) -> None:
        if isinstance(message, LogLine):
            event = self._output.line(message.text)
            if event is not None:
                self._stall.take(event, time.monotonic())
        elif message.error is not None:
            raise message.error
        else:
            self._observed.take(message)

    def _follow_logs(self) -> None:
        """Read the log of each pod that has the job's events from its container's start."""
        pods = self._observed.telling_pods
        for pod in pods:
            state = container_status(pod).get("state") or {}
            if uid_of(pod) not in self._followers and ("running" in state or "terminated" in state):
                follower = LogFollower(self._client, name_of(pod), self._inbox.put, self._limits)
                self._followers[uid_of(pod)] = follower
                follower.start()
        going = {uid_of(pod) for pod in pods if not is_over(pod)}
        for uid, follower in self._followers.items():
            if uid not in going:
                follower.pod_ended()

    def _end_logs(self) -> None:
        """Print the last lines of a job that has ended; a log that does not end in time is dropped."""
        followers: Sequence[LogFollower] = list(self._followers.values())
        deadline = now() + self._drain_seconds
        for follower in followers:
            follower.finish(max(0.0, deadline - now()))
        while not self._inbox.empty():
            message = self._inbox.get()
            if isinstance(message, LogLine):
                self._output.line(message.text)


def _cause_of(overdue: Overdue) -> causes.Cause:
    return causes.STALLED if overdue.family is ClusterError else causes.DEADLINE
