"""Checks that launcher and pods have the same code: a stage's key has the launcher's, but the pods do the work."""

from importlib.metadata import version

from vl3.errors import ConfigError
from vl3.training.job import StageJob
from vl3.workflow.code import code_version

TRAINING_ENTRIES = ("vl3.steps.train_stage",)
"""The modules that a launcher computes a stage's code version from."""


def require_same_sources(job: StageJob) -> None:
    """Refuse a job that other code launched: the key of its result would be that of the wrong code.

    Raises:
        ConfigError: the code differs.
    """
    here = code_version(TRAINING_ENTRIES)
    if here != job.code_version:
        raise ConfigError(
            f"the stage {job.stage} was launched by other code of vl3 (version {job.code_version[:12]}) than this "
            f"image has (vl3 {version('vl3')}, version {here[:12]}): launcher and trainer images differ, and the "
            "weights would be stored with the wrong code's key. Build and roll out both images from one commit."
        )
