"""Reads a model folder's JSON files and the headers of its safetensors files. No torch; pickles are not opened."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.errors import ConfigError
from vl3.system.documents import parse_object

CONFIG_FILE = "config.json"
RUN_FILE = "run.json"
"""The configuration of the run that trained one of our checkpoints."""
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
WEIGHT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Types that weights may have, by their names in safetensors, with the bytes of one value."""
_OTHER_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
_OTHER_BYTES |= {"U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8, "C64": 8}
_PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """Where the bytes of one tensor are."""

    path: Path
    """The safetensors file."""
    dtype: str
    """Type by its name in safetensors, such as BF16."""
    shape: tuple[int, ...]
    """Size of each dimension."""
    start: int
    """First byte in the file."""
    size_bytes: int
    """Length in bytes."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder.

    Raises:
        ConfigError: the file is missing, is not JSON or is not an object.
    """
    try:
        return parse_object(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. Give the folder of a model, with its config.json.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON ({error}). Restore it from the model's source.") from error


def read_headers(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model folder by its stored name; only headers are read.

    Raises:
        ConfigError: there are no safetensors files, one is missing, truncated or damaged, or a name is in two files.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in _weight_files(folder):
        for name, tensor in _read_header(path).items():
            if name in tensors:
                raise ConfigError(
                    f"{folder}: tensor {name!r} is in both {tensors[name].path.name} and {path.name}, so it is unclear "
                    "which one was trained. Copy the whole checkpoint again, into an empty folder."
                )
            tensors[name] = tensor
    return tensors


def check_tensors(
    folder: Path,
    found: Mapping[str, StoredTensor],
    expected: Mapping[str, tuple[int, ...]],
    dropped: Iterable[str] = (),
) -> None:
    """Raise ConfigError unless `found` has the expected names and shapes and no others except `dropped`."""
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys() - set(dropped))
    if missing or surplus:
        raise ConfigError(
            f"{folder}: {_listed('missing', missing)}{'; ' if missing and surplus else ''}"
            f"{_listed('unknown', surplus)}. The model would run with untrained weights. Use config.json and weights "
            "of the same checkpoint."
        )
    for name, shape in expected.items():
        if found[name].shape != tuple(shape):
            raise ConfigError(
                f"{found[name].path}: tensor {name!r} has shape {found[name].shape} but config.json requires "
                f"{tuple(shape)}. Use config.json and weights of the same checkpoint."
            )


def _listed(word: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(repr(name) for name in names[:3])
    return f"{len(names)} {word} tensor(s): {shown}{' ...' if len(names) > 3 else ''}"


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX_FILE).is_file():
        weight_map = read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise ConfigError(f"{folder / INDEX_FILE} has no weight_map. Restore it from the model's source.")
        # A name with a folder in it could lead to any file of this machine.
        names = sorted(set(weight_map.values()))
        outside = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
        if outside:
            raise ConfigError(
                f"{folder / INDEX_FILE} names {outside[0]!r}, which is not a safetensors file of this folder. Restore "
                "it from the model's source."
            )
        return [folder / name for name in names]
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    pickles = sorted(path.name for pattern in _PICKLE_PATTERNS for path in folder.glob(pattern))
    if pickles:
        raise ConfigError(
            f"{folder} has {pickles[0]} but no {SINGLE_FILE}. Pickle files are not opened, because opening one can run "
            "any code. Convert it to safetensors if you trust its source."
        )
    raise ConfigError(f"{folder} has no {SINGLE_FILE} and no {INDEX_FILE}. Give the folder of a model's weights.")


def _read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file (8 bytes of header length, JSON header, data), checked against its size."""
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            # In a damaged file the length may be huge: read a header only if it fits into the file.
            header_bytes = int.from_bytes(file.read(8), "little")
            text = file.read(header_bytes) if 0 < header_bytes <= size_bytes - 8 else b""
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is listed in {INDEX_FILE} but missing. Copy the whole checkpoint again.") from error
    try:
        header = parse_object(text)
        header.pop("__metadata__", None)
        tensors = {name: _tensor_at(path, 8 + header_bytes, entry) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: it has no valid safetensors header. Copy the file again.") from error
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        end = tensor.start + tensor.size_bytes
        if end > size_bytes:
            raise ConfigError(
                f"{path} is truncated: tensor {name!r} ends at byte {end} but the file has {size_bytes}. "
                "Copy the file again."
            )
    return tensors


def _tensor_at(path: Path, data_start: int, entry: dict[str, Any]) -> StoredTensor:
    """One entry of a header; ValueError or KeyError if type, shape and offsets contradict each other.

    BF16 of shape (2, 3) must span 12 bytes; data_offsets 20 to 32 in a file whose data starts at byte 108 are the bytes
    128 to 140.
    """
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    item_bytes = (WEIGHT_BYTES | _OTHER_BYTES)[entry["dtype"]]
    if begin < 0 or min(shape, default=0) < 0 or end - begin != math.prod(shape) * item_bytes:
        raise ValueError(f"{entry} contradicts itself")
    return StoredTensor(path=path, dtype=entry["dtype"], shape=shape, start=data_start + begin, size_bytes=end - begin)
