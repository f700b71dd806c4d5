"""The volume of /dev/shm in the pods of a job: through it go NCCL, the loader and Ray's objects."""

from vl3.config.placement import PlacementConfig
from vl3.launch.kube.objects import Object

SHM_MOUNT: Object = {"name": "shm", "mountPath": "/dev/shm"}  # noqa: S108 - the path is Linux's


def shm_volume(placement: PlacementConfig) -> Object:
    """The volume, of the size that the placement says; what is in it counts as memory of the pod."""
    size = f"{round(placement.shm_gib * 1024)}Mi"
    return {"name": SHM_MOUNT["name"], "emptyDir": {"medium": "Memory", "sizeLimit": size}}
