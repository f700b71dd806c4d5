"""Image decoding and resizing."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.support.samples import image_bytes
from vl3.data.sample.image import decode_image, resize_image
from vl3.data.sample.problems import ProblemKind, SampleProblem


def test_decode_gives_rgb_of_any_mode():
    buffer = io.BytesIO()
    Image.new("LA", (5, 3), (200, 10)).save(buffer, format="PNG")
    pixels = decode_image(buffer.getvalue(), "x")
    assert pixels.shape == (3, 5, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == 200).all()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_refused_with_its_place(suffix):
    data = image_bytes(64, 64, suffix=suffix)
    with pytest.raises(SampleProblem) as caught:
        decode_image(data[: len(data) // 2], "train.jsonl:3: images/x.png")
    assert caught.value.kind is ProblemKind.UNDECODABLE
    assert str(caught.value).startswith(f"train.jsonl:3: images/x.png: the image ({len(data) // 2} bytes) cannot be")
    assert "drop the sample" in str(caught.value)


def test_a_text_file_is_refused_without_a_memory_address():
    with pytest.raises(SampleProblem) as caught:
        decode_image(b'{"image": null}', "x")
    assert "0x" not in str(caught.value)
    assert "UnidentifiedImageError: cannot identify image file" in str(caught.value)


def test_resize_is_pillows_bicubic_and_leaves_equal_sizes_alone():
    pixels = decode_image(image_bytes(30, 40), "x")
    assert resize_image(pixels, 30, 40) is pixels
    expected = Image.fromarray(pixels).resize((28, 14), Image.Resampling.BICUBIC)
    assert np.array_equal(resize_image(pixels, 14, 28), np.asarray(expected))
