"""The format of resumable checkpoints: each rank's fragments of the state, and last a manifest that vouches for them.

    work/step-000050/manifest.json                              size and SHA-256 of every file; written last, by rank 0
    work/step-000050/3f9c/trainer.json                          everything that is no tensor
    work/step-000050/3f9c/index.json                            which fragments each file has
    work/step-000050/3f9c/r00001-exp_avg-0002.safetensors       fragments of rank 1, named by parameter and range
    work/step-000050/3f9c/part-00001.json                       rank 1's files with their digests: it is done

3f9c is the attempt: one that was killed has left files without a manifest, which no other attempt overwrites or reads.
Files are small, so that a rank that wants a range reads little more, and verifies all that it reads.
"""

import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vl3.data.loader.ledger import BadSample
from vl3.errors import StorageError
from vl3.store.artifacts import delete, find
from vl3.store.manifest import MANIFEST_NAME, FileEntry, Manifest, StoredFile, parse_manifest, write_manifest
from vl3.store.objects import Store, open_store
from vl3.store.uris import join_uri, scheme_of
from vl3.system.commit import UNKNOWN_COMMIT
from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_json, storage_errors
from vl3.system.folders import scratch_folder
from vl3.system.provenance import provenance
from vl3.system.uris import file_path
from vl3.training.fragments import MOMENTS, Fragment, first_gap

log = logging.getLogger("vl3.training")

CHECKPOINT_KIND = "training-state"
_FORMAT = 2
_STEP_NAME = re.compile(r"step-(\d{6,})")
_STATE_FILE = "trainer.json"
_INDEX_FILE = "index.json"
_REMEDY = "Nothing there was changed."


class OtherStageError(StorageError):
    """A whole checkpoint, but of another configuration, dataset or initial model: it does not concern this stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerState:
    """Everything except tensors that a run needs to continue as if it had not stopped."""

    step: int
    """Steps done; the position in the data follows from it."""
    optimizer_step: int
    """AdamW's step counter."""
    fingerprint: str
    """Digest of everything that determines the weights; a stage uses only checkpoints with its own fingerprint."""
    window: dict[str, Any]
    """Metrics collected since they were last written."""
    code_version: str = ""
    """Digest of the code that trained up to here; empty if it was not recorded, which counts as other code."""
    commit: str = UNKNOWN_COMMIT
    """Commit of that code."""
    code_changes: list[str] = field(default_factory=list)
    """A sentence for each change of the code since step 0."""
    skipped_steps: list[int] = field(default_factory=list)
    """Steps whose update was left out."""
    bad_samples: list[dict[str, Any]] = field(default_factory=list)
    """The ledger of the loader: samples that are left out, each as a BadSample's fields."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartFile:
    """One file of a rank."""

    entry: FileEntry
    """Its size and digest."""
    fragments: tuple[Fragment, ...]
    """What it has, in the order of its bytes."""


Part = dict[str, PartFile]
"""The files that a rank has written, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredCheckpoint:
    """A checkpoint whose manifest, state and index are valid; its fragments are verified when they are read."""

    uri: str
    """Its folder."""
    trainer: TrainerState
    """Everything except tensors."""
    shapes: dict[str, tuple[int, ...]]
    """Whole shape of each parameter."""
    kinds: tuple[str, ...]
    """What it has of each parameter."""
    files: Part
    """The files with fragments, by their names below the folder."""


