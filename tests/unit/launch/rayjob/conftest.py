"""An API server to talk to, and a job to launch on it."""

from tests.support.launches import client, limits, make_job, server  # noqa: F401  # fixtures
