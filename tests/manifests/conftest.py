"""Rendered overlays for the tests of the manifests."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import OVERLAYS, load, overlay_text


@pytest.fixture(scope="session")
def manifest_copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the copy of the manifests with pinned images."""
    return tmp_path_factory.mktemp("manifests")


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, manifest_copies: Path) -> tuple[str, list[dict[str, Any]]]:
    """Name and objects of each overlay."""
    return request.param, load(overlay_text(request.param, manifest_copies))


@pytest.fixture
def single_user(manifest_copies: Path) -> list[dict[str, Any]]:
    """The objects of the overlay for the namespace of Pipelines."""
    return load(overlay_text("single-user", manifest_copies))


@pytest.fixture
def production(manifest_copies: Path) -> list[dict[str, Any]]:
    """The objects of the production overlay."""
    return load(overlay_text("prod", manifest_copies))
