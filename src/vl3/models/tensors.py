"""Tensors of a model folder by name: safetensors, in one file or in shards."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from vl3.models.stored import check_tensors, read_headers


class TensorFolder:
    """The tensors of one model folder; headers are read at once, tensors when asked for."""

    def __init__(self, folder: Path) -> None:
        """Read the headers.

        Raises:
            ConfigError: there are no safetensors, or a file is missing, cut short or damaged.
        """
        self.folder = folder
        self._stored = read_headers(folder)

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor that is there."""
        return self._stored[name].shape

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """A copy of one tensor on CPU, in dtype where given."""
        with safe_open(self._stored[name].path, framework="pt") as file:
            tensor = file.get_tensor(name)
        return tensor.clone() if dtype in (None, tensor.dtype) else tensor.to(dtype)

    def check(self, expected: Mapping[str, tuple[int, ...]], dropped: Iterable[str] = ()) -> None:
        """Raise ConfigError unless the folder has the expected names and shapes and, but for dropped, no others."""
        check_tensors(self.folder, {name: entry.shape for name, entry in self._stored.items()}, expected, dropped)
