"""Sends the calls of an outbox: opens the runs on first use, and first sends what earlier steps could not send."""

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vl3.errors import ClusterError, StorageError
from vl3.tracking import leftovers
from vl3.tracking.outbox import Call
from vl3.tracking.registry import Registry
from vl3.tracking.writer import RunWriter

if TYPE_CHECKING:
    from vl3.tracking.runs import Tracker

log = logging.getLogger(__name__)


class Sender:
    """Sends the calls of one step, and nothing before the first of them.

    Args:
        tracker: finds and creates the runs.
        task: the step.
        key: its key.
    """

    def __init__(self, tracker: "Tracker", task: str, key: str) -> None:
        self._tracker = tracker
        self._task = task
        self._key = key
        self._is_caught_up = not tracker.leftovers_uri
        self._has_failed_to_catch_up = False

    def __call__(self, call: Call) -> None:
        """Send one call.

        Raises:
            ClusterError: the tracking store fails.
            StorageError: a file cannot be written.
            ConfigError: the store refuses the call for good.
        """
        if not self._is_caught_up:
            self._try_to_catch_up()
        target = self._step if call.target == "step" else self._tracker.workflow
        if call.name == "register":
            self._register(call.arguments)
        else:
            getattr(target, call.name)(**call.arguments)

    @cached_property
    def _step(self) -> RunWriter:
        return self._tracker.open_step(self._task, self._key)

    def _register(self, arguments: Mapping[str, Any]) -> None:
        """Register a checkpoint. The last stage's belongs to the workflow's run, which has its scores and verdict."""
        version = dict(arguments)
        of_workflow, model = version.pop("of_workflow"), version.pop("model")
        run = self._tracker.workflow if of_workflow else self._step
        registry = Registry(self._tracker.tracking_uri, model, template=self._tracker.template)
        number = registry.register_candidate(**version, mlflow_run_id=run.run_id)
        self._step.set_tags({"model version": f"{model} v{number}"})

    def _try_to_catch_up(self) -> None:
        """Send what earlier steps could not send; a second failure leaves it to a later step."""
        try:
            self._catch_up()
        except (ClusterError, StorageError) as error:
            if not self._has_failed_to_catch_up:
                self._has_failed_to_catch_up = True
                raise
            log.warning(
                "what earlier steps could not send to MLflow stays at %s: %s", self._tracker.leftovers_uri, error
            )
        self._is_caught_up = True

    def _catch_up(self) -> None:
        uri, run_id = self._tracker.leftovers_uri, self._tracker.run_id
        for leftover in leftovers.read_all(uri, run_id):
            writers = {"workflow": self._tracker.workflow}
            if leftover.key:
                writers["step"] = self._writer_of(leftover)
            for call in leftover.calls:
                if call.target in writers:
                    getattr(writers[call.target], call.name)(**call.arguments)
            leftovers.drop(uri, leftover)
            log.info("sent %d notes of %s that could not be sent before", len(leftover.calls), leftover.task)

    def _writer_of(self, leftover: leftovers.Leftover) -> RunWriter:
        if (leftover.task, leftover.key) == (self._task, self._key):
            return self._step
        return self._tracker.reopen_step(leftover.task, leftover.key)
