"""Converts checkpoints between layouts, tensor by tensor: bytes are copied and only names change. No torch."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vl3.errors import ConfigError
from vl3.models.config import VideoLlama3Config
from vl3.models.layouts.files import SideFiles
from vl3.models.layouts.names import EMBEDDING, HEAD, Layout, detect_layout, expected_shapes, read_config, stored_name
from vl3.models.stored import (
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    WEIGHT_BYTES,
    StoredTensor,
    check_tensors,
    read_headers,
    read_json,
)
from vl3.models.vocabulary import IMAGE_TOKEN, Vocabulary
from vl3.system.files import atomic_write_json, require_space, storage_errors
from vl3.system.folders import whole_folder

MAX_SHARD_BYTES = 5_000_000_000
"""Size above which weights are split into several files."""
ADAPTER_FILE = "adapter_config.json"
"""The file by which peft knows a folder of adapters."""
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What was converted."""

    source_layout: Layout
    """Layout of the source."""
    num_tensors: int
    """Number of tensors written."""
    num_files: int
    """Number of safetensors files written."""
    size_bytes: int
    """Size of all tensors in bytes."""


def convert(source: Path, target: Path, layout: Layout, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> Conversion:
    """Write a checkpoint in another layout, with its config, tokenizer and preprocessor files.

    Args:
        source: folder of a checkpoint in any layout.
        target: folder to make; it appears only when it is complete.
        layout: OFFICIAL (which is ours) or TRANSFORMERS.
        max_shard_bytes: maximum bytes of tensors in one file; a larger tensor gets its own file.

    Raises:
        ConfigError: the source is another model, is damaged, or its parts do not match.
        StorageError: the target exists and is not empty, the disk is full, or writing is not permitted.
    """
    if max_shard_bytes <= 0:
        raise ConfigError(f"max_shard_bytes={max_shard_bytes} must be greater than 0.")
    checkpoint = _Checkpoint.open(source)
    side_files = SideFiles.of(source, checkpoint.config, checkpoint.data, checkpoint.layout, layout)
    tensors = {stored_name(name, layout): tensor for name, tensor in checkpoint.tensors.items()}
    shards = _split(tensors, max_shard_bytes)
    size_bytes = sum(tensor.size_bytes for tensor in tensors.values())
    with whole_folder(target) as folder:
        require_space(folder, size_bytes + side_files.size_bytes, purpose=f"for the converted checkpoint {target.name}")
        _write_shards(shards, folder)
        side_files.write(folder)
        # config.json comes last: a folder without it is not recognised as a model.
        atomic_write_json(folder / CONFIG_FILE, side_files.config(checkpoint.main_dtype))
    return Conversion(
        source_layout=checkpoint.layout, num_tensors=len(tensors), num_files=len(shards), size_bytes=size_bytes
    )


def check_model(folder: Path) -> VideoLlama3Config:
    """Check that a folder is a whole model which `convert` can read; weights are not read. Returns its sizes.

    Raises:
        ConfigError: it is another model or adapters alone, is damaged, or its parts do not match.
    """
    if (folder / ADAPTER_FILE).is_file():
        base = read_json(folder / ADAPTER_FILE).get("base_model_name_or_path")
        raise ConfigError(
            f"{folder} holds LoRA adapters{f' of {base}' if base else ''} ({ADAPTER_FILE}), not a whole model. Merge "
            "them into their base first (peft: merge_and_unload, then save_pretrained), and give the merged folder."
        )
    checkpoint = _Checkpoint.open(folder)
    SideFiles.of(folder, checkpoint.config, checkpoint.data, checkpoint.layout, Layout.OFFICIAL)
    return checkpoint.config


@dataclass(frozen=True, kw_only=True, slots=True)
class _Checkpoint:
    """A checked source: it has exactly the tensors that its config requires."""

    data: dict[str, Any]
    config: VideoLlama3Config
    layout: Layout
    tensors: dict[str, StoredTensor]
    """Tensors by official name, without a head that duplicates the embedding."""

    @classmethod
    def open(cls, folder: Path) -> "_Checkpoint":
        where = str(folder / CONFIG_FILE)
        data = read_json(folder / CONFIG_FILE)
        detect_layout(data, (), where)  # first, so that another model is reported as such, not as missing weights
        stored = read_headers(folder)
        layout = detect_layout(data, stored, where)
        config = read_config(data, layout, Vocabulary(folder).ensure(IMAGE_TOKEN), where)
        shapes = expected_shapes(config)
        names = {name: stored_name(name, layout) for name in shapes}
        dropped = [HEAD] if config.text.tie_word_embeddings else []
        check_tensors(folder, stored, {names[name]: shape for name, shape in shapes.items()}, dropped)
        require_weights(stored)
        if dropped and HEAD in stored:
            require_equal(folder, stored, HEAD, names[EMBEDDING])
        return cls(
            data=data, config=config, layout=layout, tensors={name: stored[other] for name, other in names.items()}
        )

    @property
    def main_dtype(self) -> str:
        """The type that most of the bytes have."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size_bytes
        return max(sizes, key=lambda dtype: sizes[dtype])


def require_weights(stored: Mapping[str, StoredTensor]) -> None:
    """Raise ConfigError unless every tensor has a type that weights may have."""
    for name, tensor in stored.items():
        if tensor.dtype not in WEIGHT_BYTES:
            raise ConfigError(
                f"{tensor.path}: tensor {name!r} has type {tensor.dtype}, not one of {', '.join(WEIGHT_BYTES)}. "
                "Quantised weights cannot be converted without their scales. Use the checkpoint in bf16 or fp32."
            )


def require_equal(folder: Path, stored: Mapping[str, StoredTensor], head: str, embedding: str) -> None:
    """Raise ConfigError unless a tied model's head equals its embedding byte for byte."""
    pairs = zip(_chunks(stored[head]), _chunks(stored[embedding]), strict=False)
    same = stored[head].size_bytes == stored[embedding].size_bytes and all(ours == theirs for ours, theirs in pairs)
    if not same:
        raise ConfigError(
            f"{folder}: tie_word_embeddings is true but tensor {head!r} differs from {embedding!r}. The trained head "
            "would be lost. Set tie_word_embeddings to false in config.json."
        )


def _split(tensors: Mapping[str, StoredTensor], max_shard_bytes: int) -> list[dict[str, StoredTensor]]:
    """Tensors in the order of their names, with a new file where one would become too large.

    Tensors a, b, c of 2, 2 and 3 bytes with max_shard_bytes=4 give the files {a, b} and {c}.
    """
    shards: list[dict[str, StoredTensor]] = [{}]
    filled_bytes = 0
    for name in sorted(tensors):
        if shards[-1] and filled_bytes + tensors[name].size_bytes > max_shard_bytes:
            shards.append({})
            filled_bytes = 0
        shards[-1][name] = tensors[name]
        filled_bytes += tensors[name].size_bytes
    return shards


def _write_shards(shards: Sequence[dict[str, StoredTensor]], folder: Path) -> None:
    if len(shards) == 1:
        _write_shard(shards[0], folder / SINGLE_FILE)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(shard, folder / name)
        weight_map |= dict.fromkeys(shard, name)
    size_bytes = sum(tensor.size_bytes for shard in shards for tensor in shard.values())
    atomic_write_json(folder / INDEX_FILE, {"metadata": {"total_size": size_bytes}, "weight_map": weight_map})


def _write_shard(tensors: Mapping[str, StoredTensor], path: Path) -> None:
    """Write one safetensors file: the length of the header, the header, then the tensors, widest types first.

    Tensors w (F32, 2 values) and v (BF16, 3 values): data_offsets w 0 to 8, v 8 to 14, counted from the header's end.
    The header is padded with spaces to a multiple of 8 bytes.
    """
    names = sorted(tensors, key=lambda name: (-WEIGHT_BYTES[tensors[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        start, end = end, end + tensors[name].size_bytes
        header[name] = {"dtype": tensors[name].dtype, "shape": tensors[name].shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with storage_errors(path, needed_bytes=8 + len(text) + end), path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            _copy(tensors[name], file)
        file.flush()
        os.fsync(file.fileno())


def _copy(tensor: StoredTensor, file: BinaryIO) -> None:
    for chunk in _chunks(tensor):
        file.write(chunk)


def _chunks(tensor: StoredTensor) -> Iterator[bytes]:
    """The bytes of a tensor in chunks."""
    left_bytes = tensor.size_bytes
    with tensor.path.open("rb", buffering=0) as file:
        file.seek(tensor.start)
        while left_bytes:
            chunk = file.read(min(_CHUNK_BYTES, left_bytes))
            if not chunk:
                raise ConfigError(f"{tensor.path} became shorter while it was read. Retry when nothing writes to it.")
            left_bytes -= len(chunk)
            yield chunk
