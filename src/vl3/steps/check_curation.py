"""Step: report everything that would stop a curation later, before anything is downloaded or scored."""

from typing import Any

from vl3.config.curation import CurationConfig
from vl3.config.placement import CURATE
from vl3.curation.source import find_parts
from vl3.curation.video.source import find_videos
from vl3.errors import Vl3Error
from vl3.launch.check.findings import combined
from vl3.steps.check_prerequisites import check_artifacts, check_tracking
from vl3.workflow.step import Step, StepOutcome, StepRequest, StepWork


def check(request: StepRequest[CurationConfig]) -> None:
    """Run every check.

    Raises:
        Vl3Error: one report of everything that is missing.
    """
    problems: list[Vl3Error] = []
    for probe in (_check_images, _check_videos, check_artifacts, check_tracking):
        try:
            probe(request)
        except Vl3Error as error:
            problems.append(error)
    if request.config.launch.backend != "local" and CURATE in request.config.placements:
        from vl3.launch.check.cluster import check_cluster

        problems += check_cluster({CURATE: request.config.placements[CURATE]})
    if problems:
        raise combined(problems, "prerequisites are missing, listed above")


def _check_images(request: StepRequest[CurationConfig]) -> None:
    if request.config.steps:
        find_parts(request.data_uri, request.config.part_images)


def _check_videos(request: StepRequest[CurationConfig]) -> None:
    if request.config.videos is not None:
        find_videos(request.data_uri, request.config.videos.pattern)


def key_parts(_: StepRequest[CurationConfig]) -> dict[str, Any]:
    """Nothing: the checks run every time and leave nothing that another step takes."""
    return {}


def run(work: StepWork[CurationConfig]) -> StepOutcome:
    """Check everything.

    Raises:
        Vl3Error: one report of what is missing.
    """
    check(work.request)
    return StepOutcome(outputs={})


STEP = Step(run=run, key_parts=key_parts, reusable=False)
