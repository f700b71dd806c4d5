"""A request of a step over local folders, and what a stage is trained on."""

from tests.support.steps import request_of_tiny  # noqa: F401  # fixture
from tests.support.training import s3_endpoint, s3_root, stage_inputs  # noqa: F401  # fixtures
