"""The source files that a training stage's weights depend on, and the check that launcher and pods have the same."""

from importlib.metadata import version

from vl3.config.codeversion import code_version
from vl3.errors import ConfigError
from vl3.training.job import StageJob

STAGE_SOURCES = (
    "errors.py",
    "config/*.py",
    "store/**/*.py",
    "system/*.py",
    "data/**/*.py",
    "models/*.py",
    "training/*.py",
    "steps/train_stage.py",
)
"""Files below vl3 that have a part in a stage's weights, as globs."""
NOT_OF_A_STAGE = (
    "data/build/dataset.py",
    "data/build/pool.py",
    "data/build/worker.py",
    "training/outcome.py",
    "models/convert.py",
    "models/layouts/files.py",
    "models/preprocessing.py",
)
"""Files among them that have none: what makes data and bases, and what only brings a stage into a pod."""


def stage_code_version() -> str:
    """Digest of a stage's source files as they are installed here."""
    return code_version(STAGE_SOURCES, exclude=NOT_OF_A_STAGE)


def require_same_sources(job: StageJob) -> None:
    """Refuse a job that other sources launched: its key, by which the result is reused, would name the wrong code.

    Raises:
        ConfigError: the sources differ.
    """
    here = stage_code_version()
    if here != job.code_version:
        raise ConfigError(
            f"the stage {job.stage} was launched by other sources of vl3 (digest {job.code_version[:12]}) than this "
            f"image has (vl3 {version('vl3')}, digest {here[:12]}): launcher and trainer images differ, and the "
            "weights would be kept under the wrong code's key. Build and roll out both images from one commit."
        )
