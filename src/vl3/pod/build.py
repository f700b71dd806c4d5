"""Driver of a build on Ray: `python -m vl3.pod.build`, the entry point of a RayJob.

VL3_JOB has the build as JSON. The driver hands one unit after the other to the actors of the cluster that it is a part
of; what is published is made from the units by the launching step. It prints its progress as events, and before it
fails a line with the error's family and message, which KubeRay passes on in the RayJob's status.
"""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vl3.config.codec import from_dict
from vl3.config.run import RunConfig
from vl3.data.build.dataset import begin, make_units, plan_units
from vl3.data.build.executors import RayActors
from vl3.data.build.of_run import setup_for_run
from vl3.errors import FAMILIES, ConfigError, Vl3Error
from vl3.models.vocabulary import TOKENIZER_FILE
from vl3.pod.journal import event_line
from vl3.store.artifacts import fetch_file
from vl3.store.reference import Reference
from vl3.workflow.code import code_version

JOB_VARIABLE = "VL3_JOB"
FAILURE_PREFIX = "vl3-failure "
"""Prefix of the line of the log that says why the build failed."""
BUILD_ENTRIES = ("vl3.steps.build_data",)
"""The modules that the launching step computes its code version from."""
_TELL_SECONDS = 1.0

log = logging.getLogger("vl3.pod")


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildJob:
    """What is built, as the step that launches it says."""

    config: dict[str, Any]
    """The run's configuration."""
    data_uri: str
    """s3:// URI of annotations and media."""
    work_uri: str
    """s3:// URI below which the units appear."""
    start: dict[str, Any]
    """Reference to what the run starts from, which has the tokenizer."""
    identity: str
    """What the units are made by: those of another identity are removed."""
    code_version: str
    """Version of the code of the launching step."""


def main(environ: Mapping[str, str]) -> int:
    """Make the units that are not there; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        _build(_read_job(environ))
    except Vl3Error as error:
        family = next(name for name, kind in FAMILIES.items() if isinstance(error, kind))
        _say(FAILURE_PREFIX + json.dumps({"family": family, "message": str(error)}, ensure_ascii=False))
        return error.exit_code
    return 0


def _build(job: BuildJob) -> None:
    _require_same_sources(job)
    with tempfile.TemporaryDirectory(prefix="vl3-tokenizer-") as folder:
        fetch_file(Reference.from_dict(job.start), TOKENIZER_FILE, Path(folder))
        config = from_dict(RunConfig, job.config)
        setup = setup_for_run(job.data_uri, job.work_uri, config, Path(folder))
    begin(setup, job.identity)
    make_units(plan_units(setup), setup, RayActors(address="auto"), _Progress())


class _Progress:
    """Prints how far the build is, once a second and at its end."""

    def __init__(self) -> None:
        self._told_at = 0.0

    def __call__(self, done: int, total: int) -> None:
        if done == total or time.monotonic() - self._told_at >= _TELL_SECONDS:
            self._told_at = time.monotonic()
            text = "samples decoded and packed"
            _say(event_line({"type": "progress", "done": done, "total": total, "text": text}))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _read_job(environ: Mapping[str, str]) -> BuildJob:
    try:
        return BuildJob(**json.loads(environ[JOB_VARIABLE]))
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{JOB_VARIABLE} is not a build's job ({type(error).__name__}: {error}). Launch pods with a RayJob of vl3."
        ) from error


def _require_same_sources(job: BuildJob) -> None:
    here = code_version(BUILD_ENTRIES)
    if here != job.code_version:
        raise ConfigError(
            f"the build was launched by other code of vl3 (version {job.code_version[:12]}) than this image has (vl3 "
            f"{version('vl3')}, version {here[:12]}), so the dataset would be stored with the wrong code's key. Build "
            "and roll out the data image, in which both run, from one commit."
        )


if __name__ == "__main__":
    sys.exit(main(os.environ))
