"""The checkpoints of a run, by its id alone: what `run://RUN` stands for."""

from pathlib import Path

from vl3.tracking.client import open_client, patiently, platform_errors
from vl3.tracking.runs import KIND_TAG, RUN_TAG

CHECKPOINT_TAG = "vl3.checkpoint_uri"
"""Tag of a stage's run with the URI of its checkpoint."""
_MAX_STEPS = 1000


def checkpoints_of_run(tracking_uri: str, run_id: str, *, template: Path | None = None) -> list[str]:
    """URIs of the checkpoints of a run's stages, the latest first; empty if there is no such run.

    Args:
        tracking_uri: where MLflow keeps runs.
        run_id: the workflow run's id.
        template: migrated empty database for a fresh SQLite file.

    Raises:
        ClusterError: MLflow does not answer.
    """

    def ask() -> list[str]:
        client = open_client(tracking_uri, template=template)
        with platform_errors(tracking_uri, f"look for the checkpoints of run {run_id}"):
            experiments = [one.experiment_id for one in client.search_experiments()]
            runs = client.search_runs(
                experiments,
                filter_string=f"tags.`{RUN_TAG}` = '{run_id}' and tags.`{KIND_TAG}` = 'step'",
                max_results=_MAX_STEPS,
                order_by=["attributes.start_time DESC"],
            )
        found = (run.data.tags.get(CHECKPOINT_TAG) for run in runs)
        return list(dict.fromkeys(uri for uri in found if uri))

    return patiently(ask)
