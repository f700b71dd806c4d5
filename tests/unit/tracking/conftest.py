"""Trackers and registries on a fresh SQLite store each, from one template."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vl3.tracking.database import make_template
from vl3.tracking.environment import MLFLOW_ENVIRONMENT
from vl3.tracking.evidence import Evidence, ScoreEvidence
from vl3.tracking.registry import Registry
from vl3.tracking.runs import Tracker


@pytest.fixture(scope="session", autouse=True)
def mlflow_environment() -> None:
    """What the entry points set before MLflow is imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in MLFLOW_ENVIRONMENT.items():
            patch.setenv(name, value)
        import mlflow  # noqa: F401

        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template") / "mlflow.db")


@pytest.fixture
def tracking_uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/run/mlflow.db"


@pytest.fixture
def tracker(tracking_uri: str, template: Path) -> Callable[..., Tracker]:
    """Make a tracker as each step process does: the same arguments, nothing shared but the store."""
    return lambda **settings: Tracker(tracking_uri, "vl3", "run-7", "my run", template=template, **settings)


@pytest.fixture
def registry(tracking_uri: str, template: Path) -> Registry:
    return Registry(tracking_uri, "vl3-tiny", template=template)


@pytest.fixture
def make_evidence() -> Callable[..., Evidence]:
    """Evidence that passes every gate (two categories, 90 and 80 of 100 right), with fields replaced."""

    def make(**changes: object) -> Evidence:
        settings = {
            "tasks": {
                "chart": ScoreEvidence(accuracy=0.9, correct=90, total=100, chance=0.25),
                "streaming": ScoreEvidence(accuracy=0.8, correct=80, total=100, chance=0.3),
            },
            "mean_accuracy": 0.85,
            "expected_categories": ("chart", "streaming"),
            "samples_per_task": 100,
            "champion": None,
            "validation_passed": True,
            "checkpoint_verified": True,
            "dataset_digest": "d" * 64,
        }
        return Evidence(**{**settings, **changes})

    return make
