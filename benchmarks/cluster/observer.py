"""What an observer sees of launches: watches on pods, workloads and TrainJobs, independent of the launcher's code."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from tests.support.cluster.reach import KUBECONFIG

_WATCH_SECONDS = 240


@dataclass(slots=True)
class Job:
    """A TrainJob as observed."""

    run_id: str
    created: float
    """When it appeared."""
    complete: float | None = None
    """When it was reported complete."""


@dataclass(slots=True)
class Waiting:
    """A workload in its queue."""

    queue: str
    priority: int
    nodes: int
    job: str
    is_reserved: bool = False
    was_refused: bool = False
    """Whether Kueue has reported that there is no quota."""
    is_finished: bool = False
    reserved: list[float] = field(default_factory=list)
    """Time of each reservation of quota."""


@dataclass(slots=True)
class Inversion:
    """A workload that got its quota while one of higher priority, no larger, waited in the same queue."""

    queue: str
    lower: str
    higher: str
    time: float
    seconds: float | None = None
    """How long it lasted: until the higher one got its own, or the lower one was evicted or ended."""


class Observer:
    """Follows a namespace in threads, for the length of a `with`."""

    def __init__(self, namespace: str) -> None:
        from kubernetes import client, config

        config.load_kube_config(str(KUBECONFIG))
        self._api = client.ApiClient()
        self._stop = threading.Event()
        self.jobs: dict[str, Job] = {}
        self.workloads: dict[str, Waiting] = {}
        self.inversions: list[Inversion] = []
        self.gpus: dict[str, int] = defaultdict(int)
        """GPUs that pods hold now, by pool and by node."""
        self.peaks: dict[str, int] = defaultdict(int)
        """The most of them at any moment."""
        self.gpu_seconds = 0.0
        self._pods: dict[str, tuple[str, str, int]] = {}
        self._changed = time.monotonic()
        root = f"namespaces/{namespace}"
        self._threads = [
            threading.Thread(target=self._follow, args=(path, take), daemon=True)
            for path, take in (
                (f"/api/v1/{root}/pods", self._take_pod),
                (f"/apis/kueue.x-k8s.io/v1beta2/{root}/workloads", self._take_workload),
                (f"/apis/trainer.kubeflow.org/v1alpha1/{root}/trainjobs", self._take_job),
            )
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _follow(self, path: str, take: Callable[[str, dict[str, Any]], None]) -> None:
        version = None
        while not self._stop.is_set():
            try:
                if version is None:
                    (found,) = self._ask(path)
                    for item in found["items"]:
                        take("ADDED", item)
                    version = found["metadata"]["resourceVersion"]
                for event in self._ask(path, watch="true", resourceVersion=version, allowWatchBookmarks="true"):
                    if event["type"] == "ERROR":
                        raise RuntimeError(f"{path}: events were lost, the measurement is void: {event['object']}")
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        take(event["type"], event["object"])
            except OSError as error:
                print(f"the observer's watch of {path} broke off: {error}", flush=True)
                time.sleep(0.5)

    def _ask(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """The documents of an answer, one per line."""
        response, _, _ = self._api.call_api(
            path,
            "GET",
            query_params=[*query.items(), ("timeoutSeconds", str(_WATCH_SECONDS))],
            auth_settings=["BearerToken"],
            response_type="object",
            _preload_content=False,
        )
        rest = b""
        for chunk in response.stream(None):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(json.loads, lines)
        if rest:
            yield json.loads(rest)

    def _take_pod(self, kind: str, pod: dict[str, Any]) -> None:
        """Count the GPUs of pods that hold a node and have not ended."""
        now = time.monotonic()
        self.gpu_seconds += sum(gpus for _, _, gpus in self._pods.values()) * (now - self._changed)
        self._changed = now
        uid, spec = pod["metadata"]["uid"], pod["spec"]
        self._pods.pop(uid, None)
        is_held = kind != "DELETED" and spec.get("nodeName") and pod["status"]["phase"] not in ("Succeeded", "Failed")
        if is_held:
            gpus = sum(int(one["resources"].get("limits", {}).get("nvidia.com/gpu", 0)) for one in spec["containers"])
            self._pods[uid] = (spec["nodeSelector"]["vl3.dev/pool"], spec["nodeName"], gpus)
        self.gpus = defaultdict(int)
        for pool, node, gpus in self._pods.values():
            self.gpus[pool] += gpus
            self.gpus[node] += gpus
        for key, gpus in self.gpus.items():
            self.peaks[key] = max(self.peaks[key], gpus)

    def _take_workload(self, kind: str, item: dict[str, Any]) -> None:
        """Record which workloads wait and which get quota, and whether another one should have been first."""
        name, spec, now = item["metadata"]["name"], item["spec"], time.time()
        if name not in self.workloads:
            nodes = sum(group["count"] for group in spec["podSets"])
            owner = item["metadata"]["ownerReferences"][0]["name"]
            self.workloads[name] = Waiting(spec["queueName"], spec["priority"], nodes, owner)
        seen = self.workloads[name]
        conditions = item.get("status", {}).get("conditions", [])
        is_true = {one["type"]: one["status"] == "True" for one in conditions}
        seen.was_refused |= any(one["type"] == "QuotaReserved" and one["reason"] == "Pending" for one in conditions)
        seen.is_finished = kind == "DELETED" or is_true.get("Finished", False)
        is_reserved = is_true.get("QuotaReserved", False)
        if is_reserved and not seen.is_reserved and not seen.is_finished:
            seen.reserved.append(now)
            self._look_for_inversions(name, seen, now)
        seen.is_reserved = is_reserved
        holds = is_reserved and not seen.is_finished and not is_true.get("Evicted", False)
        for inversion in self.inversions:
            is_over = not holds if inversion.lower == name else holds and inversion.higher == name
            if is_over and inversion.seconds is None:
                inversion.seconds = now - inversion.time

    def _look_for_inversions(self, name: str, taken: Waiting, now: float) -> None:
        """Record which workloads are passed over."""
        for other, waiting in self.workloads.items():
            is_higher = waiting.priority > taken.priority and waiting.nodes <= taken.nodes
            is_waiting = not waiting.is_reserved and not waiting.is_finished
            if waiting.queue == taken.queue and is_higher and is_waiting:
                self.inversions.append(Inversion(taken.queue, name, other, now))

    def _take_job(self, _: str, item: dict[str, Any]) -> None:
        name, now = item["metadata"]["name"], time.time()
        job = self.jobs.setdefault(name, Job(item["metadata"]["annotations"]["vl3.dev/run-id"], now))
        conditions = item.get("status", {}).get("conditions", [])
        if job.complete is None and any(one["type"] == "Complete" and one["status"] == "True" for one in conditions):
            job.complete = now
