"""The step mechanism: a key over everything that decides the result, and reuse of what has that key already."""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from vl3.config.codec import digest, to_dict
from vl3.config.codeversion import code_version
from vl3.config.parameters import WorkflowParameters
from vl3.errors import StorageError
from vl3.store.artifacts import find, is_intact, publish
from vl3.store.manifest import MANIFEST_NAME
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.store.uris import file_path, join_uri, scheme_of
from vl3.system.clock import now
from vl3.system.files import atomic_write_json, storage_errors

if TYPE_CHECKING:
    from vl3.tracking.step_run import StepRun

log = logging.getLogger("vl3.step")


class Configuration(Protocol):
    """What the workflow needs to know of a configuration: any frozen dataclass that vl3.config.codec can write."""

    @property
    def name(self) -> str:
        """Name of the recipe."""


C = TypeVar("C", bound=Configuration)
Progress = Callable[[int, int, str], None]
"""(done, total, text): how far a step is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRequest(WorkflowParameters, Generic[C]):
    """What a step is asked to do, the same on a laptop and on a cluster: the workflow's parameters and what is the
    step's own.
    """

    task: str
    """Name of the task in the workflow, `train-video`."""
    part: str
    """Which one of several tasks of the same step: for training, the stage. Empty for a step that comes once."""
    config: C
    """Effective configuration: the recipe with the overrides."""
    inputs: dict[str, Reference]
    """Artifacts of former steps."""
    values: dict[str, Any] = field(default_factory=dict)
    """What the workflow engine itself says: for the exit handler, how the workflow ended."""
    injected: dict[str, str] = field(default_factory=dict)
    """MLFLOW_* variables that somebody set around the workflow."""
    tracking_template: Path | None = None
    """Ready-made empty tracking database, which spares its first use the migrations."""
    run_folder: Path | None = None
    """Folder of the run under a local runner; None on a cluster."""
    log_path: Path | None = None
    """Log file of the task under a local runner; None where output stays on the streams."""
    library_pins: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries in the image where a stage is trained, if that is not this one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """What a step made."""

    outputs: dict[str, Reference]
    """Published artifacts by output name."""
    values: dict[str, Any] = field(default_factory=dict)
    """Small results, JSON-ready."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What is kept of a finished step, at `<artifacts_uri>/steps/<task>/<key>.json`."""

    key: str
    name: str
    outputs: dict[str, Reference]
    values: dict[str, Any]
    seconds: float
    created_at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(Generic[C]):
    """A step of the workflow: what decides its result, and the work."""

    code: tuple[str, ...]
    """Source files that matter to the result, as globs below vl3."""
    run: Callable[["StepWork[C]"], StepOutcome]
    """The work itself."""
    key_parts: Callable[[StepRequest[C]], dict[str, Any]]
    """The part of the configuration (and of the outside world) that decides the result."""
    exclude: tuple[str, ...] = ()
    """Files among `code` that have no part in the result."""
    libraries: tuple[str, ...] = ()
    """Distributions whose version matters."""
    reusable: bool = True
    """Whether a finished result may stand for a new one."""
    on_reuse: Callable[[StepRequest[C], "StepRecord"], None] | None = None
    """What is to be done in the outside world even when the result is reused."""


