"""Pods' logs: rank 0's while it is written, and the last lines of every rank after a failure.

A log that cannot be read never fails a job.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.limits import LaunchLimits
from vl3.launch.kube.logs import PodLog
from vl3.launch.kube.objects import CONTAINER, Object, name_of, phase_of, rank_of
from vl3.launch.kube.watch import BrokenOffError

log = logging.getLogger("vl3.launch")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a pod wrote."""

    pod: str
    """Name of the pod."""
    text: str
    """The line."""


class LogFollower(threading.Thread):
    """A thread that passes on each line of a pod's log until the pod has ended."""

    def __init__(self, client: Client, pod: str, tell: Callable[[LogLine], None], limits: LaunchLimits) -> None:
        super().__init__(name=f"log-{pod}", daemon=True)
        self.pod = pod
        self._log = PodLog(client, pod, CONTAINER)
        self._tell = tell
        self._limits = limits
        self._ended = threading.Event()
        self._wake = threading.Event()

    def pod_ended(self) -> None:
        """The pod has ended: let the thread read the rest of the log and end."""
        self._ended.set()
        self._wake.set()

    def finish(self, seconds: float) -> None:
        """Wait for the rest of the log, then end the thread."""
        self.pod_ended()
        self.join(seconds)
        self._log.hang_up()

    def run(self) -> None:
        """Follow until the pod has ended."""
        silent = 0
        while True:
            is_last = self._ended.is_set()
            is_read, lines = self._read()
            if is_last or (self._ended.is_set() and is_read):
                return
            silent = 1 if lines else silent + 1
            self._wake.wait(self._limits.log_pauses.after(silent))

    def _read(self) -> tuple[bool, int]:
        """Read one stream to its end; returns whether there was one, and its number of new lines."""
        lines = 0
        try:
            for text in self._log.read(follow=True):
                lines += 1
                self._tell(LogLine(self.pod, text))
        except BrokenOffError as error:
            log.debug("%s", error)
        except (ApiError, ApiUnreachableError) as error:
            log.debug("the log of %s cannot be read now: %s", self.pod, error)
            return False, 0
        return True, lines


def last_lines(client: Client, pods: Sequence[Object], limits: LaunchLimits) -> dict[str, list[str]]:
    """The last lines of each pod that has any, by name, at most limits.log_tail_pods pods in order."""
    tails: dict[str, list[str]] = {}
    for pod in [one for one in pods if phase_of(one) in ("Running", "Succeeded", "Failed")][: limits.log_tail_pods]:
        lines: list[str] = []
        try:
            lines.extend(
                PodLog(client, name_of(pod), CONTAINER).read(follow=False, tailLines=str(limits.log_tail_lines))
            )
        except BrokenOffError as error:
            log.debug("%s", error)
        except (ApiError, ApiUnreachableError) as error:
            log.info("node rank %d: no log of pod %s (%s)", rank_of(pod), name_of(pod), error)
            continue
        tails[name_of(pod)] = [text for text in lines if text and not text.startswith("vl3-event ")]
    return tails
