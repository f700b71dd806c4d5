"""The objects of one attempt, as far as the watchers have reported them."""

from vl3.launch.jobs.kinds import JobKind
from vl3.launch.kube.objects import Object, is_being_deleted, running_image, uid_of
from vl3.launch.kube.resources import PODS, WORKLOADS, Resource
from vl3.launch.kube.watch import Change


class ObservedObjects:
    """Job, Workload and pods of an attempt, including deleted pods, whose status may explain a failure."""

    def __init__(self, job: Object, kind: JobKind) -> None:
        self._uid = uid_of(job)
        self._kind = kind
        self._objects: dict[Resource, dict[str, Object]] = {kind.resource: {}, WORKLOADS: {}, PODS: {}}
        self._gone: dict[str, Object] = {}
        self._synced: set[Resource] = set()

    @property
    def is_whole(self) -> bool:
        """Whether every watcher has sent its first list."""
        return len(self._synced) == len(self._objects)

    @property
    def job(self) -> Object | None:
        """The job with this attempt's uid; None if it is gone, even if another one has its name now."""
        found = self._objects[self._kind.resource].get(self._uid)
        return None if found is None else self._kind.view(found)

    @property
    def workload(self) -> Object | None:
        """Kueue's Workload for the job."""
        return next(iter(self._objects[WORKLOADS].values()), None)

    @property
    def pods(self) -> list[Object]:
        """The existing pods."""
        return list(self._objects[PODS].values())

    @property
    def telling_pods(self) -> list[Object]:
        """The pods whose log is followed; those being deleted come last."""
        return sorted(filter(self._kind.tells, self.pods), key=is_being_deleted)

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
        job = self.job
        return job is not None and bool(job["spec"].get("suspend"))