@dataclass(frozen=True, kw_only=True)
class StepWork(Generic[C]):
    """A step at work: the request, its key, and where to put things."""

    request: StepRequest[C]
    key: str
    progress: Progress

    @property
    def created_by(self) -> dict[str, str]:
        """Who made an artifact. Free of times and keys, so that equal content has an equal digest wherever made."""
        made_by = {"step": self.request.task, "recipe": self.request.config.name}
        return made_by | {"stage": self.request.part} if self.request.part else made_by

    def output_uri(self, name: str) -> str:
        """Where the output `name` is published."""
        return join_uri(_base_uri(self.request, self.key), name)

    @property
    def work_uri(self) -> str:
        """Where unfinished work that a restart takes up lies."""
        return join_uri(self.request.artifacts_uri, "work", self.request.task, self.key)

    def work_folder(self) -> Path:
        """A local folder that survives a restart where artifacts are local files, and is temporary elsewhere."""
        if scheme_of(self.work_uri) == "file":
            folder = file_path(self.work_uri)
        else:
            folder = Path(tempfile.gettempdir()) / "vl3-work" / self.key
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def fresh_folder(self, name: str) -> Iterator[Path]:
        """An empty local folder to make an output in; what is not published is removed."""
        folder = self.work_folder() / f"new-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        with storage_errors(folder):
            folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, name: str, *, kind: str) -> Reference:
        """Publish a folder as the output `name`."""
        return publish(folder, self.output_uri(name), kind=kind, created_by=self.created_by)

    def clear(self) -> None:
        """Drop unfinished work; to be called when the outputs are published."""
        shutil.rmtree(self.work_folder(), ignore_errors=True)
        if scheme_of(self.work_uri) == "file":
            return
        try:
            remove_tree(self.work_uri)
        except StorageError as error:  # the outputs are there: what is left costs space, not the result
            log.warning("unfinished work at %s could not be removed: %s", self.work_uri, error)

    @contextmanager
    def step_run(self) -> Iterator["StepRun"]:
        """The nested tracking run of this step, with the effective configuration; the first use imports MLflow."""
        from vl3.workflow.tracking import open_tracker

        with open_tracker(self.request).step(self.request.task, key=self.key) as step_run:
            step_run.log_config(to_dict(self.request.config))
            yield step_run


def step_key(step: Step[C], request: StepRequest[C]) -> str:
    """Digest (32 hex digits) over the configuration that matters, the inputs' digests and the code version."""
    parts = {
        "task": request.task,
        "parts": step.key_parts(request),
        "inputs": {name: reference.sha256 for name, reference in sorted(request.inputs.items())},
        "code": code_version(step.code, libraries=step.libraries, exclude=step.exclude, pins=request.library_pins),
    }
    return digest(parts)[:32]


def execute(step: Step[C], request: StepRequest[C], progress: Progress) -> tuple[StepRecord, bool]:
    """Run a step, or take over what it made before under the same key.

    Returns:
        The record, and whether it was reused.
    """
    key = step_key(step, request)
    uri = _base_uri(request, key)
    if step.reusable:
        record = read_record(uri)
        if record is not None and all(is_intact(reference) for reference in record.outputs.values()):
            if step.on_reuse is not None:
                step.on_reuse(request, record)
            return record, True
    started = time.monotonic()
    outcome = step.run(StepWork(request=request, key=key, progress=progress))
    record = StepRecord(
        key=key,
        name=request.task,
        outputs=outcome.outputs,
        values=outcome.values,
        seconds=round(time.monotonic() - started, 3),
        created_at=now(),
    )
    _write_record(uri, record)
    return record, False


def record_of(reference: Reference) -> StepRecord:
    """The record of the step that published an artifact.

    Raises:
        StorageError: there is none, so the artifact was not made by a step.
    """
    uri = reference.uri.rpartition("/")[0]
    record = read_record(uri)
    if record is None:
        raise StorageError(f"{uri}.json: the step's record is missing or unreadable. Run the workflow again.")
    return record


def read_record(uri: str) -> StepRecord | None:
    """The record at `<uri>.json`; None when it is missing or not whole, for then the step is to run again."""
    parent, _, name = uri.rpartition("/")
    text = open_store(parent).read(f"{name}.json")
    if text is None:
        return None
    try:
        data = json.loads(text)
        data["outputs"] = {name: Reference.from_dict(item) for name, item in data["outputs"].items()}
        return StepRecord(**data)
    except (ValueError, KeyError, TypeError, AttributeError, StorageError):
        return None


def remove_tree(uri: str) -> None:
    """Remove every object below a URI, manifests first: what has none does not exist.

    Raises:
        StorageError: the store refuses.
    """
    store = open_store(uri)
    for key in sorted(store.list(), key=lambda key: not key.endswith(MANIFEST_NAME)):
        store.delete(key)


def is_published(work: StepWork[Any], name: str) -> Reference | None:
    """The output `name` if a former, interrupted attempt has published it whole."""
    reference = find(work.output_uri(name))
    return reference if reference is not None and is_intact(reference) else None


def _write_record(uri: str, record: StepRecord) -> None:
    parent, _, name = uri.rpartition("/")
    data = asdict(record)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "record.json"
        atomic_write_json(path, data)
        open_store(parent).put_file(path, f"{name}.json")


def _base_uri(request: StepRequest[Any], key: str) -> str:
    return join_uri(request.artifacts_uri, "steps", request.task, key)