class Checkpoints:
    """The resumable checkpoints of one stage at `<work_uri>/step-000050`."""

    def __init__(
        self, work_uri: str, *, fingerprint: str, keep: int, keep_every_steps: int = 0, created_by: dict[str, str]
    ) -> None:
        """`keep`: how many of the last are kept, besides those of every `keep_every_steps`-th step (0: no others)."""
        self.work_uri = work_uri
        self.fingerprint = fingerprint
        self._keep = keep
        self._keep_every_steps = keep_every_steps
        self._created_by = created_by

    def uri(self, step: int) -> str:
        """The folder of a step's checkpoint."""
        return join_uri(self.work_uri, f"step-{step:06d}")

    def store(self, step: int) -> Store:
        """The folder of a step's checkpoint as a store."""
        return open_store(self.uri(step))

    def steps(self) -> list[int]:
        """The steps of which something is stored, the newest first, whether it is whole or not."""
        if scheme_of(self.work_uri) == "file":
            root = file_path(self.work_uri)
            names = {path.name for path in root.iterdir()} if root.is_dir() else set()
        else:
            names = {key.partition("/")[0] for key in open_store(self.work_uri).list("step-")}
        return sorted((int(match[1]) for match in map(_STEP_NAME.fullmatch, names) if match), reverse=True)

    def is_published(self, step: int) -> bool:
        """Whether a step's checkpoint has a manifest; what a killed writer left has none."""
        return self.store(step).read(MANIFEST_NAME) is not None

    def load(self, step: int) -> StoredCheckpoint:
        """Read everything of a checkpoint but its fragments.

        Raises:
            OtherStageError: another configuration, dataset or initial model wrote it.
            StorageError: it is missing or damaged.
        """
        uri, store = self.uri(step), self.store(step)
        data = store.read(MANIFEST_NAME)
        if data is None:
            raise StorageError(f"{uri}: there is no checkpoint with a valid manifest. Training starts without it.")
        manifest = parse_manifest(data, uri)
        try:
            trainer = _parse_state(_verified(store, uri, manifest, _STATE_FILE))
            if trainer.fingerprint != self.fingerprint:
                raise OtherStageError(
                    f"{uri}: the checkpoint belongs to another configuration, dataset or initial model (fingerprint "
                    f"{trainer.fingerprint[:12]}, here {self.fingerprint[:12]}). Resuming from it would mix two runs."
                )
            if trainer.step != step:
                raise StorageError(f"{uri}: the checkpoint is one of step {trainer.step}. {_REMEDY}")
            found = _parse_index(uri, trainer, manifest, _verified(store, uri, manifest, _INDEX_FILE))
        except ValueError as error:
            raise StorageError(f"{uri}: the checkpoint cannot be read ({error}). {_REMEDY}") from error
        sizes = {name: math.prod(shape) for name, shape in found.shapes.items()}
        if gap := first_gap((f for file in found.files.values() for f in file.fragments), sizes, found.kinds):
            raise StorageError(f"{uri}: the part of a rank is missing: {gap}. {_REMEDY}")
        return found

    def publish(
        self,
        trainer: TrainerState,
        attempt: str,
        parts: Iterable[Part],
        shapes: Mapping[str, tuple[int, ...]],
        kinds: tuple[str, ...],
    ) -> None:
        """Write the manifest of a checkpoint whose files are all stored, and remove what the policy does not keep.

        Raises:
            StorageError: the store fails. Without its manifest the checkpoint does not exist.
        """
        files = {f"{attempt}/{name}": file for part in parts for name, file in part.items()}
        uri, store = self.uri(trainer.step), self.store(trainer.step)
        created_by = self._created_by | {"training_step": str(trainer.step)}
        created_by |= code_changes_of(trainer.code_changes)
        with scratch_folder(None, "checkpoint") as folder:
            with storage_errors(folder):
                (folder / attempt).mkdir()
            state = {name: getattr(trainer, name) for name in TrainerState.__slots__}
            atomic_write_json(folder / attempt / _STATE_FILE, state)
            atomic_write_json(folder / attempt / _INDEX_FILE, _index(files, shapes, kinds))
            stored = {name: StoredFile(key=name, entry=file.entry) for name, file in files.items()}
            write_manifest(folder, kind=CHECKPOINT_KIND, created_by=created_by, ran=provenance(), stored=stored)
            for name in (f"{attempt}/{_STATE_FILE}", f"{attempt}/{_INDEX_FILE}", MANIFEST_NAME):
                store.write(name, [(folder / name).read_bytes()])
        log.info("checkpoint of step %d is at %s", trainer.step, uri)
        if set(MOMENTS) <= set(kinds):  # not for the last step's weights, which are published in a moment
            self._prune(trainer.step, attempt)

    def drop(self) -> None:
        """Remove every checkpoint, so that the stage starts again at step 0.

        Raises:
            StorageError: the store refuses or fails.
        """
        for step in self.steps():
            delete(self.uri(step))

    def _prune(self, newest: int, attempt: str) -> None:
        """Remove what no one needs now that a step is published; a store that refuses costs only space.

        keep=2, keep_every_steps=100, steps 50 100 150 200 250: 250 and 200 are the last two, 100 is a hundredth.
        """
        try:
            for key in self.store(newest).list():
                if key != MANIFEST_NAME and not key.startswith(f"{attempt}/"):  # of a killed attempt
                    self.store(newest).delete(key)
            kept = 0
            for step in (one for one in self.steps() if one <= newest):
                is_whole = find(self.uri(step)) is not None
                is_kept = kept < self._keep or (self._keep_every_steps > 0 and step % self._keep_every_steps == 0)
                if is_whole and is_kept:
                    kept += 1
                else:
                    delete(self.uri(step))
        except StorageError as error:
            log.warning("older checkpoints at %s could not be removed: %s", self.work_uri, error)


def part_name(rank: int) -> str:
    """The file with which a rank says that its files are stored."""
    return f"part-{rank:05d}.json"


def part_bytes(part: Part) -> bytes:
    """The content of that file."""
    return json.dumps({"format": _FORMAT, "files": {name: _file_data(file) for name, file in part.items()}}).encode()


