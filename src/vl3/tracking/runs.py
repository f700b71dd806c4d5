"""MLflow runs of a workflow: one parent run, one nested run per step, found again after a restart."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.config.tracking import is_server
from vl3.errors import ConfigError
from vl3.system.uris import file_uri, sqlite_path
from vl3.tracking import leftovers
from vl3.tracking.client import open_client, platform_errors, require_answer
from vl3.tracking.lock import file_lock
from vl3.tracking.outbox import FILE_PATIENCE_SECONDS, SERVER_PATIENCE_SECONDS, Call, Outbox
from vl3.tracking.sender import Sender
from vl3.tracking.step_run import WORKFLOW, RunNotes, StepRun
from vl3.tracking.writer import RunWriter, opened

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


RUN_TAG = "vl3.run_id"
"""Tag of every run with the workflow run's id."""
KIND_TAG = "vl3.kind"
"""Tag that distinguishes the parent (`workflow`) from the nested runs (`step`)."""
STEP_TAG = "vl3.step"
"""Tag with the step's name."""
KEY_TAG = "vl3.step_key"
"""Tag with the step's key (hash over configuration, inputs and code)."""
ATTEMPT_TAG = "vl3.attempt"
"""Tag with the number of times that the step was started, as text."""

_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's pages open with the runs and their curves instead of traces of language models."""


