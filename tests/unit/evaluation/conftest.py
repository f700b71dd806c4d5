"""A made-up run for the tests of the report; its shape is that of a run of the tiny recipe."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def report_sample():
    """The module tests/browser/report_sample.py, which makes the data of a whole run."""
    return load_report_sample()


def load_report_sample():
    path = Path(__file__).parents[2] / "browser" / "report_sample.py"
    spec = importlib.util.spec_from_file_location("report_sample", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["report_sample"] = module
    spec.loader.exec_module(module)
    return module
