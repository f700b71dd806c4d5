"""The rendered overlays, as a review should see them change; production with made-up digests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import OVERLAYS, overlay_text


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the copy of the manifests with pinned images."""
    return tmp_path_factory.mktemp("manifests")


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_renders_as_reviewed(name: str, copies: Path, golden: Callable[[str, Any], None]) -> None:
    golden(f"manifests/{name}.yaml", overlay_text(name, copies))