class Tracker:
    """The MLflow side of one workflow run. Nothing is imported or contacted before the first use.

    Args:
        tracking_uri: `sqlite:////absolute/mlflow.db`, another database URI or the URL of a server.
        experiment: name of the experiment; created if it does not exist.
        run_id: id of the workflow run; the parent run is found again by it.
        run_name: name that the parent run shows.
        injected: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_ID and MLFLOW_RUN_ID if a platform injected them. They take
            precedence: steps log into the injected run, and its parent is the parent.
        template: migrated empty database for a fresh SQLite file (see database.make_template).
        leftovers_uri: where notes that could not be sent are kept; empty drops them.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment: str,
        run_id: str,
        run_name: str,
        *,
        injected: Mapping[str, str] | None = None,
        template: Path | None = None,
        leftovers_uri: str = "",
    ) -> None:
        if "'" in run_id or not run_id:
            raise ConfigError(f"run id {run_id!r} is empty or has quotes; MLflow could not find the run by it again.")
        self.injected = dict(injected or {})
        self.tracking_uri = self.injected.get("MLFLOW_TRACKING_URI") or tracking_uri
        self.experiment = experiment
        self.run_id = run_id
        self.run_name = run_name
        self.template = template
        self.leftovers_uri = leftovers_uri

    @cached_property
    def client(self) -> "MlflowClient":
        """The client, opened on first use (see client.open_client for the errors)."""
        return open_client(self.tracking_uri, template=self.template)

    @cached_property
    def experiment_id(self) -> str:
        """Id of the experiment; created on first use."""
        injected_id = self.injected.get("MLFLOW_EXPERIMENT_ID")
        if injected_id:
            return injected_id
        with platform_errors(self.tracking_uri, f"find or create the experiment {self.experiment!r}"), self._lock():
            return self._find_experiment() or self._make_experiment()

    def _find_experiment(self) -> str | None:
        found = self.client.get_experiment_by_name(self.experiment)
        return None if found is None else str(found.experiment_id)

    def _make_experiment(self) -> str:
        """Create the experiment, or use the one that a run on another machine has created at the same moment."""
        from mlflow.exceptions import MlflowException

        location = self._artifact_location()
        try:
            made = self.client.create_experiment(self.experiment, artifact_location=location, tags=_EXPERIMENT_TAGS)
        except MlflowException as error:
            found = self._find_experiment() if error.error_code == "RESOURCE_ALREADY_EXISTS" else None
            if found is None:
                raise
            return found
        require_answer(made, "id of the new experiment")
        return made

    @cached_property
    def workflow(self) -> RunWriter:
        """The parent run; created on first use, found again later. Waits for the answer."""
        injected_parent = self._injected_parent_id()
        if injected_parent:
            return self._open(injected_parent, is_owner=False)
        with platform_errors(self.tracking_uri, "open the workflow's run"):
            experiment_id = self.experiment_id
            with self._lock():
                run_id = self._find({KIND_TAG: "workflow"}) or self._create(
                    experiment_id, self.run_name, {KIND_TAG: "workflow", RUN_TAG: self.run_id}
                )
        return self._open(run_id, is_owner=True, is_continued=True)

    def open_step(self, name: str, key: str = "") -> RunWriter:
        """The nested run of a step. Waits for the answer.

        An unfinished run of the same step and key is continued with the next attempt number; otherwise a new one is
        created.
        """
        if self.injected.get("MLFLOW_RUN_ID"):
            step = self._open(self.injected["MLFLOW_RUN_ID"], is_owner=False)
            step.set_tags({RUN_TAG: self.run_id, STEP_TAG: name, KEY_TAG: key})
            return step
        with platform_errors(self.tracking_uri, f"open the run of the step {name!r}"):
            self.client.update_run(self.workflow.run_id, status="RUNNING")
            found = self._find({KIND_TAG: "step", STEP_TAG: name, KEY_TAG: key})
            run = self.client.get_run(found) if found else None
            if run is not None and run.info.status != "FINISHED":
                return self._continue(run)
            run_id = self._create_step(name, key)
        return self._open(run_id, is_owner=True)

    def reopen_step(self, name: str, key: str) -> RunWriter:
        """The last run of a step whatever its state, for notes that come late. Waits for the answer."""
        with platform_errors(self.tracking_uri, f"open the run of the step {name!r}"):
            found = self._find({KIND_TAG: "step", STEP_TAG: name, KEY_TAG: key}) or self._create_step(name, key)
        return self._open(found, is_owner=True, is_continued=True)

    def step(self, name: str, *, key: str = "") -> StepRun:
        """Notes for the nested run of a step, which a thread sends; as a context manager it sets the final status."""
        self._load()
        return StepRun(self._outbox(name, key), lambda calls: self._keep(name, key, calls), self._known_page)

    @contextmanager
    def notes(self, task: str) -> Iterator[RunNotes]:
        """Notes for the workflow's run from a task that has no run of its own."""
        self._load()
        outbox = self._outbox(task, "")
        try:
            yield RunNotes(outbox, WORKFLOW)
        finally:
            self._keep(task, "", outbox.close())

    def _load(self) -> None:
        """Import MLflow in this thread: the sending one must not import beside it."""
        importlib.import_module("mlflow.tracking")
        if self.tracking_uri.startswith("sqlite:"):
            importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
            importlib.import_module("mlflow.store.model_registry.sqlalchemy_store")

    def _known_page(self) -> str:
        """The page of the workflow's run if the sending thread has opened it by now."""
        workflow = self.__dict__.get("workflow")
        return workflow.page if isinstance(workflow, RunWriter) else ""

    def _outbox(self, task: str, key: str) -> Outbox:
        patience_seconds = SERVER_PATIENCE_SECONDS if is_server(self.tracking_uri) else FILE_PATIENCE_SECONDS
        return Outbox(Sender(self, task, key), patience_seconds=patience_seconds)

    def _keep(self, task: str, key: str, calls: list[Call]) -> None:
        if calls and self.leftovers_uri:
            leftovers.keep(self.leftovers_uri, run_id=self.run_id, task=task, key=key, calls=calls)

    def _continue(self, run: "Run") -> RunWriter:
        attempt = int(run.data.tags.get(ATTEMPT_TAG, "1")) + 1
        self.client.update_run(run.info.run_id, status="RUNNING")
        step = self._open(run.info.run_id, is_owner=True, is_continued=True)
        step.set_tags({ATTEMPT_TAG: str(attempt)})
        return step

    def _create_step(self, name: str, key: str) -> str:
        own = {KIND_TAG: "step", RUN_TAG: self.run_id, STEP_TAG: name, KEY_TAG: key, ATTEMPT_TAG: "1"}
        return self._create(self.experiment_id, name, own | {"mlflow.parentRunId": self.workflow.run_id})

    def _create(self, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
        run_id = self.client.create_run(experiment_id, run_name=name, tags=dict(tags)).info.run_id
        require_answer(run_id, "id of the new run")
        return str(run_id)

    def _open(self, run_id: str, **settings: Any) -> RunWriter:
        return opened(self.client, self.tracking_uri, run_id, **settings)

    def _find(self, tags: Mapping[str, str]) -> str | None:
        """The first run of this workflow with these tags; for steps, which may have been repeated, the last one.

        Nothing found is asked twice: JSON that a proxy answers reads as an empty list, and a second run would follow.
        """
        clauses = [f"tags.`{name}` = '{value}'" for name, value in {RUN_TAG: self.run_id, **tags}.items() if value]
        direction = "ASC" if tags.get(KIND_TAG) == "workflow" else "DESC"
        for _ in range(2):
            found = self.client.search_runs(
                [self.experiment_id],
                filter_string=" and ".join(clauses),
                max_results=1,
                order_by=[f"attributes.start_time {direction}"],
            )
            if found:
                return str(found[0].info.run_id)
        return None

    def _injected_parent_id(self) -> str | None:
        run_id = self.injected.get("MLFLOW_RUN_ID")
        if not run_id:
            return None
        with platform_errors(self.tracking_uri, f"read the injected run {run_id}"):
            return self.client.get_run(run_id).data.tags.get("mlflow.parentRunId") or run_id

    def _artifact_location(self) -> str | None:
        """Where the artifacts of a new experiment go: next to the file for SQLite, otherwise the server decides."""
        if not self.tracking_uri.startswith("sqlite:"):
            return None
        return file_uri(sqlite_path(self.tracking_uri).parent / "mlartifacts")

    def _lock(self) -> AbstractContextManager[None]:
        """Keeps two processes that start at once from creating two parents; with a server, steps start one by one."""
        if self.tracking_uri.startswith("sqlite:"):
            return file_lock(sqlite_path(self.tracking_uri), holder=self.run_id)
        return nullcontext()
