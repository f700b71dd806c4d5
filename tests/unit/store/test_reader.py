"""A part of a file or an object as a file: the same bytes wherever it is."""

import io
import random
from pathlib import Path

import pytest

from tests.support.training import s3_endpoint, s3_root  # noqa: F401  # fixtures
from vl3.errors import StorageError
from vl3.store.objects import open_store
from vl3.store.reader import open_range

CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture(params=["file", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "x").write_bytes(CONTENT)
    if request.param == "file":
        return (tmp_path / "x").as_uri()
    root = request.getfixturevalue("s3_root")
    open_store(root).put_file(tmp_path / "x", "x")
    return f"{root}/x"


@pytest.mark.parametrize(
    ("offset", "length"), [(0, None), (0, 1000), (1000, None), (250_000, 50_000), (7, 0), (300_000, None)]
)
def test_it_reads_as_the_bytes_do(uri: str, offset: int, length: int | None) -> None:
    expected = io.BytesIO(CONTENT[offset:] if length is None else CONTENT[offset : offset + length])
    rng = random.Random(1)
    with open_range(uri, offset, length) as file:
        assert file.read() == expected.read()
        for _ in range(20):
            at, count = rng.randrange(300_001), rng.randrange(2000)
            assert file.seek(at) == expected.seek(at)
            assert file.read(count) == expected.read(count)
        assert file.seek(0, io.SEEK_END) == expected.seek(0, io.SEEK_END)


def test_what_is_missing_is_named(uri: str) -> None:
    with pytest.raises((FileNotFoundError, StorageError), match="other"):
        open_range(f"{uri}-other")
