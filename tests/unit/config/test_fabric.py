"""The network and the nodes of a pool as data: what is refused, and how an override adds to them."""

from typing import Any

import pytest

from vl3.config.codec import from_dict, to_dict
from vl3.config.fabric import FabricConfig, SchedulingConfig, Toleration
from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.recipes.tiny import tiny


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (FabricConfig, {"devices": {"nvidia.com/gpu": 8}}, r"'nvidia\.com/gpu', which is what gpus_per_node requests"),
        (FabricConfig, {"devices": {"hca": 1}}, r"'hca', which is no resource of a device plugin\. .*rdma/hca"),
        (FabricConfig, {"devices": {"rdma/hca": 0}}, r"placement\.fabric\.devices\.rdma/hca=0 must be greater than 0"),
        (FabricConfig, {"hugepages_gib": {"4Ki": 1.0}}, r"page size '4Ki'\. Use one of 2Mi, 1Gi"),
        (FabricConfig, {"capabilities": ["CAP_IPC_LOCK"]}, r"without CAP_: IPC_LOCK"),
        (FabricConfig, {"environment": {"VL3_JOB": "x"}}, r"'VL3_JOB', which vl3 sets itself"),
        (FabricConfig, {"environment": {"nccl": "x"}}, r"'nccl', which is no name of a variable"),
        (FabricConfig, {"environment": {"NCCL_DEBUG": "a\nb"}}, r"NCCL_DEBUG has 3 characters or one that cannot"),
        (SchedulingConfig, {"node_labels": {"a b": "c"}}, r"node_labels has 'a b'='c', which is no label"),
        (SchedulingConfig, {"required_topology": "a", "preferred_topology": "b"}, r"of which Kueue takes one"),
        (Toleration, {"key": "gpu", "value": "yes"}, r"operator=Exists does not compare\. Set operator=Equal"),
        (Toleration, {"key": "gpu", "seconds": 5}, r"seconds=5, which Kubernetes takes only with effect=NoExecute"),
        (Toleration, {"key": "gpu", "operator": "In"}, r"tolerations\.operator='In' is unknown\. Choose one of Exists"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_first(kind: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


def test_an_override_adds_a_device_a_variable_and_a_toleration() -> None:
    changed = apply_overrides(
        tiny(),
        [
            "placements.video.fabric.devices.rdma/hca=8",
            "placements.video.fabric.environment.NCCL_IB_HCA=mlx5",
            'placements.video.scheduling.tolerations=[{"key": "gpu", "effect": "NoSchedule"}]',
        ],
    )

    placement = changed.placements["video"]
    assert placement.fabric == FabricConfig(devices={"rdma/hca": 8}, environment={"NCCL_IB_HCA": "mlx5"})
    assert placement.scheduling.tolerations == [Toleration(key="gpu", effect="NoSchedule")]
    assert from_dict(RunConfig, to_dict(changed)) == changed
    assert len({placement, changed.placements["alignment"]}) == 2
