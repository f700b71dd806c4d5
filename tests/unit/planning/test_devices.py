"""Devices by name, and their peaks."""

import pytest

from vl3.errors import ConfigError
from vl3.planning.devices import device_names, get_device, peak_flops_per_second


def test_peaks_are_the_makers_for_dense_arithmetic() -> None:
    assert peak_flops_per_second("h200", "bf16") == 989e12
    assert peak_flops_per_second("a100", "bf16") == 312e12
    assert peak_flops_per_second("a100", "fp32") == 19.5e12


@pytest.mark.parametrize("name", device_names())
def test_a_device_is_plausible_and_says_where_its_figures_are_from(name: str) -> None:
    device = get_device(name)
    assert device.name == name
    assert 1e13 < device.fp32_flops_per_second < device.bf16_flops_per_second < 3e15
    assert 20 < device.memory_gib < 200
    assert device.link_bytes_per_second < device.memory_bytes_per_second
    assert 0 < device.attention_share < device.product_share < 0.85
    assert "datasheet" in device.source


def test_an_unknown_device_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"GPU 'H20' is unknown.*The nearest is 'h200'.*planning/devices\.py"):
        get_device("H20")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"precision 'fp8' has no peak\. Choose one of bf16, fp32\."):
        peak_flops_per_second("h100", "fp8")
