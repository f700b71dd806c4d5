"""The log of a submitted run's step, from the pods of its attempts."""

import threading
from collections.abc import Callable, Iterator

from vl3.errors import ClusterError
from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.logs import PodLog
from vl3.launch.kube.objects import STEP_CONTAINER, is_over
from vl3.launch.kube.outages import LostTouchError, Outage, raise_refusal
from vl3.launch.kube.resources import PODS
from vl3.launch.step_pods import StepPod, find_step_pods
from vl3.system.retry import BackOff, Pauses

_LIMITS = LaunchLimits(api_outage_seconds=60.0)
"""A person follows: an API server may restart meanwhile."""
_PAUSES = Pauses(first_seconds=0.5, longest_seconds=1.0)
"""Short, so that a line is shown within two seconds of being written."""


class NoPodError(Exception):
    """The step has no pod with a log: it has not started, or its pods are gone."""


def read_step(client: Client, kfp_run_id: str, task: str, note: Callable[[str], None]) -> Iterator[str]:
    """The log of the newest attempt that has one, as far as it is written.

    Args:
        client: client of the API server, in the run's namespace.
        kfp_run_id: the server's own id of the run.
        task: name of the task in the workflow.
        note: takes what a person should know beside the log.

    Raises:
        NoPodError: there is no pod.
        ConfigError: we have no right to read pods or their logs.
        ClusterError: the pod has not started; or the API server does not answer.
    """
    pods = _attempts(client, kfp_run_id, task)
    if not pods:
        raise NoPodError
    begun = [pod for pod in pods if pod.has_log]
    if not begun:
        raise ClusterError(f"{_not_started(pods[-1])} `vl3 run logs --follow` waits for it.")
    if begun[-1] is not pods[-1]:
        note(f"this is the log of the attempt before: {_not_started(pods[-1])}")
    yield from _lines(client, begun[-1].name, follow=False)


def follow_step(
    client: Client, kfp_run_id: str, task: str, note: Callable[[str], None], is_ended: Callable[[], bool]
) -> Iterator[str]:
    """The log of the newest attempt from its beginning, as it is written, then that of each retry, until the task ends.

    Args:
        client: client of the API server, in the run's namespace.
        kfp_run_id: the server's own id of the run.
        task: name of the task in the workflow.
        note: takes what a person should know beside the log: why it waits, that a retry goes on in another pod.
        is_ended: whether the task has ended for good, as Kubeflow Pipelines says; asked when no attempt is left.

    Raises:
        NoPodError: the task has ended and there is no pod.
        ConfigError: we have no right to read pods or their logs.
        ClusterError: the API server does not answer.
    """
    told = _Once(note)
    done: dict[str, float] = {}  # when each pod whose log was shown was created
    wait = BackOff(_PAUSES, threading.Event()).wait
    while True:
        pods = _attempts(client, kfp_run_id, task)
        new = [pod for pod in pods if pod.name not in done and pod.created >= max(done.values(), default=0.0)]
        if not new:
            if is_ended():
                if not done:
                    raise NoPodError
                return
            told(_no_pod(client, task, is_retry=bool(done)))
            wait()
            continue
        pod = new[-1]
        if pod.has_log:
            if done:
                told(f"the next attempt of {task} is pod {pod.name}")
            done[pod.name] = pod.created
            try:
                yield from _lines(client, pod.name, follow=True)
            except NoPodError:
                told(f"pod {pod.name} is gone; its last lines may be missing here")
            if _succeeded(client, kfp_run_id, pod):
                return
        elif pod.is_over:
            told(f"pod {pod.name} ended before its container started: {pod.reason or 'no reason is given'}")
            done[pod.name] = pod.created
        else:
            told(_not_started(pod))
            wait()


def _attempts(client: Client, kfp_run_id: str, task: str) -> list[StepPod]:
    return [pod for pod in find_step_pods(client, kfp_run_id) if pod.task == task]


def _succeeded(client: Client, kfp_run_id: str, pod: StepPod) -> bool:
    now = {one.name: one for one in find_step_pods(client, kfp_run_id)}.get(pod.name, pod)
    return now.phase == "Succeeded"


def _not_started(pod: StepPod) -> str:
    why = pod.reason or "it waits for its images, volumes and first containers"
    return f"pod {pod.name} of {pod.task} has not started: {why}{'' if why.endswith('.') else '.'}"


def _no_pod(client: Client, task: str, *, is_retry: bool) -> str:
    what = "another attempt or the end" if is_retry else "a pod"
    return f"waiting for {what} of {task} in namespace {client.namespace} of {client.server}"


def _lines(client: Client, pod: str, *, follow: bool) -> Iterator[str]:
    """All lines of a pod's log, each once, over as many requests as it takes.

    Raises:
        NoPodError: the pod is gone.
        ConfigError: we have no right to read logs.
        ClusterError: the API server does not answer.
    """
    log, outage = PodLog(client, pod, STEP_CONTAINER), Outage(_LIMITS, client)
    wait = BackOff(_PAUSES, threading.Event()).wait
    while True:
        try:
            was_over = not follow or _is_over(client, pod)  # asked first: then the log that follows is all of it
            yield from log.read(follow=follow)
            outage.over()
            if was_over:
                return
        except ApiError as error:
            _weigh(error, client, outage)
        except ApiUnreachableError as error:
            _note(error, outage)
        wait()


def _is_over(client: Client, pod: str) -> bool:
    return is_over(client.get(PODS, pod))


def _weigh(error: ApiError, client: Client, outage: Outage) -> None:
    if error.status == 404 and error.names_object:
        raise NoPodError from error
    try:
        raise_refusal(error, client)
    except LostTouchError as refused:
        raise refused.error from error
    _note(error, outage)  # the API server or the node's kubelet is busy, or away


def _note(error: ApiError | ApiUnreachableError, outage: Outage) -> None:
    try:
        outage.note(error)
    except LostTouchError as lost:
        raise lost.error from error


class _Once:
    """Passes on a note unless it is the one before."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._last = ""

    def __call__(self, text: str) -> None:
        if text != self._last:
            self._note(text)
            self._last = text
