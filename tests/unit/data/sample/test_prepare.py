"""One sample from bytes to tokens, labels and patches."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.support.failing_pruners import keep_all
from tests.support.samples import conversation, grey_frames, image_bytes, video_bytes
from tests.unit.data.conftest import DATA_CONFIG
from vl3.config.data import DiffFPScale
from vl3.config.picture import Fit, FixedPicture
from vl3.conventions import IGNORED_LABEL
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.image import decode_image, resize_image
from vl3.data.sample.patches import patchify
from vl3.data.sample.prepare import PreparedSample, PrepareSettings, prepare_sample
from vl3.data.sample.problems import ProblemKind, SampleProblem
from vl3.data.sample.records import Record, parse_record
from vl3.errors import ConfigError


def record_of(data: dict) -> Record:
    return parse_record(json.dumps(data), where="train.jsonl:1", split="train")


@pytest.fixture
def settings(config) -> PrepareSettings:
    return PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=False, data=config)


@pytest.fixture
def prepare(tokenizer, settings):
    def run(annotation: dict, media: dict[str, bytes], prune=keep_all, **changes) -> PreparedSample:
        return prepare_sample(record_of(annotation), media, tokenizer, dataclasses.replace(settings, **changes), prune)

    return run


VIDEO = {"video": ["v.mp4"], "conversations": conversation("<video>\nWhat?", "It stays.")}


def still_then_changing() -> bytes:
    """Four seconds: two alike, then two others."""
    return video_bytes([frame for frame in grey_frames([50, 50, 120, 200]) for _ in range(4)], fps=4)


def png(pixels_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def gif(levels: list[int], *, seconds_each: float) -> bytes:
    first, *rest = [Image.fromarray(frame) for frame in grey_frames(levels)]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=int(1000 * seconds_each))
    return buffer.getvalue()


def test_images_are_resized_and_cut(prepare, tokenizer):
    media = {"a.png": image_bytes(60, 90, seed=1), "b.jpg": image_bytes(30, 20, seed=2, suffix="jpg")}
    sample = prepare({"image": list(media), "conversations": conversation("<image><image> Which?", "A.")}, media)
    assert sample.grid_thw_I3.tolist() == [[1, 4, 6], [1, 3, 2]]
    assert sample.merge_sizes_I.tolist() == [1, 1]
    assert sample.pixels_PC.shape == (24 + 6, 588)
    assert sample.keep_M.all()
    assert len(sample.keep_M) == 30
    assert (sample.input_ids_T == tokenizer.image_id).sum() == 30
    first = resize_image(decode_image(media["a.png"], "x"), 56, 84)
    assert np.array_equal(sample.pixels_PC[:24], patchify(first[None], 1)[0])


def test_merge_2_halves_each_side(prepare):
    media = {"a.png": image_bytes(112, 112)}
    data = {"image": ["a.png"], "conversations": conversation("<image> What?", "A.")}
    one, two = prepare(data, media), prepare(data, media, image_merge_size=2)
    assert (len(one.keep_M), len(two.keep_M)) == (64, 16)
    assert one.grid_thw_I3.tolist() == two.grid_thw_I3.tolist() == [[1, 8, 8]]
    assert not np.array_equal(one.pixels_PC, two.pixels_PC)


def test_a_video_is_one_item_of_many_frames(prepare, tokenizer):
    sample = prepare(VIDEO, {"v.mp4": still_then_changing()})
    assert sample.grid_thw_I3.tolist() == [[4, 4, 4]]
    assert sample.merge_sizes_I.tolist() == [2]
    assert len(sample.keep_M) == 16
    text = tokenizer.decode(sample.input_ids_T, skip_special=False)
    assert "Time 0.0s:<image><image><image><image>,Time 1.0s:" in text


def test_difffp_drops_tokens_of_unchanged_frames_only(prepare, tokenizer):
    media = {"v.mp4": still_then_changing()}
    full, pruned = prepare(VIDEO, media), prepare(VIDEO, media, keep_mask, difffp=True)
    # Frame 1 equals frame 0 and keeps the minimum of one token.
    assert pruned.keep_M.reshape(4, 4).sum(axis=1).tolist() == [4, 1, 4, 4]
    assert len(full.input_ids_T) - len(pruned.input_ids_T) == 3
    assert np.array_equal(full.pixels_PC, pruned.pixels_PC)
    other = lambda sample: sample.input_ids_T[sample.input_ids_T != tokenizer.image_id]  # noqa: E731
    assert np.array_equal(other(full), other(pruned))
    assert pruned.input_ids_T[pruned.answer_start] == full.input_ids_T[full.answer_start]


def test_pruned_before_the_encoder_only_the_pixels_of_kept_tokens_remain(prepare, config):
    media = {"v.mp4": still_then_changing()}
    after = prepare(VIDEO, media, keep_mask, difffp=True)
    early = dataclasses.replace(config, prune_before_encoder=True)
    before = prepare(VIDEO, media, keep_mask, difffp=True, data=early)
    assert np.array_equal(before.input_ids_T, after.input_ids_T)
    assert np.array_equal(before.keep_M, after.keep_M)
    tokens = after.pixels_PC.reshape(16, 4, 588)  # the four patches of a token lie together
    assert np.array_equal(before.pixels_PC, tokens[after.keep_M].reshape(-1, 588))
    full = prepare(VIDEO, media, data=early)
    assert np.array_equal(full.pixels_PC, after.pixels_PC)


def test_the_scale_of_the_threshold_is_passed_on(prepare, config):
    """Frames 2 and 3 are 70 and 80 grey levels brighter, 1.2 and 1.4 of the scale's units."""
    media = {"v.mp4": still_then_changing()}
    kept = []
    for threshold in (0.1, 5.0):
        data = dataclasses.replace(config, difffp_scale=DiffFPScale.RLT, difffp_threshold=threshold)
        kept.append(int(prepare(VIDEO, media, keep_mask, difffp=True, data=data).keep_M.sum()))
    assert kept == [13, 7]


