"""Writes one MLflow run, waiting for the answer: parameters, metrics, datasets, texts, final status.

Each call may be repeated: what is there already is left out or written with the same content.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vl3.config.tracking import is_server
from vl3.system.files import storage_errors
from vl3.tracking.client import platform_errors, require_answer
from vl3.tracking.params import MAX_METRICS_PER_BATCH, MAX_PARAMS_PER_BATCH, chunks, flatten, legal_key

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

_MAX_TAG_CHARACTERS = 5000
_MAX_DIGEST_CHARACTERS = 36
DESCRIPTION_TAG = "mlflow.note.content"
"""Tag that MLflow's pages show as the description of a run, as Markdown."""


class RunWriter:
    """A run to write into.

    Attributes:
        run_id: MLflow's id of the run.
        is_continued: whether an earlier attempt has started the run.
    """

    def __init__(
        self, client: "MlflowClient", tracking_uri: str, run: "Run", *, is_owner: bool, is_continued: bool = False
    ) -> None:
        self.run_id: str = run.info.run_id
        self.artifact_uri: str = run.info.artifact_uri
        self.experiment_id: str = run.info.experiment_id
        self.is_continued = is_continued
        self._client = client
        self._uri = tracking_uri
        self._is_owner = is_owner
        self._params = dict(run.data.params)
        self._last_steps: dict[str, int] = {}

    @property
    def page(self) -> str:
        """Address of the run on the tracking server, without a password; empty for a database."""
        if not is_server(self._uri):
            return ""
        parts = urlsplit(self._uri)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log a flat or nested configuration as parameters.

        MLflow never changes a parameter: if an earlier attempt logged another value, that value stays and the tag
        `vl3.changed_params` lists the parameter.
        """
        from mlflow.entities import Param

        flat = flatten(values)
        new = [Param(key, value) for key, value in flat.items() if key not in self._params]
        with platform_errors(self._uri, f"log parameters of the run {self.run_id}"):
            for chunk in chunks(new, MAX_PARAMS_PER_BATCH):
                self._client.log_batch(self.run_id, params=chunk)
        changed = sorted(key for key, value in flat.items() if self._params.get(key, value) != value)
        self._params = {**flat, **self._params}
        if changed:
            log.warning("parameters changed since the run's first attempt: %s", ", ".join(changed))
            self.set_tags({"vl3.changed_params": ", ".join(changed)})

    def log_metrics(
        self, rows: Sequence[tuple[int, Mapping[str, float]]], times_seconds: Sequence[float] | None = None
    ) -> int:
        """Log rows of (step, {metric: value}) in few requests.

        The steps of a metric must increase: one that this process or an earlier attempt has logged is left out. So
        the whole event file of a stage may be passed again, and a stage that resumed from a checkpoint draws one
        curve. Values must be numbers; NaN and infinities are kept.

            an earlier attempt logged loss at the steps 10, 20 and 30, and this one resumed from step 20
            rows for the steps 30, 40 and 50: sends 40 and 50

        Args:
            rows: the values by step; a negative one means the step after the metric's last.
            times_seconds: Unix time of each row; None uses the current time.

        Returns:
            Number of values that were sent.
        """
        from mlflow.entities import Metric

        now, last_steps = time.time(), dict(self._last_steps)
        metrics = []
        for index, (step, values) in enumerate(rows):
            milliseconds = int((times_seconds[index] if times_seconds else now) * 1000)
            for key, value in values.items():
                name = legal_key(key)
                last = last_steps[name] if name in last_steps else self._last_logged_step(name)
                number = last + 1 if step < 0 else step
                last_steps[name] = max(number, last)
                if number > last:
                    metrics.append(Metric(name, float(value), milliseconds, int(number)))
        with platform_errors(self._uri, f"log metrics of the run {self.run_id}"):
            for chunk in chunks(metrics, MAX_METRICS_PER_BATCH):
                self._client.log_batch(self.run_id, metrics=chunk)
        self._last_steps = last_steps  # only now, so that values that could not be sent may be passed again
        return len(metrics)

    def log_dataset(self, name: str, digest: str, uri: str, context: str = "training") -> None:
        """Record a dataset as input of the run: its URI and sha256 (MLflow's own field takes only 36 characters)."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"uri": uri, "sha256": digest})
        dataset = Dataset(name=name, digest=digest[:_MAX_DIGEST_CHARACTERS], source_type="vl3", source=source)
        tags = [InputTag("mlflow.data.context", context), InputTag("vl3.sha256", digest)]
        with platform_errors(self._uri, f"record the dataset {name!r} in the run {self.run_id}"):
            self._client.log_inputs(self.run_id, datasets=[DatasetInput(dataset, tags)])

    def log_text(self, text: str, file_name: str) -> None:
        """Store a text file in the run's artifacts."""
        is_local = self.artifact_uri.startswith("file:")
        with (
            storage_errors(Path(self.artifact_uri)) if is_local else nullcontext(),
            platform_errors(self._uri, f"store {file_name} with the run {self.run_id}"),
        ):
            self._client.log_text(self.run_id, text, file_name)
            # MLflow's client takes any answer with status 200 for success, and so the page of a proxy, too.
            folder = file_name.rpartition("/")[0] or None
            names = [item.path for item in self._client.list_artifacts(self.run_id, folder)]
            require_answer(file_name in names, f"artifact {file_name}")

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; values become text of at most 5000 characters."""
        from mlflow.entities import RunTag

        items = [RunTag(legal_key(key), str(value)[:_MAX_TAG_CHARACTERS]) for key, value in tags.items()]
        with platform_errors(self._uri, f"tag the run {self.run_id}"):
            for chunk in chunks(items, MAX_PARAMS_PER_BATCH):
                self._client.log_batch(self.run_id, tags=chunk)

    def finish(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED; an injected run is ended by its owner."""
        if self._is_owner:
            with platform_errors(self._uri, f"end the run {self.run_id}"):
                self._client.set_terminated(self.run_id, status)

    def finish_steps(self, status: str) -> None:
        """End the nested runs that are still open, up to 1000; those of an injected run are ended by its owner."""
        if not self._is_owner:
            return
        nested = f"tags.`mlflow.parentRunId` = '{self.run_id}' and attributes.status = 'RUNNING'"
        with platform_errors(self._uri, f"end the open runs below the run {self.run_id}"):
            for run in self._client.search_runs([self.experiment_id], filter_string=nested, max_results=1000):
                self._client.set_terminated(run.info.run_id, status)

    def _last_logged_step(self, key: str) -> int:
        """The last step of a metric that an earlier attempt logged; -1 if none."""
        if not self.is_continued:
            return -1
        with platform_errors(self._uri, f"read the metric {key!r} of the run {self.run_id}"):
            history = self._client.get_metric_history(self.run_id, key)
        return max((metric.step for metric in history), default=-1)


def opened(client: "MlflowClient", tracking_uri: str, run_id: str, **settings: Any) -> RunWriter:
    """The writer of an existing run.

    Raises:
        ClusterError: MLflow fails, or does not know the run.
    """
    with platform_errors(tracking_uri, f"read the run {run_id}"):
        run = client.get_run(run_id)
        require_answer(run.info.run_id == run_id, f"run {run_id}")
    return RunWriter(client, tracking_uri, run, **settings)
