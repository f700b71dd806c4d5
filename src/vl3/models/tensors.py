"""Tensors of a model folder by name: safetensors, in one file or in shards. Pickle files are never opened."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from vl3.errors import ConfigError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder.

    Raises:
        ConfigError: the file is missing, is not JSON or is not an object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. Give the folder of a model, with its config.json.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not JSON ({error}). Restore it from the model's source.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}, not an object. Restore it from the model's source.")
    return data


class TensorFolder:
    """The tensors of one model folder; headers are read at once, tensors when asked for."""

    def __init__(self, folder: Path) -> None:
        """Read the headers.

        Raises:
            ConfigError: there are no safetensors, or a file is missing, cut short or damaged.
        """
        self.folder = folder
        self._entries: dict[str, tuple[Path, tuple[int, ...]]] = {}
        for path in _weight_files(folder):
            for name, shape in _read_header(path).items():
                self._entries[name] = (path, shape)

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor that is there."""
        return self._entries[name][1]

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """A copy of one tensor on CPU, in dtype where given."""
        with safe_open(self._entries[name][0], framework="pt") as file:
            tensor = file.get_tensor(name)
        return tensor.clone() if dtype in (None, tensor.dtype) else tensor.to(dtype)

    def check(self, expected: Mapping[str, tuple[int, ...]], dropped: Iterable[str] = ()) -> None:
        """Raise ConfigError unless the folder has the expected names and shapes and, but for dropped, no others."""
        missing = sorted(expected.keys() - self._entries.keys())
        surplus = sorted(self._entries.keys() - expected.keys() - set(dropped))
        if missing or surplus:
            raise ConfigError(
                f"{self.folder}: {_listed('missing', missing)}{'; ' if missing and surplus else ''}"
                f"{_listed('unknown', surplus)}. The model would run with weights that nobody trained. Take "
                "config.json and weights from the same checkpoint."
            )
        for name, shape in expected.items():
            if self.shape(name) != tuple(shape):
                raise ConfigError(
                    f"{self.folder}: tensor {name!r} has shape {self.shape(name)} but config.json asks for "
                    f"{tuple(shape)}. Take config.json and weights from the same checkpoint."
                )


def _listed(word: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(repr(name) for name in names[:3])
    return f"{len(names)} {word} tensor(s): {shown}{' ...' if len(names) > 3 else ''}"


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX_FILE).is_file():
        weight_map = read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ConfigError(f"{folder / INDEX_FILE} has no weight_map. Restore it from the model's source.")
        return [folder / name for name in sorted(set(weight_map.values()))]
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    pickles = sorted(path.name for pattern in _PICKLE_PATTERNS for path in folder.glob(pattern))
    if pickles:
        raise ConfigError(
            f"{folder} holds {pickles[0]} but no {SINGLE_FILE}. A pickle runs code when it is opened, so it is "
            "refused. Convert it to safetensors where you trust its source."
        )
    raise ConfigError(f"{folder} has no {SINGLE_FILE} and no {INDEX_FILE}. Give the folder of a model's weights.")


def _read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file (8 bytes of length, JSON, data), checked against the file's size."""
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            text = file.read(header_bytes) if 0 < header_bytes <= size_bytes - 8 else b""
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is named by {INDEX_FILE} but does not exist. Copy the whole checkpoint.") from error
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = {name: (tuple(entry["shape"]), entry["data_offsets"][1]) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: its header is not that of safetensors. Copy the file again.") from error
    for name, (_, end) in sorted(entries.items(), key=lambda item: item[1][1]):
        if 8 + header_bytes + end > size_bytes:
            raise ConfigError(
                f"{path} is cut short: tensor {name!r} ends at byte {8 + header_bytes + end} but the file has "
                f"{size_bytes}. Copy the file again."
            )
    return {name: shape for name, (shape, _) in entries.items()}