def test_images_and_single_frames_are_never_pruned(prepare):
    def forbidden(*_, **__):
        raise AssertionError("DiffFP ran on a single picture")

    data = {"image": ["a.png"], "conversations": conversation("<image> What?", "A.")}
    assert prepare(data, {"a.png": image_bytes(56, 56)}, forbidden, difffp=True).keep_M.all()
    short = video_bytes(grey_frames([90, 90]), fps=4)
    assert prepare(VIDEO, {"v.mp4": short}, forbidden, difffp=True).grid_thw_I3.tolist() == [[1, 4, 4]]


def test_an_image_and_a_one_frame_video_agree(prepare, config):
    pixels = image_bytes(56, 56)
    frame = decode_image(pixels, "x")
    image = prepare({"image": ["a"], "conversations": conversation("<image> What?", "A.")}, {"a": pixels})
    assert np.array_equal(image.pixels_PC, patchify(frame[None], 1)[0])
    video = prepare(VIDEO, {"v.mp4": video_bytes([frame])}, video_merge_size=1)
    assert video.grid_thw_I3.tolist() == image.grid_thw_I3.tolist()


def test_text_alone_has_no_pixels_and_is_supervised(prepare, tokenizer):
    sample = prepare({"conversations": conversation("Write 42.", "42.")}, {})
    assert sample.pixels_PC.shape == (0, 588)
    assert sample.grid_thw_I3.shape == (0, 3)
    assert sample.keep_M.shape == (0,)
    answer = sample.input_ids_T[sample.labels_T != IGNORED_LABEL]
    assert tokenizer.decode(answer, skip_special=False).strip() == "42.<|im_end|>"


def test_a_stream_ends_with_its_last_message(prepare, tokenizer):
    data = {
        "stream": True,
        "video": ["v.mp4"],
        "start_time": 1.0,
        "end_time": 4.0,
        "conversation": [{"role": "assistant", "content": "It turns.", "time": 2.5}],
    }
    sample = prepare(data, {"v.mp4": still_then_changing()})
    assert sample.grid_thw_I3.tolist() == [[2, 4, 4]]
    text = tokenizer.decode(sample.input_ids_T, skip_special=False).replace("<image>", "")
    assert text.count("Time") == 2
    assert "Time 0.0s:" in text
    assert "Time 1.0s:" in text


