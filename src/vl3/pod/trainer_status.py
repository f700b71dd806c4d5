"""Posts progress to Kubeflow Trainer's status server, if the TrainJob's environment names one.

Trainer 2.3 injects KUBEFLOW_TRAINER_SERVER_URL, _CA_CERT and _TOKEN (both files) under its feature gate TrainJobStatus
and shows what is posted in the TrainJob's status. Nothing here ever fails or delays the training.
"""

import json
import logging
import math
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vl3.system.clock import now_to_the_second

log = logging.getLogger("vl3.pod")

URL_VARIABLE = "KUBEFLOW_TRAINER_SERVER_URL"
CA_VARIABLE = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
TOKEN_VARIABLE = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # names a file

_EVERY_SECONDS = 5.0
_TIMEOUT_SECONDS = 5.0
_MAX_METRICS = 256
_MAX_CHARACTERS = 64


class TrainerStatus:
    """Posts the latest progress in its own thread, at most every few seconds, and once more at the end."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._url = environ.get(URL_VARIABLE, "")
        self._ca_path = environ.get(CA_VARIABLE)
        self._token_path = environ.get(TOKEN_VARIABLE)
        self._values: dict[str, float] = {}
        self._first: tuple[int, float] | None = None
        self._done = self._total = 0
        self._posted = (0, 0)
        self._changed = threading.Event()
        self._ending = threading.Event()
        self._has_warned = False
        self._thread = threading.Thread(target=self._work, name="trainer-status", daemon=True)

    def __enter__(self) -> Self:
        if self._url:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._changed.set()
        if self._url:
            self._thread.join(timeout=2 * _TIMEOUT_SECONDS)

    def take(self, event: dict[str, Any]) -> None:
        """Handle an event of the stage."""
        if event["type"] == "start":
            self._first = (event["resumed_from_step"], time.monotonic())
        elif event["type"] == "metrics":
            self._values = event["values"]
        elif event["type"] == "progress":
            self._done, self._total = event["done"], event["total"]
            self._changed.set()

    def _work(self) -> None:
        while not self._ending.is_set():
            self._changed.wait()
            self._changed.clear()
            self._post()
            self._ending.wait(_EVERY_SECONDS)
        self._post()

    def _post(self) -> None:
        """Post the latest progress, unless there is none or it was posted already."""
        progress = (self._done, self._total)
        if not self._total or progress == self._posted:
            return
        self._posted = progress
        try:
            self._send(json.dumps({"trainerStatus": self._status()}).encode())
        except (OSError, ValueError) as error:  # the server, its certificate, the token's file, an invalid URL
            level = logging.DEBUG if self._has_warned else logging.WARNING
            self._has_warned = True
            log.log(level, "Trainer's status server does not accept progress (the training continues): %s", error)

    def _send(self, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        if self._token_path:  # read each time, because Kubernetes renews it
            headers["Authorization"] = f"Bearer {Path(self._token_path).read_text(encoding='utf-8').strip()}"
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")  # noqa: S310
        context = ssl.create_default_context(cafile=self._ca_path) if self._url.startswith("https:") else None
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]  # the server is in the cluster
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_SECONDS):
            pass

    def _status(self) -> dict[str, Any]:
        """TrainerStatus of trainer.kubeflow.org/v1alpha1.

        Resumed from step 100, now 60 s later at step 130 of 200: 65 percent, and 70 steps of 2 s make 140 s remaining.
        """
        status: dict[str, Any] = {
            "progressPercentage": self._done * 100 // self._total,
            "metrics": _metrics(self._values),
            "lastUpdatedTime": now_to_the_second(),
        }
        if self._first is not None and self._done > self._first[0]:
            step, since = self._first
            seconds_per_step = (time.monotonic() - since) / (self._done - step)
            status["estimatedRemainingSeconds"] = int(seconds_per_step * (self._total - self._done))
        return status


def _metrics(values: Mapping[str, float]) -> list[dict[str, str]]:
    finite = [(name, value) for name, value in values.items() if math.isfinite(value) and len(name) <= _MAX_CHARACTERS]
    return [{"name": name, "value": f"{value:.6g}"} for name, value in finite[:_MAX_METRICS]]
