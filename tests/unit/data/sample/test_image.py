"""Image decoding and resizing."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from tests.support.samples import image_bytes
from vl3.data.sample import image as image_module
from vl3.data.sample.image import decode_image, image_size, resize_image
from vl3.data.sample.picture_damage import check_picture
from vl3.data.sample.problems import ProblemKind, SampleProblem


def test_decode_gives_rgb_of_any_mode():
    buffer = io.BytesIO()
    Image.new("LA", (5, 3), (200, 10)).save(buffer, format="PNG")
    pixels = decode_image(buffer.getvalue(), "x")
    assert pixels.shape == (3, 5, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == 253).all()  # 10 of 255 parts of 200, the rest white


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


def saved(image: Image.Image, suffix: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=suffix, **options)
    return buffer.getvalue()


def gradient(height_px: int = 16, width_px: int = 24) -> Image.Image:
    values = np.arange(height_px * width_px * 3) % 256
    return Image.fromarray(values.reshape(height_px, width_px, 3).astype(np.uint8))


@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_by_their_orientation(suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(gradient(), suffix, exif=exif)
    found = decode_image(data, "x")
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(found, expected)
    assert found.shape[:2] == image_size(data, "x") == ((24, 16) if orientation >= 5 else (16, 24))


def test_a_damaged_orientation_is_passed_over():
    data = saved(gradient(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert decode_image(data, "x").shape == (16, 24, 3)


def ink(mode: str) -> Image.Image:
    """Black on the left, transparent black on the right."""
    alpha = Image.new("L", (8, 4), 0)
    alpha.paste(255, (0, 0, 4, 4))
    picture = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    picture.putalpha(alpha)
    if mode == "P":
        with_holes = Image.new("P", (8, 4), 1)
        with_holes.putpalette([0, 0, 0, 0, 0, 0])
        with_holes.paste(0, (0, 0, 4, 4))
        return with_holes
    return picture.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix", "options"),
    [
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("P", "PNG", {"transparency": 1}),
        ("P", "GIF", {"transparency": 1}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("RGBA", "TIFF", {}),
        ("RGBA", "AVIF", {"quality": 100}),
    ],
)
def test_transparent_parts_are_white(mode, suffix, options):
    found = decode_image(saved(ink(mode), suffix, **options), "x")
    assert np.abs(found[:, :4].astype(int)).max() <= 2
    assert np.abs(found[:, 4:].astype(int) - 255).max() <= 2


def test_the_first_frame_of_an_animation_is_composed_on_white():
    frames = [ink("RGBA"), Image.new("RGBA", (8, 4), (255, 0, 0, 255))]
    data = saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    found = decode_image(data, "x")
    assert (found[:, :4] == 0).all()
    assert (found[:, 4:] == 255).all()


def test_a_transparent_grey_of_16_bits_is_white():
    values = np.full((4, 8), 1000, dtype=np.uint16)
    values[:, 4:], values[0, 0] = 5000, 0
    found = decode_image(saved(Image.fromarray(values), "PNG", transparency=5000), "x")
    assert (found[:, 4:] == 255).all()
    assert (found[1:, :4] == 51).all()


@pytest.mark.parametrize(
    ("values", "suffix"),
    [
        (np.linspace(0, 65535, 256).astype(np.uint16), "PNG"),
        (np.linspace(0, 4095, 256).astype(np.uint16), "PNG"),
        (np.linspace(0, 4095, 256).astype(np.uint16), "TIFF"),
        (np.linspace(-70000, 70000, 256).astype(np.int32), "TIFF"),
        (np.linspace(0, 1, 256).astype(np.float32), "TIFF"),
        (np.linspace(-1e6, 1e6, 256).astype(np.float32), "TIFF"),
    ],
)
def test_deep_greys_are_scaled_by_their_own_range(values, suffix):
    found = decode_image(saved(Image.fromarray(values.reshape(16, 16)), suffix), "x")
    expected = np.arange(256).reshape(16, 16, 1).repeat(3, axis=2)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_values_that_are_no_number_are_black():
    values = np.array([[np.nan, 0.0], [0.5, 1.0]], dtype=np.float32)
    assert decode_image(saved(Image.fromarray(values), "TIFF"), "x")[..., 0].tolist() == [[0, 0], [128, 255]]
    with pytest.raises(SampleProblem, match="no pixel has a number"):
        decode_image(saved(Image.fromarray(values * np.nan), "TIFF"), "x")


def test_a_white_is_zero_picture_of_16_bits_is_not_inverted():
    values = np.array([[0, 65535]], dtype=np.uint16)
    data = saved(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert decode_image(data, "x")[0, :, 0].tolist() == [255, 0]


def test_colours_of_another_profile_are_brought_to_srgb():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = decode_image(saved(gradient(), "PNG"), "x")
    assert np.array_equal(decode_image(saved(gradient(), "PNG", icc_profile=srgb), "x"), plain)
    for useless in (lab.tobytes(), b"damaged"):  # of another space, or damaged: passed over, as viewers do
        assert np.array_equal(decode_image(saved(gradient(), "PNG", icc_profile=useless), "x"), plain)
    # With its description spoilt, the same profile counts as another one, and the conversion changes next to nothing.
    renamed = srgb.replace(b"s\0R\0G\0B", b"x\0R\0G\0B").replace(b"sRGB", b"xRGB")
    found = decode_image(saved(gradient(), "PNG", icc_profile=renamed), "x")
    assert np.abs(found.astype(int) - plain).max() <= 2


def test_a_cmyk_picture_becomes_rgb():
    found = decode_image(saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG"), "x")
    assert np.abs(found.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize(("suffix", "width_px"), [("PNG", 9000), ("JPEG2000", 4200)])
def test_a_picture_too_large_is_refused_before_it_is_decoded(suffix, width_px, monkeypatch):
    data = saved(Image.new("1", (width_px, 8)).convert("L"), suffix)
    monkeypatch.setattr(image_module, "MAX_IMAGE_PX", 70000)
    monkeypatch.setattr(image_module, "_OPENJPEG_PX", 30000)
    with pytest.raises(SampleProblem, match=rf"{width_px} x 8 px, more than \d+ pixels. Make it smaller or drop"):
        decode_image(data, "x")


def test_formats_that_start_a_program_are_not_read():
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(SampleProblem, match="cannot identify image file"):
        decode_image(data, "x")


def test_damage_that_pil_repairs_is_found_by_the_build():
    data = bytearray(image_bytes(64, 64, suffix="jpg"))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    decode_image(bytes(data), "x")
    with pytest.raises(SampleProblem, match=r"x: the image is damaged \(mjpeg: .*drop the sample"):
        check_picture(bytes(data), "x")


@pytest.mark.parametrize(
    ("mode", "suffix"), [("CMYK", "JPEG"), ("L", "JPEG"), ("P", "PNG"), ("LA", "PNG"), ("P", "GIF")]
)
def test_intact_pictures_pass_the_build(mode, suffix):
    check_picture(saved(Image.new(mode, (30, 20)), suffix), "x")
    check_picture(saved(gradient(), "TIFF"), "x")  # not looked at
