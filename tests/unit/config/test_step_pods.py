"""Sizes of step pods: contradictions, each with its reason, and amounts as Kubernetes writes them."""

from dataclasses import replace

import pytest

from vl3.config.codec import from_dict, to_dict
from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.config.step_pods import StepPodsConfig, cpu_quantity, memory_quantity
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe

SIZE = StepPodsConfig().evaluator


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpus": 0.0}, r"step_pods\.cpus=0\.0 must be greater than 0"),
        ({"cpu_limit": 3.5}, r"cpu_limit=3\.5 is less than the requested cpus=4, which Kubernetes refuses"),
        ({"shm_gib": -1.0}, r"step_pods\.shm_gib=-1\.0 is negative"),
        ({"shm_gib": 64.0}, r"shm_gib=64 counts as memory and leaves nothing of memory_gib=64\. Lower shm_gib"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_size_that_cannot_work_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SIZE, **changes)


def test_an_override_of_a_size_is_checked() -> None:
    config = apply_overrides(get_recipe("tiny"), ["step_pods.evaluator.memory_gib=8"])
    assert (config.step_pods.evaluator.memory_gib, config.step_pods.data.memory_gib) == (8.0, 2.0)
    with pytest.raises(ConfigError, match=r"cpu_limit=2 is less than the requested cpus=3"):
        apply_overrides(get_recipe("tiny"), ["step_pods.evaluator.cpus=3"])


def test_a_checkpoint_of_older_code_has_no_sizes() -> None:
    recorded = to_dict(get_recipe("tiny"))
    del recorded["step_pods"]
    assert from_dict(RunConfig, recorded).step_pods == StepPodsConfig()


@pytest.mark.parametrize(("cpus", "text"), [(0.1, "100m"), (0.0001, "1m"), (1.2, "1200m"), (16.0, "16000m")])
def test_cores_are_rounded_up_to_thousandths(cpus: float, text: str) -> None:
    assert cpu_quantity(cpus) == text


@pytest.mark.parametrize(("gib", "text"), [(0.5, "512Mi"), (0.0001, "1Mi"), (1.1, "1127Mi"), (64.0, "65536Mi")])
def test_memory_is_rounded_up_to_mebibytes(gib: float, text: str) -> None:
    assert memory_quantity(gib) == text
