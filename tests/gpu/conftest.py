"""Tests that need a CUDA device; each says so where there is none."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; torch finds none on this machine")
