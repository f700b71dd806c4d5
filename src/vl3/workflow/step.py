"""The step mechanism: a key over everything that determines the result, and reuse of finished results by key."""

import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from vl3.config.codec import flatten
from vl3.config.overrides import apply_overrides
from vl3.config.parameters import WorkflowParameters
from vl3.errors import StorageError, Vl3Error
from vl3.recipes.catalog import get_any_recipe
from vl3.store.artifacts import find, is_intact, publish
from vl3.store.manifest import MANIFEST_NAME, Origin, StoredFile
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.store.uris import join_uri, scheme_of
from vl3.system.clock import now
from vl3.system.commit import UNKNOWN_COMMIT
from vl3.system.files import storage_errors
from vl3.system.folders import own_folder, own_temporary_folder, remove
from vl3.system.uris import file_path
from vl3.workflow.code import library_versions, module_digests, version_of
from vl3.workflow.explain import judge
from vl3.workflow.key import KeyParts
from vl3.workflow.record import StepRecord, finished_records, read_record, record_uri, write_record

if TYPE_CHECKING:
    from vl3.tracking.step_run import StepRun

log = logging.getLogger("vl3.step")


class Configuration(Protocol):
    """What the workflow needs from a configuration: any frozen dataclass that vl3.config.codec can write."""

    @property
    def name(self) -> str:
        """Name of the recipe."""


C = TypeVar("C", bound=Configuration)
Progress = Callable[[int, int, str], None]
"""Called with (done, total, text) to report a step's progress."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRequest(WorkflowParameters, Generic[C]):
    """What a step has to do, the same on a laptop and on a cluster: the workflow's parameters and the step's own."""

    task: str
    """Name of the task in the workflow, `train-video`."""
    part: str
    """Which of several tasks of the same step: for training, the stage. Empty for a step with only one task."""
    config: C
    """Effective configuration: the recipe with the overrides."""
    inputs: dict[str, Reference]
    """Artifacts of earlier steps."""
    values: dict[str, Any] = field(default_factory=dict)
    """Values from the workflow engine: for the exit handler, how the workflow ended."""
    injected: dict[str, str] = field(default_factory=dict)
    """MLFLOW_* variables that the platform set for the workflow."""
    tracking_template: Path | None = None
    """Migrated empty tracking database, which saves the migrations at the first use."""
    run_folder: Path | None = None
    """Folder of the run with a local runner; None on a cluster."""
    log_path: Path | None = None
    """Log file of the task with a local runner; None if output stays on the streams."""
    library_pins: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries in the image that trains a stage, if it is another one."""
    commit: str = UNKNOWN_COMMIT
    """Commit of the running code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """The result of a step."""

    outputs: dict[str, Reference]
    """Published artifacts by output name."""
    values: dict[str, Any] = field(default_factory=dict)
    """Small results, JSON-ready."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(Generic[C]):
    """A step of the workflow: what determines its result, and the work."""

    run: Callable[["StepWork[C]"], StepOutcome]
    """The work itself."""
    key_parts: Callable[[StepRequest[C]], dict[str, Any]]
    """The part of the configuration (and of the outside world) that determines the result."""
    decided_by: Callable[[StepRequest[C]], dict[str, str]] | None = None
    """Digests of what it takes of its inputs, if that is less than all of them."""
    entries: tuple[str, ...] = ()
    """Modules whose imports are the code of the step; if empty, only the module of `run`. A module behind a wall (see
    vl3.workflow.code) counts only if it is listed here."""
    libraries: tuple[str, ...] = ()
    """Distributions whose version matters."""
    reusable: bool = True
    """Whether a finished result may be reused."""
    cost: Callable[[StepRecord], str] | None = None
    """The cost of running a finished step again, if that is worth a warning."""
    on_reuse: Callable[[StepRequest[C], StepRecord], None] | None = None
    """Side effects that are needed even if the result is reused."""


@dataclass(frozen=True, kw_only=True)
class StepWork(Generic[C]):
    """A running step: its request, the parts of its key, and its folders."""

    request: StepRequest[C]
    parts: KeyParts
    """What determines its result."""
    progress: Progress

    @property
    def key(self) -> str:
        """Identifies the finished result."""
        return self.parts.key(self.request.task)

    @property
    def code_version(self) -> str:
        """Digest of the code that determines the result."""
        return version_of(self.parts.modules)

    @property
    def created_by(self) -> dict[str, str]:
        """Who made an artifact. Without times and keys, so that equal content has the same digest everywhere."""
        made_by = {"step": self.request.task, "recipe": self.request.config.name}
        return made_by | {"stage": self.request.part} if self.request.part else made_by

    def output_uri(self, name: str) -> str:
        """Where the output `name` is published."""
        return join_uri(record_uri(self.request.artifacts_uri, self.request.task, self.key), name)

    @property
    def work_uri(self) -> str:
        """Where unfinished work is stored, which a restart resumes, even after a change of the code."""
        return join_uri(self.request.artifacts_uri, "work", self.request.task, self.parts.work_key(self.request.task))

    def work_folder(self) -> Path:
        """A local folder that survives a restart if artifacts are local files, and is temporary otherwise."""
        if scheme_of(self.work_uri) == "file":
            return own_folder(file_path(self.work_uri))
        return own_folder(own_temporary_folder("vl3-work") / self.parts.work_key(self.request.task))

    @contextmanager
    def fresh_folder(self, name: str) -> Iterator[Path]:
        """An empty local folder for an output; it is removed unless it was published."""
        folder = self.work_folder() / f"new-{name}"
        with storage_errors(folder):
            remove(folder)
            folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(
        self,
        folder: Path,
        name: str,
        *,
        kind: str,
        made_from: Mapping[str, Origin] | None = None,
        stored: Mapping[str, StoredFile] | None = None,
    ) -> Reference:
        """Publish a folder as the output `name`, with files that are in the store already (vl3.store.artifacts)."""
        uri = self.output_uri(name)
        return publish(folder, uri, kind=kind, created_by=self.created_by, made_from=made_from, stored=stored)

    def clear(self) -> None:
        """Delete unfinished work, after the outputs are published."""
        shutil.rmtree(self.work_folder(), ignore_errors=True)
        if scheme_of(self.work_uri) == "file":
            return
        try:
            remove_tree(self.work_uri)
        except StorageError as error:  # the outputs are published: the rest only costs space
            log.warning("unfinished work at %s could not be removed: %s", self.work_uri, error)

    @contextmanager
    def step_run(self) -> Iterator["StepRun"]:
        """The nested tracking run of this step; it never waits for MLflow, whose first use is an import.

        On this machine the run has system metrics, too; on a cluster they would be those of the launcher's pod.
        """
        from vl3.tracking.machine import sampled
        from vl3.workflow.tracking import open_tracker, source_of

        with (
            open_tracker(self.request).step(self.request.task, key=self.key) as step_run,
            sampled(step_run) if self.request.run_folder else nullcontext(),
        ):
            step_run.set_tags(source_of(self.request))
            yield step_run


