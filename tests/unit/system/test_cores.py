"""Usable cores: those of the scheduler, or the quota of the container."""

import os
from pathlib import Path

import pytest

from vl3.system.cores import usable_cores

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", CORES), ("50000 100000", 1), ("100000 100000", 1), ("99900000 100000", CORES), ("", CORES)],
)
def test_the_quota_bounds_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores(tmp_path / "cpu.max") == cores


def test_without_a_quota_they_are_the_schedulers(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none") == CORES
