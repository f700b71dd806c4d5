"""Resumable checkpoints: full tensors by parameter name, published atomically; the last few are kept."""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vl3.data.loader.ledger import BadSample
from vl3.errors import StorageError
from vl3.store.artifacts import delete, fetch, find, publish
from vl3.store.objects import open_store
from vl3.store.uris import join_uri, scheme_of
from vl3.system.commit import UNKNOWN_COMMIT
from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_json, read_plain, storage_errors
from vl3.system.folders import remove, scratch_folder
from vl3.system.uris import file_path

log = logging.getLogger("vl3.training")

CHECKPOINT_KIND = "training-state"
_STEP_NAME = re.compile(r"step-(\d{6,})")
_STATE_FILE = "trainer.json"
_UNFINISHED = (".writing-*", ".step-*.tmp")
"""What a killed run leaves: folders that were filled, and those that were on their way to their name."""

State = dict[str, dict[str, Tensor]]


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
class Checkpoint:
    """A checkpoint in memory."""

    trainer: TrainerState
    tensors: State
    """By kind (weights, exp_avg, exp_avg_sq), then by parameter name."""


class Checkpoints:
    """The resumable checkpoints of one stage at `<work_uri>/step-000050`."""

    def __init__(self, work_uri: str, *, fingerprint: str, keep: int, created_by: dict[str, str]) -> None:
        self.work_uri = work_uri
        self.fingerprint = fingerprint
        self._keep = keep
        self._copies = Path(tempfile.gettempdir()) / f"vl3-resume-{os.getuid()}-{fingerprint[:16]}"
        self._created_by = created_by
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def is_free(self, patience_seconds: float) -> bool:
        """Whether the previous checkpoint is written within `patience_seconds`; logs a warning if not."""
        if self._writing is None or wait([self._writing], timeout=patience_seconds).done:
            return True
        log.warning("a checkpoint is skipped: the previous one is still being written to %s", self.work_uri)
        return False

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint in a thread while training continues; waits only for the previous one (see `is_free`).

        Raises:
            StorageError: the previous checkpoint could not be written.
        """
        self.wait()
        self._writing = self._writer.submit(self._write, checkpoint)

    def wait(self) -> None:
        """Wait until the last saved checkpoint is published.

        Raises:
            StorageError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def newest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that is complete and belongs to this stage; `note` reports each newer unusable one."""
        for step in sorted(self._published(), reverse=True):
            try:
                return self.load(step)
            except StorageError as error:
                note(f"checkpoint of step {step} is not used: {error}")
        return None

    def load(self, step: int) -> Checkpoint:
        """Read the checkpoint of a step.

        Raises:
            StorageError: it is missing or damaged, or another configuration wrote it.
        """
        uri = self._uri(step)
        reference = find(uri)
        if reference is None:
            raise StorageError(f"{uri}: there is no checkpoint with a valid manifest. Training starts without it.")
        folder = fetch(reference, cache=self._copies)
        try:
            trainer = _parse_state(read_plain(folder / _STATE_FILE))
            tensors = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
        except (OSError, ValueError, SafetensorError) as error:
            raise StorageError(f"{uri}: the checkpoint cannot be read ({error}). Delete it.") from error
        if trainer.step != step:
            raise StorageError(f"{uri}: the checkpoint is one of step {trainer.step}. Delete it.")
        if trainer.fingerprint != self.fingerprint:
            raise StorageError(
                f"{uri}: the checkpoint belongs to another configuration, dataset or initial model (fingerprint "
                f"{trainer.fingerprint[:12]}, here {self.fingerprint[:12]}). Resuming from it would mix two runs."
            )
        return Checkpoint(trainer=trainer, tensors=tensors)

    def drop(self) -> None:
        """Remove every published checkpoint, so that the stage starts again at step 0.

        Raises:
            StorageError: the store refuses or fails.
        """
        for step in self._published():
            delete(self._uri(step))

    def clean(self) -> None:
        """Remove what a killed run left half-written. Only one run at a time may use the work URI.

        Raises:
            StorageError: the object store refuses or fails.
        """
        if scheme_of(self.work_uri) == "s3":
            for step in self._published():
                if find(self._uri(step)) is None:
                    delete(self._uri(step))
        elif file_path(self.work_uri).is_dir():
            for pattern in _UNFINISHED:
                for path in file_path(self.work_uri).glob(pattern):
                    with storage_errors(path):
                        remove(path)

    def drop_copies(self) -> None:
        """Remove local copies of checkpoints from an object store; each is as large as the model's state.

        Call it when every process has loaded its checkpoint.
        """
        shutil.rmtree(self._copies, ignore_errors=True)

    def close(self) -> None:
        """Wait for the writer thread and end it."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def _write(self, checkpoint: Checkpoint) -> None:
        step = checkpoint.trainer.step
        target = file_path(self._uri(step)) if scheme_of(self.work_uri) == "file" else None
        size_bytes = sum(t.numel() * t.element_size() for part in checkpoint.tensors.values() for t in part.values())
        with scratch_folder(target, "writing") as folder:
            with storage_errors(folder, needed_bytes=size_bytes):
                _save_tensors(checkpoint.tensors, folder)
            state = {name: getattr(checkpoint.trainer, name) for name in TrainerState.__slots__}
            atomic_write_json(folder / _STATE_FILE, state)
            created_by = self._created_by | {"training_step": str(step)}
            created_by |= code_changes_of(checkpoint.trainer.code_changes)
            publish(folder, self._uri(step), kind=CHECKPOINT_KIND, created_by=created_by)
        for old in sorted(self._published())[: -self._keep]:
            delete(self._uri(old))

    def _published(self) -> set[int]:
        if scheme_of(self.work_uri) == "file":
            root = file_path(self.work_uri)
            names = [path.name for path in root.iterdir()] if root.is_dir() else []
        else:
            names = [key.partition("/")[0] for key in open_store(self.work_uri).list("step-")]
        return {int(match[1]) for match in map(_STEP_NAME.fullmatch, names) if match}

    def _uri(self, step: int) -> str:
        return join_uri(self.work_uri, f"step-{step:06d}")


