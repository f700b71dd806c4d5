"""The made-up run that the browser is shown."""

import pytest


@pytest.fixture(scope="session")
def load_sample():
    """The module that makes the data of a whole run."""
    from tests.support import report_sample

    return report_sample
