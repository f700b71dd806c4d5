"""Runs a stage as jobs on a cluster: creates, watches, retries and finally deletes them."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

from vl3.errors import Vl3Error
from vl3.launch.diagnosis import causes
from vl3.launch.diagnosis.causes import AttemptFailure
from vl3.launch.job import LaunchJob, LaunchResult
from vl3.launch.jobs.attempt import Attempt
from vl3.launch.jobs.creation import Creation, adopt, check_queue, wait_for_deletion
from vl3.launch.jobs.history import FailedAttempt, format_history, may_retry, parse_history
from vl3.launch.jobs.kinds import JobKind
from vl3.launch.jobs.names import ATTEMPT_LABEL, HISTORY_ANNOTATION, LAUNCHER_ANNOTATION, selector, stage_selector
from vl3.launch.jobs.output import LaunchOutput
from vl3.launch.jobs.removal import delete_job, remove, wait_until_gone
from vl3.launch.kube.client import ApiError, Client
from vl3.launch.kube.connection import connect
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.objects import Object, annotations_of, is_being_deleted, labels_of, name_of, uid_of
from vl3.launch.kube.outages import LostTouchError, until_answered
from vl3.launch.kube.owner import LauncherPod, find_launcher_pod
from vl3.system.retry import prepare_retries

log = logging.getLogger("vl3.launch")

_WITH_LAST_LINES = frozenset({"crash", "out_of_memory", "stopped"})
"""Causes whose message includes the pod's last lines."""


def launch_job(
    job: LaunchJob,
    kind: JobKind,
    on_event: Callable[[dict[str, Any]], None],
    *,
    limits: LaunchLimits | None = None,
    client: Client | None = None,
) -> LaunchResult:
    """Run jobs of a kind until one is complete.

    An existing job of the same run and stage is adopted, so that a killed launcher resumes when it is started again.
    For that purpose a complete job is kept until the run ends (`cancel_run`). If this call ends in any other way, its
    job is deleted and its pods are gone, unless the API server does not answer any more: then the job keeps running.

    Args:
        job: what to run.
        kind: as what.
        on_event: called in this thread for the training's events and for changes of state.
        limits: the launcher's timeouts.
        client: client of the API server; None uses the pod's own or the kubeconfig's.

    Raises:
        Vl3Error: why the stage did not complete.
    """
    prepare_retries()
    launch = _Launch(job, kind, on_event, limits or LaunchLimits(), client or Client(connect()))
    try:
        return launch.run()
    except LostTouchError as error:  # without the API server the job cannot be deleted: it keeps running
        raise error.error from error
    except BaseException:
        try:
            launch.withdraw()
        except BaseException:  # a second signal, just before signals are held back
            launch.withdraw()
            raise
        raise