def test_a_long_video_is_spread_and_fits_the_budget(prepare, config):
    data = dataclasses.replace(config, max_frames=6, visual_budget_tokens=30)
    frames = video_bytes(grey_frames(list(range(40, 240, 10)), side_px=112), fps=1)
    sample = prepare(VIDEO, {"v.mp4": frames}, data=data)
    assert sample.grid_thw_I3.tolist() == [[6, 4, 4]]
    assert len(sample.keep_M) == 24


MIXED = {"image": ["a.png"], "video": ["v.mp4"], "conversations": conversation("<video> or <image>\nWhich?", "A.")}


def test_image_and_video_together_are_in_the_order_of_their_tags(prepare, tokenizer):
    media = {"a.png": image_bytes(56, 56), "v.mp4": still_then_changing()}
    # 16 + 4 * 4 tokens fit: sizes are rounded only.
    sample = prepare(MIXED, media)
    assert sample.grid_thw_I3.tolist() == [[4, 4, 4], [1, 4, 4]]
    assert sample.merge_sizes_I.tolist() == [2, 1]
    first = resize_image(decode_image(media["a.png"], "x"), 56, 56)
    assert np.array_equal(sample.pixels_PC[64:], patchify(first[None], 1)[0])
    text = tokenizer.decode(sample.input_ids_T, skip_special=False)
    assert "Time 3.0s:<image><image><image><image>\nor<image><image>" in text


def test_image_and_video_together_share_one_scale(prepare):
    media = {"a.png": image_bytes(112, 112), "v.mp4": video_bytes(grey_frames([50] * 16, side_px=112))}
    # 8 * 8 + 4 * 4 * 4 = 128 tokens, twice the budget: sides shrink by sqrt(2), 79 px, which is 70 and 56.
    sample = prepare(MIXED, media, data=dataclasses.replace(DATA_CONFIG, visual_budget_tokens=64))
    assert sample.grid_thw_I3.tolist() == [[4, 4, 4], [1, 5, 5]]
    assert len(sample.keep_M) == 16 + 25


def test_clips_of_one_file_have_their_own_times(prepare, tokenizer):
    parts = [{"path": "v.mp4", "end": 2}, {"path": "v.mp4", "start": 2.0, "end": 4}]
    data = {"video": parts, "conversations": conversation("<video> or <video>?", "A.")}
    sample = prepare(data, {"v.mp4": still_then_changing()})
    assert sample.grid_thw_I3.tolist() == [[2, 4, 4], [2, 4, 4]]
    four = "<image>" * 4
    text = tokenizer.decode(sample.input_ids_T, skip_special=False)
    assert f"Time 0.0s:{four},Time 1.0s:{four}\nor Time 2.0s:{four},Time 3.0s:{four}\n" in text.replace(
        "orTime", "or Time"
    )
    levels = [int(item.mean()) for item in np.split(sample.pixels_PC, 4)]
    assert np.allclose(levels, [50, 50, 120, 200], atol=3)


def test_pictures_at_a_rate_are_a_clip(prepare, tokenizer):
    """Eight pictures at 2 per second, of which the last of each second is taken."""
    levels = [10, 20, 30, 40, 50, 60, 70, 80]
    media = {f"f/{n}.png": png(frame) for n, frame in enumerate(grey_frames(levels), start=1)}
    whole = {"video": {"frames": list(media), "fps": 2.0}, "conversations": conversation("<video> What?", "A.")}
    sample = prepare(whole, media)
    assert sample.grid_thw_I3.tolist() == [[4, 4, 4]]
    assert sample.merge_sizes_I.tolist() == [2]
    assert [int(item.mean()) for item in np.split(sample.pixels_PC, 4)] == [20, 40, 60, 80]
    part = {**whole, "video": {"frames": list(media), "fps": 2.0, "start": 1.0, "end": 3.0}}
    sample = prepare(part, media)
    assert [int(item.mean()) for item in np.split(sample.pixels_PC, 2)] == [40, 60]
    assert "Time 1.0s:" in tokenizer.decode(sample.input_ids_T, skip_special=False)


