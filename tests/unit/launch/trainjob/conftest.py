"""A job to launch."""

from tests.support.launches import make_job  # noqa: F401  # fixture
