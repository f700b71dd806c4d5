"""MLflow runs of a workflow: one parent run, one nested run per step, found again after a restart."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.errors import ConfigError
from vl3.system.uris import file_uri, sqlite_path
from vl3.tracking.client import open_client, platform_errors
from vl3.tracking.lock import file_lock
from vl3.tracking.step_run import StepRun

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
    ) -> None:
        if "'" in run_id or not run_id:
            raise ConfigError(f"run id {run_id!r} is empty or has quotes; MLflow could not find the run by it again.")
        self.injected = dict(injected or {})
        self.tracking_uri = self.injected.get("MLFLOW_TRACKING_URI") or tracking_uri
        self.experiment = experiment
        self.run_id = run_id
        self.run_name = run_name
        self._template = template

    @cached_property
    def client(self) -> "MlflowClient":
        """The client, opened on first use (see client.open_client for the errors)."""
        return open_client(self.tracking_uri, template=self._template)

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
            return self.client.create_experiment(self.experiment, artifact_location=location, tags=_EXPERIMENT_TAGS)
        except MlflowException as error:
            found = self._find_experiment() if error.error_code == "RESOURCE_ALREADY_EXISTS" else None
            if found is None:
                raise
            return found

    @cached_property
    def workflow(self) -> StepRun:
        """The parent run; created on first use, found again later."""
        injected_parent = self._injected_parent_id()
        if injected_parent:
            return self._open(injected_parent, is_owner=False)
        with platform_errors(self.tracking_uri, "open the workflow's run"):
            experiment_id = self.experiment_id
            with self._lock():
                found = self._find({KIND_TAG: "workflow"})
                run = found or self.client.create_run(
                    experiment_id, run_name=self.run_name, tags={KIND_TAG: "workflow", RUN_TAG: self.run_id}
                )
        return self._open(run.info.run_id, is_owner=True)

    def step(self, name: str, *, key: str = "") -> StepRun:
        """The nested run of a step; as a context manager it sets the final status.

        An unfinished run of the same step and key is continued with the next attempt number; otherwise a new one is
        created.
        """
        if self.injected.get("MLFLOW_RUN_ID"):
            step = self._open(self.injected["MLFLOW_RUN_ID"], is_owner=False)
            step.set_tags({RUN_TAG: self.run_id, STEP_TAG: name, KEY_TAG: key})
            return step
        parent = self.workflow
        with platform_errors(self.tracking_uri, f"open the run of the step {name!r}"):
            self.client.update_run(parent.run_id, status="RUNNING")
            found = self._find({KIND_TAG: "step", STEP_TAG: name, KEY_TAG: key})
            if found is not None and found.info.status != "FINISHED":
                return self._continue(found, parent)
            own = {KIND_TAG: "step", RUN_TAG: self.run_id, STEP_TAG: name, KEY_TAG: key, ATTEMPT_TAG: "1"}
            nesting = {"mlflow.parentRunId": parent.run_id}
            run = self.client.create_run(self.experiment_id, run_name=name, tags={**own, **nesting})
        return self._open(run.info.run_id, is_owner=True, parent=parent)

    def finish(self, status: str = "FINISHED") -> None:
        """End the workflow's run as FINISHED, FAILED or KILLED (an injected parent is left to its owner)."""
        self.workflow.finish(status)

    def _continue(self, run: "Run", parent: StepRun) -> StepRun:
        attempt = int(run.data.tags.get(ATTEMPT_TAG, "1")) + 1
        self.client.update_run(run.info.run_id, status="RUNNING")
        step = self._open(run.info.run_id, is_owner=True, parent=parent, is_continued=True)
        step.set_tags({ATTEMPT_TAG: str(attempt)})
        return step

    def _open(self, run_id: str, **settings: Any) -> StepRun:
        with platform_errors(self.tracking_uri, f"read the run {run_id}"):
            run = self.client.get_run(run_id)
        return StepRun(self.client, self.tracking_uri, run, **settings)

    def _find(self, tags: Mapping[str, str]) -> "Run | None":
        """The first run of this workflow with these tags; for steps, which may have been repeated, the last one."""
        clauses = [f"tags.`{name}` = '{value}'" for name, value in {RUN_TAG: self.run_id, **tags}.items() if value]
        direction = "ASC" if tags.get(KIND_TAG) == "workflow" else "DESC"
        found = self.client.search_runs(
            [self.experiment_id],
            filter_string=" and ".join(clauses),
            max_results=1,
            order_by=[f"attributes.start_time {direction}"],
        )
        return found[0] if found else None

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
