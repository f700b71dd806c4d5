"""Checks that launcher and pods have the same code: a step's key has the launcher's, but the pods do the work."""

from importlib.metadata import version

from vl3.errors import ConfigError
from vl3.workflow.code import code_version

TRAINING_ENTRIES = ("vl3.steps.train_stage",)
EVALUATION_ENTRIES = ("vl3.steps.evaluate",)
"""The modules that a launcher computes the code version of a job from."""


def require_same_sources(what: str, launched_by: str, entries: tuple[str, ...]) -> None:
    """Refuse a job that other code launched: the key of its result would be that of the wrong code.

    Args:
        what: the work, for messages.
        launched_by: the code version of the launcher.
        entries: the modules that it was computed from.

    Raises:
        ConfigError: the code differs.
    """
    here = code_version(entries)
    if here != launched_by:
        raise ConfigError(
            f"the {what} was launched by other code of vl3 (version {launched_by[:12]}) than this image has (vl3 "
            f"{version('vl3')}, version {here[:12]}): launcher and trainer images differ, and the result would be "
            "stored with the wrong code's key. Build and roll out both images from one commit."
        )