def test_pictures_of_two_sizes_are_no_clip(prepare):
    media = {"1.png": image_bytes(56, 56), "2.png": image_bytes(56, 84)}
    data = {"video": {"frames": list(media), "fps": 1}, "conversations": conversation("<video> What?", "A.")}
    with pytest.raises(SampleProblem, match=r"2\.png: the frame has 84x56 px, the first one 56x56\. Give all"):
        prepare(data, media)
    data["video"]["start"] = 9
    with pytest.raises(SampleProblem, match=r"the 2 pictures, 2\.00 s, have none between 9 s and the end"):
        prepare(data, media)


def test_an_animated_gif_is_a_clip_and_a_picture(prepare):
    media = {"a.gif": gif([40, 160, 240], seconds_each=1.0)}
    clip = prepare({"video": ["a.gif"], "conversations": conversation("<video> What?", "A.")}, media)
    assert [int(item.mean()) for item in np.split(clip.pixels_PC, 3)] == [40, 160, 240]
    picture = prepare({"image": ["a.gif"], "conversations": conversation("<image> What?", "A.")}, media)
    assert picture.grid_thw_I3.tolist() == [[1, 4, 4]]
    assert int(picture.pixels_PC.mean()) == 40


def test_a_sample_longer_than_a_row_is_refused(prepare, config):
    data = dataclasses.replace(config, max_length_tokens=40, visual_budget_tokens=30)
    with pytest.raises(SampleProblem, match=r"the sample has \d+ tokens, a row has 40 \(data.max_length") as caught:
        prepare({"conversations": conversation("word " * 60, "A.")}, {}, data=data)
    assert caught.value.kind is ProblemKind.TOO_LONG


def test_a_broken_file_is_named_with_its_line(prepare):
    with pytest.raises(SampleProblem, match=r"^train.jsonl:1: a.png: the image \(9 bytes\) cannot be decoded"):
        prepare({"image": ["a.png"], "conversations": conversation("<image> x", "y")}, {"a.png": b"no pixels"})


def test_a_picture_becomes_the_square_of_a_fixed_encoder(prepare):
    picture = FixedPicture(side_px=60, fit=Fit.STRETCH)
    annotation = {"image": ["i.png"], "conversations": conversation("<image>\nWhat?", "This.")}
    wide = np.arange(40 * 100 * 3, dtype=np.uint8).reshape(40, 100, 3)
    sample = prepare(annotation, {"i.png": png(wide)}, picture=picture)
    assert sample.grid_thw_I3.tolist() == [[1, 4, 4]]
    expected, _ = patchify(resize_image(wide, 60, 60)[None, :56, :56], 1)
    assert np.array_equal(sample.pixels_PC, expected)
    assert len(sample.keep_M) == 16


def test_frames_become_squares_too_if_they_can_be_merged(prepare):
    sample = prepare(VIDEO, {"v.mp4": still_then_changing()}, picture=FixedPicture(side_px=56, fit=Fit.CROP))
    assert sample.grid_thw_I3.tolist() == [[4, 4, 4]]
    assert len(sample.keep_M) == 4 * 4
    with pytest.raises(SampleProblem, match="an encoder of 70 px has 5 x 5 patches, which cannot be merged 2 x 2"):
        prepare(VIDEO, {"v.mp4": still_then_changing()}, picture=FixedPicture(side_px=70, fit=Fit.CROP))


def test_difffp_needs_pictures_of_any_size(settings):
    with pytest.raises(ConfigError, match="difffp=true with an encoder of fixed resolution"):
        dataclasses.replace(settings, difffp=True, picture=FixedPicture(side_px=56, fit=Fit.CROP))
