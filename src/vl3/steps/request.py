"""The requests of the training workflow's steps: their configuration is a RunConfig."""

from vl3.config.run import RunConfig
from vl3.workflow.step import StepRequest, StepWork

Request = StepRequest[RunConfig]
Work = StepWork[RunConfig]
