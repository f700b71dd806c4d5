"""Tests that need a CUDA device; without one each is skipped with that reason."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; torch finds none on this machine")
