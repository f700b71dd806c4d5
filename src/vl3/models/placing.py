"""Copies to the device that do not make the CPU wait.

A copy from ordinary memory to a GPU waits until the GPU has done everything before it; from pinned memory it is queued
like any other work. Pinned memory is kept by torch for the next copy, so it costs an allocation only the first time.
"""

import numpy as np
import torch
from torch import Tensor


def copy_to(values: Tensor | np.ndarray, device: torch.device | str) -> Tensor:
    """A tensor of the values on a device; one that is there already is returned as it is."""
    tensor = torch.as_tensor(values)
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)
