"""What the devices can do: peak arithmetic, memory, bandwidth, and the share of it that training reaches.

Peaks are the makers' figures for dense arithmetic, without sparsity. MFU is measured against them.
"""

import difflib
from dataclasses import dataclass

from vl3.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One GPU (or the CPU cores of one process)."""

    name: str
    """As placements and commands name it."""
    title: str
    """As its maker names it."""
    bf16_flops_per_second: float
    """Dense peak with bf16 inputs."""
    fp32_flops_per_second: float
    """Dense peak with fp32 inputs; torch does not use TF32 unless it is told to."""
    memory_gib: float
    """Memory that a process can allocate, after what the driver and its context keep."""
    memory_bytes_per_second: float
    """Peak bandwidth of its memory."""
    link_bytes_per_second: float
    """Bandwidth to another GPU of the node, one way: half of what makers add up."""
    source: str
    """Where the figures are from."""
    product_share: float = 0.70
    """Share of the peak that the products of linear layers reach."""
    attention_share: float = 0.33
    """Share of the peak that packed attention reaches."""
    bandwidth_share: float = 0.75
    """Share of the bandwidth that norms, activations and the optimizer reach."""


_H100_SHARES = (
    "matmul 0.80 of the peak at best on H100 (stas00/ml-engineering, compute/accelerator), 0.61 to 0.69 in the shapes "
    "of the 2B model; FA2-class attention 0.30 to 0.35 forward and backward"
)

_DEVICES = {
    device.name: device
    for device in (
        Device(
            name="h200",
            title="NVIDIA H200 SXM",
            bf16_flops_per_second=989e12,
            fp32_flops_per_second=67e12,
            memory_gib=139.0,
            memory_bytes_per_second=4.8e12,
            link_bytes_per_second=450e9,
            source=f"NVIDIA H200 datasheet (989.5 TFLOP/s, 141 GB, 4.8 TB/s, NVLink 900 GB/s); {_H100_SHARES}",
            product_share=0.65,
        ),
        Device(
            name="h100",
            title="NVIDIA H100 SXM 80GB",
            bf16_flops_per_second=989e12,
            fp32_flops_per_second=67e12,
            memory_gib=79.0,
            memory_bytes_per_second=3.35e12,
            link_bytes_per_second=450e9,
            source=f"NVIDIA H100 datasheet (989.4 TFLOP/s, 80 GB, 3.35 TB/s, NVLink 900 GB/s); {_H100_SHARES}",
            product_share=0.65,
        ),
        Device(
            name="h100-pcie",
            title="NVIDIA H100 PCIe 80GB",
            bf16_flops_per_second=756e12,
            fp32_flops_per_second=51e12,
            memory_gib=79.0,
            memory_bytes_per_second=2.0e12,
            link_bytes_per_second=50e9,
            source="NVIDIA H100 datasheet (756 TFLOP/s, 80 GB, 2 TB/s; PCIe 5 x16). 350 W hold the clock down",
            product_share=0.60,
        ),
        Device(
            name="a100",
            title="NVIDIA A100 SXM 80GB",
            bf16_flops_per_second=312e12,
            fp32_flops_per_second=19.5e12,
            memory_gib=79.0,
            memory_bytes_per_second=2.039e12,
            link_bytes_per_second=300e9,
            source="NVIDIA A100 datasheet (312 TFLOP/s, 80 GB, 2,039 GB/s, NVLink 600 GB/s); matmul about 0.8 "
            "of the peak at best, FA2 0.5 to 0.6 in its paper (arXiv 2307.08691)",
            attention_share=0.50,
        ),
        Device(
            name="a100-40gb",
            title="NVIDIA A100 SXM 40GB",
            bf16_flops_per_second=312e12,
            fp32_flops_per_second=19.5e12,
            memory_gib=39.0,
            memory_bytes_per_second=1.555e12,
            link_bytes_per_second=300e9,
            source="NVIDIA A100 datasheet (312 TFLOP/s, 40 GB, 1,555 GB/s, NVLink 600 GB/s)",
            attention_share=0.50,
        ),
        Device(
            name="l40s",
            title="NVIDIA L40S",
            bf16_flops_per_second=362e12,
            fp32_flops_per_second=91.6e12,
            memory_gib=44.0,
            memory_bytes_per_second=864e9,
            link_bytes_per_second=25e9,
            source="NVIDIA L40S datasheet (362 TFLOP/s dense, 48 GB, 864 GB/s; PCIe 4 x16). Shares unmeasured",
            product_share=0.55,
        ),
        Device(
            name="a10g",
            title="NVIDIA A10G",
            bf16_flops_per_second=70e12,
            fp32_flops_per_second=31.2e12,
            memory_gib=22.0,
            memory_bytes_per_second=600e9,
            link_bytes_per_second=25e9,
            source="NVIDIA A10G datasheet (70 TFLOP/s dense, 24 GB, 600 GB/s; PCIe 4 x16). Shares unmeasured",
            product_share=0.60,
        ),
        Device(
            name="b200",
            title="NVIDIA B200 SXM",
            bf16_flops_per_second=2250e12,
            fp32_flops_per_second=75e12,
            memory_gib=178.0,
            memory_bytes_per_second=7.7e12,
            link_bytes_per_second=900e9,
            source="NVIDIA HGX B200 datasheet (2.25 PFLOP/s dense, 180 GB, 7.7 TB/s, NVLink 1.8 TB/s). Shares "
            "unmeasured",
            product_share=0.60,
            attention_share=0.25,
        ),
    )
}


def device_names() -> list[str]:
    """Names that `get_device` knows."""
    return list(_DEVICES)


def get_device(name: str) -> Device:
    """A GPU by its name.

    Raises:
        ConfigError: no GPU has this name; the nearest is named.
    """
    if name not in _DEVICES:
        nearest = difflib.get_close_matches(name.lower(), _DEVICES, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"GPU {name!r:.50} is unknown, so neither fit nor time can be computed. The nearest is {nearest!r}; known "
            f"are {', '.join(_DEVICES)}. Use one of them, or add the device with its figures to "
            "src/vl3/planning/devices.py."
        )
    return _DEVICES[name]


def peak_flops_per_second(gpu: str, precision: str) -> float:
    """Dense peak of a GPU, the denominator of MFU.

    Args:
        gpu: its name.
        precision: `bf16` or `fp32`, as engine.precision.

    Raises:
        ConfigError: no GPU has this name, or the precision is another.
    """
    device = get_device(gpu)
    peaks = {"bf16": device.bf16_flops_per_second, "fp32": device.fp32_flops_per_second}
    if precision not in peaks:
        raise ConfigError(f"precision {precision!r:.50} has no peak. Choose one of {', '.join(peaks)}.")
    return peaks[precision]