def parse_part(data: bytes) -> Part:
    """The files of a rank; ValueError if it is anything else."""
    content = parse_object(data)
    try:
        return {
            name: PartFile(entry=FileEntry(**file["entry"]), fragments=_fragments(file["fragments"]))
            for name, file in content["files"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the files of a rank ({type(error).__name__}: {error})") from error


def code_changes_of(changes: list[str]) -> dict[str, str]:
    """The manifest's entry about code changes; none without a change, so that equal content has an equal digest."""
    return {"code_changes": "; ".join(changes)} if changes else {}


def _file_data(file: PartFile) -> dict[str, Any]:
    return {"entry": asdict(file.entry), "fragments": _rows(file.fragments)}


def _rows(fragments: Iterable[Fragment]) -> list[list[Any]]:
    return [[one.kind, one.name, one.start, one.stop] for one in fragments]


def _fragments(rows: Any) -> tuple[Fragment, ...]:
    found = tuple(Fragment(kind=kind, name=name, start=start, stop=stop) for kind, name, start, stop in rows)
    for one in found:
        if not (isinstance(one.kind, str) and isinstance(one.name, str) and _is_count(one.start, one.stop)):
            raise TypeError(f"{one} is no fragment")
    return found


def _index(files: Part, shapes: Mapping[str, tuple[int, ...]], kinds: tuple[str, ...]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "kinds": list(kinds),
        "parameters": {name: list(shape) for name, shape in shapes.items()},
        "files": {name: _rows(file.fragments) for name, file in files.items()},
    }


def _verified(store: Store, uri: str, manifest: Manifest, name: str) -> bytes:
    """The bytes of a small file of a checkpoint; ValueError if the manifest has none or another one."""
    key = next((key for key in manifest.files if key.partition("/")[2] == name), None)
    if key is None:
        raise ValueError(f"it has no {name}: an older vl3 wrote it, or its manifest is damaged")
    return read_verified(store, uri, key, manifest.files[key])


def read_verified(store: Store, uri: str, key: str, entry: FileEntry) -> bytes:
    """The bytes of a file of a checkpoint.

    Raises:
        StorageError: it is missing, truncated or damaged; with its whole name.
    """
    data = store.read(key)
    if data is None:
        raise StorageError(f"{uri}/{key}: the file is missing (expected sha256 {entry.sha256}). {_REMEDY}")
    if len(data) != entry.size_bytes:
        raise StorageError(f"{uri}/{key}: has {len(data)} bytes and should have {entry.size_bytes}. {_REMEDY}")
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise StorageError(f"{uri}/{key}: is damaged (sha256 {found}, expected {entry.sha256}). {_REMEDY}")
    return data


def _parse_index(uri: str, trainer: TrainerState, manifest: Manifest, data: bytes) -> StoredCheckpoint:
    """ValueError if it is no index, or names a file that the manifest does not have."""
    content = parse_object(data)
    try:
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']!r}, and this version reads {_FORMAT}")
        kinds, shapes = tuple(content["kinds"]), {name: tuple(row) for name, row in content["parameters"].items()}
        files = {
            name: PartFile(entry=manifest.files[name], fragments=_fragments(rows))
            for name, rows in content["files"].items()
        }
        if not all(_is_count(*shape) for shape in shapes.values()):
            raise TypeError("a shape is no list of sizes")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{_INDEX_FILE} is none ({type(error).__name__}: {error})") from error
    return StoredCheckpoint(uri=uri, trainer=trainer, shapes=shapes, kinds=kinds, files=files)


def _is_count(*values: object) -> bool:
    return all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**63 for one in values)


def _parse_state(data: bytes) -> TrainerState:
    """The content of trainer.json; ValueError if a field is missing, unknown or of another type.

    What is known of the code may be missing: older checkpoints did not note it.
    """
    content = parse_object(data)
    try:
        state = TrainerState(**content)
    except TypeError as error:
        raise ValueError(f"{_STATE_FILE} has the fields {', '.join(sorted(content))[:200]}") from error
    texts = (state.fingerprint, state.code_version, state.commit)
    are_changes = isinstance(state.code_changes, list) and all(isinstance(one, str) for one in state.code_changes)
    are_texts = all(isinstance(one, str) for one in texts)
    if not _is_count(state.step, state.optimizer_step) or not are_texts or not are_changes:
        raise ValueError(f"{_STATE_FILE} has a value of another type")
    if not isinstance(state.bad_samples, list):
        raise ValueError(f"the bad samples of {_STATE_FILE} are a {type(state.bad_samples).__name__}")
    for bad in state.bad_samples:
        BadSample.from_dict(bad)
    if not isinstance(state.window, dict):
        raise ValueError(f"the window of {_STATE_FILE} is a {type(state.window).__name__}")
    return state
