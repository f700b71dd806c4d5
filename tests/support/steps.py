"""A request of a step over local folders."""

from pathlib import Path

import pytest

from vl3.recipes.catalog import get_recipe
from vl3.workflow.step import StepRequest


@pytest.fixture
def request_of_tiny(tmp_path: Path) -> StepRequest:
    """The tiny recipe, with folders below the test's own."""
    return StepRequest(
        task="a-step",
        part="",
        config=get_recipe("tiny"),
        overrides=(),
        data_uri=(tmp_path / "data").as_uri(),
        artifacts_uri=(tmp_path / "artifacts").as_uri(),
        tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}",
        run_id="test-run",
        inputs={},
    )
