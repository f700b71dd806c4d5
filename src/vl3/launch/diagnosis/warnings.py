"""The cluster's events about a job that makes no progress; they are requested only then."""

from typing import Any

from vl3.launch.kube.client import ApiError, ApiUnreachableError, Client
from vl3.launch.kube.objects import one_line
from vl3.launch.kube.resources import EVENTS

_PATIENCE_SECONDS = 10.0
_MAX_EVENTS = "500"


class LatestWarning:
    """The latest warning about a job or an object that was created for it."""

    def __init__(self, client: Client, name: str, *, every_seconds: float) -> None:
        self._client = client
        self._name = name
        self._every_seconds = every_seconds
        self._next_at: float | None = None
        self._warning = ""

    def text(self, now: float) -> str:
        """`; <reason>: <message>` or an empty text; the first request waits, since most problems pass in seconds."""
        if self._next_at is None:
            self._next_at = now + _PATIENCE_SECONDS
        elif now >= self._next_at:
            self._next_at = now + self._every_seconds
            self._warning = self._ask()
        return self._warning

    def forget(self) -> None:
        """Drop the warning: the job makes progress."""
        self._next_at, self._warning = None, ""

    def _ask(self) -> str:
        try:
            answer = self._client.list(EVENTS, fieldSelector="type=Warning", limit=_MAX_EVENTS)
        except (ApiError, ApiUnreachableError):
            return ""
        ours = [event for event in answer.get("items") or () if self._is_ours(event)]
        if not ours:
            return ""
        latest = max(ours, key=_time_of)
        said = f"{latest.get('reason')}: {latest.get('message')}"
        return f"; {one_line(said, 300)}"

    def _is_ours(self, event: dict[str, Any]) -> bool:
        name = str((event.get("involvedObject") or {}).get("name", ""))
        return name == self._name or name.startswith(
            (f"{self._name}-", f"trainjob-{self._name}-", f"rayjob-{self._name}-")
        )


def _time_of(event: dict[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp"))
