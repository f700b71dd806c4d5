"""A made-up run for the report."""

import pytest


@pytest.fixture(scope="session")
def report_sample():
    """The module that makes the data of a whole run."""
    from tests.support import report_sample

    return report_sample
