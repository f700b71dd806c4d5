"""Trackers and registries on a fresh SQLite store each, from one template."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.evidence import beside, evidence
from vl3.tracking.database import make_template
from vl3.tracking.environment import MLFLOW_ENVIRONMENT
from vl3.tracking.evidence import ChampionEvidence, Evidence
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
    """Evidence that passes every gate (two categories, 90 and 80 of 100 right), with fields replaced.

    Evidence with a champion was measured beside it, and both answer alike.
    """

    def make(champion: ChampionEvidence | None = None, **changes: object) -> Evidence:
        return beside(evidence(**changes), champion)

    return make
