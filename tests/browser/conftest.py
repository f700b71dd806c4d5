"""A browser, and the made-up run that it is shown."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import start_browser


@pytest.fixture(scope="session")
def load_sample():
    """The module that makes the data of a whole run."""
    from tests.support import report_sample

    return report_sample


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The driver of a headless browser."""
    driver = start_browser()
    yield driver
    driver.quit()