class _Launch:
    def __init__(
        self,
        job: LaunchJob,
        kind: JobKind,
        on_event: Callable[[dict[str, Any]], None],
        limits: LaunchLimits,
        client: Client,
    ) -> None:
        assert job.placement is not None
        self._job = job
        self._kind = kind
        self._placement = job.placement
        self._node_counts = job.node_counts
        self._limits = limits
        self._client = client
        self._output = LaunchOutput(job, on_event)
        self._creation: Creation | None = None
        self._has_looked = False
        self._current: Object | None = None
        self._launcher_pod: LauncherPod | None = None
        self._queued_seconds = 0.0
        self._running_seconds = 0.0
        self._images: tuple[str, ...] = ()

    def run(self) -> LaunchResult:
        number, history, found = self._find()
        if found is None:
            self._choose_nodes()
            first = self._manifest(number, history)
            check_queue(self._client, first, self._limits)
            self._wait_for_pods("an earlier job of this stage was deleted")
        current = found or self._create(number, history)
        while True:
            failure, tails = self._follow(current)
            if failure is None:
                self._current = None  # keep a complete job
                self._output.fetch_events()
                return LaunchResult(
                    attempts=number,
                    seconds_queued=self._queued_seconds,
                    seconds_running=self._running_seconds,
                    states=tuple(self._output.states),
                    images=self._images,
                )
            if failure.cause is not causes.RESIZED:  # which is no failure
                history = [*history, FailedAttempt(failure.cause.name, self._output.last_step)]
            if history and not may_retry(failure.cause, history, max_retries=self._placement.max_retries):
                self._output.state("failed", failure.text)
                lines = tails.get(failure.pod, []) if failure.cause.name in _WITH_LAST_LINES else []
                raise failure.error(
                    self._job.name,
                    self._job.stage,
                    attempts=number,
                    last_lines="\n".join(f"  {line}" for line in lines),
                )
            number += 1
            self._output.state("retrying", f"attempt {number} follows, because {failure.text}")
            # Otherwise only the launcher considers it failed.
            has_ended = failure.cause.patience is None and failure.cause not in (causes.STALLED, causes.RESIZED)
            current = self._replace(current, number, history, has_ended=has_ended)

    def withdraw(self) -> None:
        """Delete what this launch created or adopted and wait until its GPUs are free; signals have to wait.

        What fails here is logged: it must not replace the error that ended the launch.
        """
        with _signals_held():
            try:
                self._withdraw()
            except (Vl3Error, ApiError, LostTouchError) as error:
                log.error("%s: %s", self._job.name, error)

    def _withdraw(self) -> None:
        if not self._has_looked:  # an earlier launcher's job has to be deleted, too
            self._current = self._found_by_now()
        if self._creation is not None:
            self._current = self._creation.settle() or self._current
        if self._current is None:
            return
        log.info("%s: deleting %s %s", self._job.name, self._kind.name, name_of(self._current))
        removal = remove(self._client, self._kind, self._current, self._limits)
        self._current = None
        log.info("%s: %s", self._job.name, removal)

    def _find(self) -> tuple[int, list[FailedAttempt], Object | None]:
        """Number, history and job of the attempt to continue with; older attempts are deleted.

        Nothing there: (1, [], None). Attempts 1 and 2: deletes 1 and adopts 2: (2, history of 2, job 2). Attempt 2
        alone and being deleted: waits for that, and the next one is new: (3, history of 2, None).
        """
        jobs = self._jobs()
        self._launcher_pod = find_launcher_pod(self._client)
        for former in jobs[:-1]:
            delete_job(self._client, self._kind, name_of(former), uid_of(former), self._limits)
        self._has_looked = not jobs or is_being_deleted(jobs[-1])
        if not jobs:
            return 1, [], None
        latest = jobs[-1]
        number, history = _attempt_of(latest), parse_history(annotations_of(latest).get(HISTORY_ANNOTATION, ""))
        if is_being_deleted(latest):
            wait_for_deletion(self._client, self._kind, latest, self._limits)
            return number + 1, history, None
        self._take_nodes_of(latest)
        found = adopt(self._kind, latest, self._manifest(number, history))
        self._current, self._has_looked = found, True
        self._look_after(found)
        return number, history, found

    def _look_after(self, job: Object) -> None:
        """Record this launcher's pod in place of the previous one's; otherwise the collector sees an orphan."""
        if self._launcher_pod is None or annotations_of(job).get(LAUNCHER_ANNOTATION) == self._launcher_pod.name:
            return
        name, annotations = name_of(job), {LAUNCHER_ANNOTATION: self._launcher_pod.name}
        try:
            until_answered(
                lambda: self._client.annotate(self._kind.resource, name, annotations), self._client, self._limits
            )
        except ApiError as error:  # it is being deleted, which following it will report
            log.warning("%s %s still names its previous launcher: %s", self._kind.name, name, error)

    def _jobs(self) -> list[Object]:
        query = selector(self._job.run_id, self._job.stage)
        answer = until_answered(
            lambda: self._client.list(self._kind.resource, labelSelector=query), self._client, self._limits
        )
        return sorted(answer.get("items") or (), key=_attempt_of)

    def _found_by_now(self) -> Object | None:
        """The job of this run and stage, unless it was made from another configuration."""
        try:
            jobs = self._jobs()
            if not jobs:
                return None
            self._take_nodes_of(jobs[-1])
            return adopt(self._kind, jobs[-1], self._manifest(1, []))
        except Vl3Error:
            return None

    def _choose_nodes(self) -> None:
        """Give the next attempt the nodes that its queue has quota for, if its placement leaves a choice."""
        counts = self._node_counts
        if len(counts) < 2 or self._kind.affordable is None:
            return
        found = self._kind.affordable(self._placement, counts, self._client, self._limits)
        chosen = counts[-1] if found is None else found  # with the fewest it waits the shortest time
        log.info("%s: %d nodes of %d to %d for the next attempt", self._job.name, chosen, counts[-1], counts[0])
        self._resize(chosen)

    def _take_nodes_of(self, job: Object) -> None:
        """Go on with the nodes of an existing job, which an earlier launcher chose."""
        if len(self._node_counts) > 1 and self._kind.num_pods(job) in self._node_counts:
            self._resize(self._kind.num_pods(job))

    def _resize(self, nodes: int) -> None:
        self._placement = replace(self._placement, nodes=nodes)
        self._job = replace(self._job, placement=self._placement)

    def _manifest(self, number: int, history: list[FailedAttempt]) -> Object:
        return self._kind.build(
            self._job,
            attempt=number,
            history=format_history(history),
            owner=self._launcher_pod.owner if self._launcher_pod else None,
            launcher_pod=self._launcher_pod.name if self._launcher_pod else "",
        )

    def _create(self, number: int, history: list[FailedAttempt]) -> Object:
        self._creation = Creation(self._client, self._kind, self._manifest(number, history), self._limits)
        self._creation.start()
        self._current = self._creation.wait()
        self._creation = None
        return self._current

    def _follow(self, created: Object) -> tuple[AttemptFailure | None, dict[str, list[str]]]:
        attempt = Attempt(self._job, self._kind, created, self._client, self._limits, self._output)
        try:
            failure = attempt.follow()
        finally:
            self._queued_seconds += attempt.durations.queued_seconds
            self._running_seconds += attempt.durations.running_seconds
            self._images = attempt.images
        for pod, lines in attempt.tails.items():
            self._output.tail(pod, lines)
        return failure, attempt.tails

    def _replace(self, former: Object, number: int, history: list[FailedAttempt], *, has_ended: bool) -> Object:
        """Replace a failed attempt with the next one, after its pods have ended: both must not write at once."""
        name = name_of(former)
        if not has_ended:  # it would keep running beside the next one
            remove(self._client, self._kind, former, self._limits)
        self._wait_for_pods(f"{self._kind.name} {name} has failed")
        self._choose_nodes()
        created = self._create(number, history)
        delete_job(self._client, self._kind, name, uid_of(former), self._limits)
        return created

    def _wait_for_pods(self, what: str) -> None:
        wait_until_gone(
            self._client,
            stage_selector(self._job.run_id, self._job.stage),
            self._limits,
            seconds=self._limits.replace_seconds,
            what=what,
        )


def _attempt_of(job: Object) -> int:
    text = labels_of(job).get(ATTEMPT_LABEL, "")
    return int(text) if text.isdigit() else 0


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back SIGTERM and SIGINT while the GPUs are being freed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = {number: signal.signal(number, _say_wait) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)


def _say_wait(number: int, _: FrameType | None) -> None:
    log.warning("got %s while deleting the job: the deletion continues", signal.Signals(number).name)
