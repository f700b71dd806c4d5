"""The final weights of a stage, made from the last checkpoint's fragments: no rank ever has more than one shard.

The plain Hugging Face layout follows from the parameters' names and sizes alone, so it has the same bytes at any number
of ranks: names in order fill shards of up to 1 GiB, and shard i is written by rank i modulo the number of ranks. With a
limit of 10 bytes and tensors a (6), b (4), c (8): shard 1 has a and b, shard 2 has c; two ranks write one each.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vl3.errors import StorageError
from vl3.store.artifacts import publish
from vl3.store.manifest import FileEntry, Origin, StoredFile, file_sha256
from vl3.store.objects import Store, open_store
from vl3.store.uris import join_uri, scheme_of, split_s3
from vl3.system.files import atomic_write_json
from vl3.system.folders import own_folder, remove, scratch_folder
from vl3.system.imports import lean_imports
from vl3.system.uris import file_path
from vl3.training.checkpoint import Checkpoints, StoredCheckpoint
from vl3.training.collectives import gather_json
from vl3.training.fragment_files import whole_parameter

with lean_imports():
    from vl3.models.lora import LoraLayer, adapters_of, is_adapter, merged, plain_name
    from vl3.models.stored import INDEX_FILE, RUN_FILE, SINGLE_FILE
    from vl3.models.weights import official_name, save_companions, save_weights

if TYPE_CHECKING:
    from vl3.models.model import VideoLlama3
    from vl3.models.unread import Source

SHARD_BYTES = 2**30
"""Largest shard, unless one tensor alone is larger."""
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_FOLDER = "weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """Where weights are published, and what is said about them."""

    uri: str
    """The artifact."""
    work_uri: str
    """Where shards wait for the others, if they are published in an object store."""
    tokenizer_folder: Path
    """The tokenizer that belongs to them."""
    run: Mapping[str, object]
    """Content of run.json: how they were made."""
    created_by: dict[str, str]
    """For the manifest: who made them."""
    made_from: Mapping[str, Origin]
    """For the manifest: from what."""

    @property
    def folder(self) -> Path | None:
        """Where all ranks put their shards, on a file system that all of them see; None for an object store."""
        if scheme_of(self.uri) != "file":
            return None
        target = file_path(self.uri)
        return target.with_name(f".{_FOLDER}-{target.name}")


class Publication:
    """What a stage will publish: which tensors make which shard, and which of them this rank writes.

    Parameters that are not trained, which no checkpoint has, are read again from where the stage started: so they cost
    no memory, and have the stored values where the engine's are rounded to bf16.
    """

    def __init__(
        self, model: "VideoLlama3", sources: Mapping[str, "Source"], *, dtype: str, rank: int, world_size: int
    ) -> None:
        """Decide who writes what.

        Args:
            model: the model, before the engine has it; it may be divided among the ranks.
            sources: where the values of each of its parameters came from, by their names without adapters.
            dtype: fp32 or bf16.
            rank: this rank.
            world_size: number of ranks.
        """
        self._config, self._dtype, self._rank = model.config, _TYPES[dtype], rank
        self._adapters: dict[str, LoraLayer] = adapters_of(model)
        parameters = {name: one for name, one in model.named_parameters() if not is_adapter(name)}
        self._name_in_training = {official_name(plain_name(name)): name for name in parameters}
        self._frozen = {name: sources[plain_name(name)] for name, one in parameters.items() if not one.requires_grad}
        item_bytes = self._dtype.itemsize
        sizes = {official: sources[plain_name(name)].num_values for official, name in self._name_in_training.items()}
        self.total_bytes = sum(sizes.values()) * item_bytes
        """Bytes of all tensors."""
        self.shards = cut_into_shards({name: size * item_bytes for name, size in sizes.items()}, SHARD_BYTES)
        """Official names of the tensors of each file."""
        self.mine = list(self.shards)[rank::world_size]
        """The files that this rank writes."""

    def publish(self, checkpoints: Checkpoints, step: int, to: Destination, device: torch.device) -> None:
        """Write and publish the weights of a step's checkpoint. Every rank must call it.

        Args:
            checkpoints: those of the stage.
            step: the last step, whose checkpoint is stored.
            to: where to.
            device: where the ranks exchange a few bytes.

        Raises:
            StorageError: a fragment is missing or damaged, or a store fails; on every rank.
        """
        if self._rank == 0 and to.folder is not None:
            remove(to.folder)  # of an attempt that was killed
        gather_json(None, device)
        stored, error = {}, ""
        try:
            stored = self._write_shards(checkpoints, step, to)
        except StorageError as problem:
            error = str(problem)
        reports = gather_json([error, {name: asdict(entry) for name, entry in stored.items()}], device)
        if errors := [text for text, _ in reports if text]:
            raise StorageError(errors[0])
        if self._rank == 0:
            self._publish(to, {name: FileEntry(**entry) for _, part in reports for name, entry in part.items()})
        gather_json(None, device)

    def _write_shards(self, checkpoints: Checkpoints, step: int, to: Destination) -> dict[str, FileEntry]:
        """Write this rank's shards; returns those that are in an object store now."""
        stored: dict[str, FileEntry] = {}
        found = checkpoints.load(step) if self.mine else None
        for file in self.mine:
            assert found is not None
            values = {name: self._value(found, checkpoints.store(step), name) for name in self.shards[file]}
            tensors = {name: value.to(self._dtype).contiguous() for name, value in values.items()}
            if to.folder is not None:
                save_weights(tensors, own_folder(to.folder) / file)
                continue
            with scratch_folder(None, "shard") as scratch:
                save_weights(tensors, scratch / file)
                entry = FileEntry(size_bytes=(scratch / file).stat().st_size, sha256=file_sha256(scratch / file))
                open_store(join_uri(to.work_uri, _FOLDER)).put_file(scratch / file, file)
                stored[file] = entry
        return stored

    def _value(self, found: StoredCheckpoint, store: Store, official: str) -> Tensor:
        """One tensor of the published model."""
        name = self._name_in_training[official]
        base, adapter = self._read(found, store, name), self._adapters.get(plain_name(name))
        if adapter is None:
            return base
        down, up = self._read(found, store, adapter.down), self._read(found, store, adapter.up)
        return merged(base, down, up, adapter.scaling)

    def _read(self, found: StoredCheckpoint, store: Store, name: str) -> Tensor:
        """A parameter in fp32: from where the stage started if it was not trained, else from the fragments."""
        if source := self._frozen.get(name):
            start = torch.empty(source.num_values, dtype=torch.float32)
            source.read_into(start)
            return start.view(source.shape)
        row = torch.empty(math.prod(found.shapes[name]), dtype=torch.float32)
        whole_parameter(found, store, name, row)
        return row.view(found.shapes[name])

    def _publish(self, to: Destination, stored: dict[str, FileEntry]) -> None:
        """Rank 0: add what belongs to the weights and publish the artifact; it hashes what is in the folder."""
        with contextlib.ExitStack() as stack:
            folder = to.folder or stack.enter_context(scratch_folder(None, _FOLDER))
            save_companions(self._config, to.tokenizer_folder, folder)
            if len(self.shards) > 1:
                weight_map = {name: file for file, names in self.shards.items() for name in names}
                index = {"metadata": {"total_size": self.total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
                atomic_write_json(folder / INDEX_FILE, index)
            atomic_write_json(folder / RUN_FILE, to.run)
            waiting = join_uri(to.work_uri, _FOLDER)
            keys = {name: f"{split_s3(waiting)[1]}/{name}" for name in stored}
            files = {name: StoredFile(key=keys[name], entry=entry) for name, entry in stored.items()}
            publish(folder, to.uri, kind="checkpoint", created_by=to.created_by, made_from=to.made_from, stored=files)
            for name in stored:
                open_store(waiting).delete(name)


def cut_into_shards(sizes: Mapping[str, int], shard_bytes: int) -> dict[str, list[str]]:
    """Names of the tensors of each file, in their order; one file has the plain name.

    Sizes a 6, b 4, c 8 with 10 bytes a shard: model-00001-of-00002.safetensors has a and b, the second c.
    """
    filled: list[list[str]] = [[]]
    free = shard_bytes
    for name in sorted(sizes):
        if sizes[name] > free and filled[-1]:
            filled.append([])
            free = shard_bytes
        filled[-1].append(name)
        free -= sizes[name]
    if len(filled) == 1:
        return {SINGLE_FILE: filled[0]}
    return {f"model-{i:05d}-of-{len(filled):05d}.safetensors": names for i, names in enumerate(filled, start=1)}