def make_request(parameters: WorkflowParameters, **own: Any) -> StepRequest[Any]:
    """The request of a step: the run's parameters, the configuration that follows from them, and the step's own fields.

    A part of an ablation gives the configuration of its arm: the part `clip_projector` that of the arm clip.

    Raises:
        ConfigError: there is no such recipe, or an override does not fit.
    """
    given = {one.name: getattr(parameters, one.name) for one in fields(parameters)}
    config = apply_overrides(get_any_recipe(parameters.recipe), parameters.overrides)
    config, part = config.of_part(own.pop("part", ""))
    return StepRequest(**given, config=config, part=part, **own)


def entries_of(step: Step[Any]) -> tuple[str, ...]:
    """The modules whose closure is the code of a step."""
    return step.entries or (step.run.__module__,)


def key_parts(step: Step[C], request: StepRequest[C]) -> KeyParts:
    """What determines the result of a step: configuration, the inputs' digests, code and libraries."""
    return KeyParts(
        config=flatten(step.key_parts(request)),
        inputs=(step.decided_by or _all_inputs)(request),
        modules=module_digests(entries_of(step)),
        libraries=library_versions(step.libraries, request.library_pins),
    )


def _all_inputs(request: StepRequest[Any]) -> dict[str, str]:
    return {name: reference.sha256 for name, reference in sorted(request.inputs.items())}


def execute(
    step: Step[C], request: StepRequest[C], progress: Progress, *, outputs: Collection[str] = ()
) -> tuple[StepRecord, bool]:
    """Run a step, or reuse its finished result with the same key.

    Args:
        step: what to do.
        request: what it is done to.
        progress: told how far it is.
        outputs: what the workflow takes from it; a record without them is not that of a finished step.

    Returns:
        The record, and whether it was reused.
    """
    work = StepWork(request=request, parts=key_parts(step, request), progress=progress)
    uri = record_uri(request.artifacts_uri, request.task, work.key)
    if step.reusable:
        record, is_whole = find_finished(uri)
        if record is not None and not set(outputs) <= set(record.outputs):
            log.warning("ignoring %s.json, which lacks outputs of %s: something else wrote it", uri, request.task)
            record = None
        if record is not None and is_whole:
            if step.on_reuse is not None:
                step.on_reuse(request, record)
            return record, True
        _say_why(step, work, record)
    started = time.monotonic()
    outcome = step.run(work)
    record = StepRecord(
        key=work.key,
        name=request.task,
        outputs=outcome.outputs,
        values=outcome.values,
        seconds=round(time.monotonic() - started, 3),
        created_at=now(),
        commit=request.commit,
        parts=work.parts,
    )
    write_record(uri, record)  # last: a step without a record is not finished
    return record, False


def find_finished(uri: str) -> tuple[StepRecord | None, bool]:
    """The record of a step, and whether all its outputs are still as they were published."""
    record = read_record(uri)
    return record, record is not None and all(is_intact(reference) for reference in record.outputs.values())


def _say_why(step: Step[C], work: StepWork[C], same: StepRecord | None) -> None:
    """Log why the step runs, and its cost if only code has changed since a finished one."""
    task = work.request.task
    try:
        finished = finished_records(work.request.artifacts_uri, task)
        verdict = judge(work.parts, chain([same] if same else [], finished), cost=step.cost)
    except Vl3Error as error:  # the step can run without it
        log.warning("cannot determine why %s runs, since its earlier records cannot be read: %s", task, error)
        return
    log.info("%s runs: %s", task, verdict.reason)
    if verdict.warning:
        log.warning("%s: %s", task, verdict.warning)


def remove_tree(uri: str) -> None:
    """Remove every object below a URI, manifests first: without its manifest an artifact does not exist.

    Raises:
        StorageError: the store refuses.
    """
    store = open_store(uri)
    for key in sorted(store.list(), key=lambda key: not key.endswith(MANIFEST_NAME)):
        store.delete(key)


def is_published(work: StepWork[Any], name: str) -> Reference | None:
    """The output `name` if an earlier, interrupted attempt has published it completely."""
    reference = find(work.output_uri(name))
    return reference if reference is not None and is_intact(reference) else None
