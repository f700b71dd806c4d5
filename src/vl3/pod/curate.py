"""Driver of a curation on Ray: `python -m vl3.pod.curate`, the entry point of a RayJob.

VL3_JOB has the curation as JSON. The driver runs every round on the cluster that it is a part of; the result is written
by the launching step, which finds all scores and states made.
"""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vl3.config.codec import from_dict
from vl3.config.curation import CurationConfig
from vl3.curation.flow import run_rounds
from vl3.curation.on_ray import OnRay, RayPlace
from vl3.curation.run import CurationPlace, open_places, weight_folders
from vl3.curation.scorers.make import make_scorers
from vl3.curation.source import find_parts
from vl3.errors import FAMILIES, ConfigError, Vl3Error
from vl3.pod.build import FAILURE_PREFIX, JOB_VARIABLE
from vl3.pod.journal import event_line
from vl3.store.artifacts import fetch
from vl3.store.reference import Reference
from vl3.workflow.code import code_version

CURATION_ENTRIES = ("vl3.steps.curate_images",)
"""The modules that the launching step computes its code version from."""
SHARED_FILE = "scorers.json"

log = logging.getLogger("vl3.pod")


@dataclass(frozen=True, kw_only=True, slots=True)
class CurationJob:
    """What is curated, as the step that launches it says."""

    config: dict[str, Any]
    """The recipe."""
    data_uri: str
    """s3:// URI of the images."""
    work_uri: str
    """s3:// URI of listings and states."""
    scores_uri: str
    """s3:// URI of the scores."""
    scorers: dict[str, Any]
    """Reference to the weights."""
    code_version: str
    """Version of the code of the launching step."""


def main(environ: Mapping[str, str]) -> int:
    """Make the scores and states that are not there; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        _curate(_read_job(environ))
    except Vl3Error as error:
        family = next(name for name, kind in FAMILIES.items() if isinstance(error, kind))
        _say(FAILURE_PREFIX + json.dumps({"family": family, "message": str(error)}, ensure_ascii=False))
        return error.exit_code
    return 0


def _curate(job: CurationJob) -> None:
    _require_same_sources(job)
    config = from_dict(CurationConfig, job.config)
    place = CurationPlace(data_uri=job.data_uri, work_uri=job.work_uri, scores_uri=job.scores_uri)
    folder = fetch(Reference.from_dict(job.scorers))
    shared: Mapping[str, str] = json.loads((folder / SHARED_FILE).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="vl3-indexes-") as indexes:
        found = {name: folder / first for name, first in shared.items()}
        folders = weight_folders(config, found, job.data_uri, Path(indexes))
        places, scores = open_places(config, place)
        run_rounds(
            find_parts(job.data_uri, config.part_images),
            config,
            make_scorers(config, folders, job.scores_uri),
            places,
            scores,
            executor=OnRay(config, folders, RayPlace(address="auto"), weights=job.scorers),
            progress=_tell,
        )


def _tell(done: int, total: int, text: str) -> None:
    _say(event_line({"type": "progress", "done": done, "total": total, "text": text}))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _read_job(environ: Mapping[str, str]) -> CurationJob:
    try:
        return CurationJob(**json.loads(environ[JOB_VARIABLE]))
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{JOB_VARIABLE} is not a curation's job ({type(error).__name__}: {error}). Launch it with a RayJob of vl3."
        ) from error


def _require_same_sources(job: CurationJob) -> None:
    here = code_version(CURATION_ENTRIES)
    if here != job.code_version:
        raise ConfigError(
            f"the curation was launched by other code (version {job.code_version[:12]}) than this image has (vl3 "
            f"{version('vl3')}, version {here[:12]}), so scores would be stored with the wrong code's key. Build and "
            "roll out the images from one commit."
        )


if __name__ == "__main__":
    sys.exit(main(os.environ))
