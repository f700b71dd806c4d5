"""What a step notes in MLflow. Every call returns at once: a thread sends it (see outbox)."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from vl3.tracking.outbox import Call, Outbox
from vl3.tracking.params import flatten
from vl3.tracking.writer import DESCRIPTION_TAG

log = logging.getLogger(__name__)

_KILLERS = (KeyboardInterrupt, SystemExit, GeneratorExit)
STEP, WORKFLOW = "step", "workflow"


class RunNotes:
    """Notes for one run: the step's own, or the workflow's."""

    def __init__(self, outbox: Outbox, target: str) -> None:
        self._outbox = outbox
        self._target = target

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log a flat or nested configuration as parameters."""
        self._put("log_params", values=flatten(values))

    def log_metrics(
        self,
        rows: Sequence[tuple[int, Mapping[str, float]]],
        *,
        times_seconds: Sequence[float] | None = None,
        may_drop: bool = False,
    ) -> None:
        """Log rows of (step, {metric: value}); a step that a metric has already is left out.

        Args:
            rows: the values by step.
            times_seconds: Unix time of each row; None uses the time of sending.
            may_drop: the rows are passed again at the end, so they may be left out while the store does not answer.
        """
        arguments = {"rows": [[step, dict(values)] for step, values in rows], "times_seconds": times_seconds}
        self._outbox.put(Call(self._target, "log_metrics", arguments), may_drop=may_drop)

    def log_dataset(self, name: str, digest: str, uri: str, *, context: str = "training") -> None:
        """Record a dataset as input of the run, with its URI and sha256."""
        self._put("log_dataset", name=name, digest=digest, uri=uri, context=context)

    def log_text(self, text: str, file_name: str) -> None:
        """Store a text file in the run's artifacts."""
        self._put("log_text", text=text, file_name=file_name)

    def log_json(self, data: Any, file_name: str) -> None:
        """Store data as a JSON file in the run's artifacts."""
        self.log_text(json.dumps(data, indent=1, ensure_ascii=False), file_name)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; values become text."""
        self._put("set_tags", tags={name: str(value) for name, value in tags.items()})

    def describe(self, text: str) -> None:
        """Set the description, Markdown, which MLflow's page of the run begins with."""
        self.set_tags({DESCRIPTION_TAG: text})

    def finish(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        self._put("finish", status=status)

    def finish_steps(self, status: str) -> None:
        """End the runs below this one that are still open."""
        self._put("finish_steps", status=status)

    def _put(self, name: str, /, **arguments: Any) -> None:
        self._outbox.put(Call(self._target, name, arguments))


class StepRun(RunNotes):
    """Notes for the run of a step. As a context manager it ends the run as FINISHED, FAILED or KILLED.

    Attributes:
        workflow: notes for the workflow's run.
    """

    def __init__(
        self, outbox: Outbox, keep: Callable[[list[Call]], None], page: Callable[[], str] = lambda: ""
    ) -> None:
        super().__init__(outbox, STEP)
        self.workflow = RunNotes(outbox, WORKFLOW)
        self._keep = keep
        self._page = page

    @property
    def workflow_page(self) -> str:
        """Address of the workflow's run on the server; empty for a database, or while the server has not answered."""
        return self._page()

    def register(self, **version: Any) -> None:
        """Register a checkpoint of this step as a candidate; the arguments are those of Registry.register_candidate."""
        self._put("register", **version)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish("FINISHED")
        else:
            status = "KILLED" if isinstance(error, _KILLERS) else "FAILED"
            self.set_tags({"vl3.error": f"{type(error).__name__}: {error}"})
            self.finish(status)
            self.workflow.finish(status)
        self._keep(self._outbox.close())