def _parse_state(data: bytes) -> TrainerState:
    """The content of trainer.json; ValueError if a field is missing, unknown or of another type.

    What is known of the code may be missing: older checkpoints did not note it.
    """
    content = parse_object(data)
    try:
        state = TrainerState(**content)
    except TypeError as error:
        raise ValueError(f"{_STATE_FILE} has the fields {', '.join(sorted(content))[:200]}") from error
    counts, texts = (state.step, state.optimizer_step), (state.fingerprint, state.code_version, state.commit)
    are_counts = all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**63 for one in counts)
    are_changes = isinstance(state.code_changes, list) and all(isinstance(one, str) for one in state.code_changes)
    if not are_counts or not all(isinstance(one, str) for one in texts) or not are_changes:
        raise ValueError(f"{_STATE_FILE} has a value of another type")
    if not isinstance(state.bad_samples, list):
        raise ValueError(f"the bad samples of {_STATE_FILE} are a {type(state.bad_samples).__name__}")
    for bad in state.bad_samples:
        BadSample.from_dict(bad)
    if not isinstance(state.window, dict):
        raise ValueError(f"the window of {_STATE_FILE} is a {type(state.window).__name__}")
    return state


def code_changes_of(changes: list[str]) -> dict[str, str]:
    """The manifest's entry about code changes; none without a change, so that equal content has an equal digest."""
    return {"code_changes": "; ".join(changes)} if changes else {}


def _save_tensors(state: State, folder: Path) -> None:
    for kind, tensors in state.items():
        try:
            save_file(tensors, folder / f"{kind}.safetensors")
        except SafetensorError as error:  # also raised when the disk is full
            raise StorageError(
                f"{folder}: the checkpoint's {kind} cannot be written ({error}). The incomplete checkpoint is not "
                "used. Free space there or correct the folder's permissions, then run again: training resumes from "
                "the last complete checkpoint."
            ) from error
