"""A request of a step over local folders, and a place in an S3 bucket."""

from tests.support.steps import request_of_tiny  # noqa: F401  # fixture
from tests.support.training import s3_endpoint, s3_root  # noqa: F401  # fixtures
