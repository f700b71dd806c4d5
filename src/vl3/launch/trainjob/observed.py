"""The objects of one attempt, as far as the watchers have reported them."""

from vl3.launch.kube.objects import Object, is_being_deleted, labels_of, running_image, uid_of
from vl3.launch.kube.resources import PODS, TRAINJOBS, WORKLOADS, Resource
from vl3.launch.kube.watch import Change

KINDS = (TRAINJOBS, WORKLOADS, PODS)
"""What an attempt watches."""


class ObservedObjects:
    """TrainJob, Workload and pods of an attempt, including deleted pods, whose status may explain a failure."""

    def __init__(self, trainjob: Object) -> None:
        self._uid = uid_of(trainjob)
        self._objects: dict[Resource, dict[str, Object]] = {kind: {} for kind in KINDS}
        self._gone: dict[str, Object] = {}
        self._synced: set[Resource] = set()

    @property
    def is_whole(self) -> bool:
        """Whether every watcher has sent its first list."""
        return len(self._synced) == len(KINDS)

    @property
    def trainjob(self) -> Object | None:
        """The TrainJob with this attempt's uid; None if it is gone, even if another one has its name now."""
        return self._objects[TRAINJOBS].get(self._uid)

    @property
    def workload(self) -> Object | None:
        """Kueue's Workload for the TrainJob."""
        return next(iter(self._objects[WORKLOADS].values()), None)

    @property
    def pods(self) -> list[Object]:
        """The existing pods."""
        return list(self._objects[PODS].values())

    @property
    def lost_pods(self) -> list[Object]:
        """The pods that disappeared since the job was last admitted, as last seen."""
        return list(self._gone.values())

    @property
    def all_pods(self) -> list[Object]:
        """All pods since the job was last admitted, as last seen."""
        return [*self.pods, *self._gone.values()]

    @property
    def images(self) -> tuple[str, ...]:
        """The images of those pods, by digest."""
        return tuple(sorted({image for image in map(running_image, self.all_pods) if image}))

    def take(self, change: Change) -> None:
        """Apply a watcher's change.

        `synced` with pods b and c, when a and b were known: a is lost, b is updated, c is new.
        """
        known = self._objects[change.resource]
        if change.kind == "synced":
            self._synced.add(change.resource)
            now = {uid_of(item): item for item in change.objects}
            for uid in set(known) - set(now):
                self._lose(change.resource, known[uid])
            known.clear()
            known.update(now)
        else:
            for item in change.objects:
                if change.kind == "deleted":
                    known.pop(uid_of(item), None)
                    self._lose(change.resource, item)
                else:
                    known[uid_of(item)] = item
        if self._is_suspended():
            self._gone.clear()  # pods that a preemption ended do not explain a failure

    def _lose(self, resource: Resource, item: Object) -> None:
        if resource is PODS:
            self._gone[uid_of(item)] = item

    def _is_suspended(self) -> bool:
        trainjob = self.trainjob
        return trainjob is not None and bool(trainjob["spec"].get("suspend"))


def rank_zero(pods: list[Object]) -> list[Object]:
    """The pods of node rank 0, whose log is followed; those being deleted come last."""
    key = "batch.kubernetes.io/job-completion-index"
    return sorted((pod for pod in pods if labels_of(pod).get(key, "0") == "0"), key=is_being_deleted)
