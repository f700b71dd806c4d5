"""The tensors of a model folder by name, from one safetensors file or several."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from vl3.models.stored import check_tensors, read_headers


class TensorFolder:
    """The tensors of one model folder; headers are read immediately, tensors on demand."""

    def __init__(self, folder: Path) -> None:
        """Read the headers.

        Raises:
            ConfigError: there are no safetensors files, or one is missing, truncated or damaged.
        """
        self.folder = folder
        self._stored = read_headers(folder)

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an existing tensor."""
        return self._stored[name].shape

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """A copy of one tensor on CPU, converted to `dtype` if given."""
        with safe_open(self._stored[name].path, framework="pt") as file:
            tensor = file.get_tensor(name)
        return tensor.clone() if dtype in (None, tensor.dtype) else tensor.to(dtype)

    def check(self, expected: Mapping[str, tuple[int, ...]], dropped: Iterable[str] = ()) -> None:
        """Raise ConfigError unless the folder has the expected names and shapes and no others except `dropped`."""
        check_tensors(self.folder, {name: entry.shape for name, entry in self._stored.items()}, expected, dropped)
