"""A request of a step over local folders."""

from tests.support.steps import request_of_tiny  # noqa: F401  # fixture
