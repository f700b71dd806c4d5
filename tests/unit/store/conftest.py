"""A small artifact folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vl3.store.artifacts import publish
from vl3.store.reference import Reference


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with two files, one of them in a subfolder."""

    def make(name: str = "work", text: str = "weights") -> Path:
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        (folder / "a.txt").write_text(text)
        (folder / "sub" / "b.bin").write_bytes(bytes(range(256)))
        return folder

    return make


@pytest.fixture
def published(make_folder: Callable[..., Path], tmp_path: Path) -> Reference:
    """The folder, published."""
    uri = (tmp_path / "store" / "one").as_uri()
    return publish(make_folder(), uri, kind="checkpoint", created_by={"step": "test"})
