"""What an image says without a model, and what becomes of files that are none, or too large."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.support.curation import file_of, photo
from vl3.curation.chunks import run_scorer
from vl3.curation.scorers.image_facts import ImageFacts, perceptual_hash
from vl3.curation.source import content_digest


def facts_of(*files: bytes, max_px: int = 1 << 20) -> dict[str, np.ndarray]:
    given = {name: np.empty(len(files), dtype=object) for name in ("sha256", "bytes")}
    given["bytes"][:] = files
    given["sha256"][:] = [content_digest(one) for one in files]
    return run_scorer(ImageFacts("facts", max_px), given, 2)


def of_one_colour(width_px: int, height_px: int) -> bytes:
    """A small file of any number of pixels."""
    file = io.BytesIO()
    Image.new("1", (width_px, height_px)).save(file, "PNG")
    return file.getvalue()


def test_sizes_shape_and_hash() -> None:
    made = facts_of(file_of(photo(1, 300, 100)))
    assert (made["width_px"][0], made["height_px"][0], made["min_side_px"][0]) == (300, 100, 100)
    assert made["aspect_ratio"][0] == 3
    assert made["phash"][0] == perceptual_hash(photo(1, 300, 100))
    assert made["facts_error"][0] is None


def test_a_bomb_fails_by_its_header_and_the_others_are_scored() -> None:
    bomb = of_one_colour(20_000, 20_000)
    assert len(bomb) < 100_000
    made = facts_of(file_of(photo(1)), bomb, file_of(photo(2)), of_one_colour(2000, 1000))
    assert [error is None for error in made["facts_error"]] == [True, False, True, False]
    assert "exceeds limit" in made["facts_error"][1]
    assert made["facts_error"][3] == "the image has 2000 x 1000 px, more than max_image_px=1048576"
    assert made["phash"][1] is None
    assert np.isnan(made["width_px"][1])
    assert made["phash"][2] == perceptual_hash(photo(2))


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>", file_of(photo(1), "JPEG")[:900], b"\x00" * 5000],
    ids=["empty", "header only", "svg", "cut off", "zeros"],
)
def test_what_is_no_image_fails_with_a_reason(data: bytes) -> None:
    made = facts_of(data, file_of(photo(3)))
    assert isinstance(made["facts_error"][0], str)
    assert len(made["facts_error"][0]) > 10
    assert made["facts_error"][1] is None
