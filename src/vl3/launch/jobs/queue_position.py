"""The position of a waiting job in its queue, from Kueue's visibility API if the cluster has it."""

import logging

from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.objects import Object, name_of
from vl3.launch.kube.resources import QUEUE_PLACES

log = logging.getLogger("vl3.launch")


class QueuePosition:
    """Requests the position from time to time; a cluster without the API is asked only once."""

    def __init__(self, client: Client, queue: str, *, every_seconds: float) -> None:
        self._client = client
        self._queue = queue
        self._every_seconds = every_seconds
        self._asked_at: float | None = None
        self._is_served = True
        self._place: int | None = None

    def text(self, workload: Object | None, now: float) -> str:
        """`; place 3 of its queue`, or an empty text if not known."""
        is_due = self._asked_at is None or now - self._asked_at >= self._every_seconds
        if workload is not None and self._is_served and is_due:
            self._asked_at = now
            self._place = self._ask(name_of(workload))
        return "" if self._place is None else f"; place {self._place} of its queue"

    def forget(self) -> None:
        """Drop the position: the job does not wait any more."""
        self._place, self._asked_at = None, None

    def _ask(self, workload: str) -> int | None:
        try:
            answer = self._client.get(QUEUE_PLACES, self._queue, "pendingworkloads")
        except ApiError as error:
            self._is_served = error.is_passing
            log.debug("no positions in queues: %s", error)
            return None
        except ApiUnreachableError:
            return None
        items = answer.get("items") or ()
        found = next((one for one in items if one["metadata"]["name"] == workload), None)
        return None if found is None else int(found.get("positionInClusterQueue", 0)) + 1
