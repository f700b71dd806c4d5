"""The requests of the training workflow's steps: their configuration is a RunConfig."""

from vl3.config.part import choose_stages
from vl3.config.run import RunConfig
from vl3.workflow.step import StepRequest, StepWork

Request = StepRequest[RunConfig]
Work = StepWork[RunConfig]


def trained_by(request: Request) -> list[str]:
    """The stages that the run of a request trains, in order; none if it only evaluates."""
    return choose_stages(list(request.config.stages), request.stages)
