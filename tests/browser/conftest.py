"""The made-up run that the browser is shown."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def load_sample():
    """The module report_sample.py beside this file."""
    path = Path(__file__).with_name("report_sample.py")
    spec = importlib.util.spec_from_file_location("report_sample", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
