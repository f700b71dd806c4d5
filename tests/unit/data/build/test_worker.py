"""The worker of a build measures a sample: what it decodes, resizes and compares, and how often."""

import dataclasses

import numpy as np
import pytest

from tests.support.samples import conversation, grey_frames, image_bytes, video_bytes
from vl3.config.picture import FixedPicture
from vl3.data.build.index import IndexRow
from vl3.data.build.source import open_source
from vl3.data.build.work import Work
from vl3.data.build.worker import BuildSetup, measure_sample, new_row
from vl3.data.sample import decoded
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.image import sized_image
from vl3.data.sample.prepare import PrepareSettings, prepare_sample
from vl3.data.sample.records import read_annotations


@dataclasses.dataclass
class Calls:
    """Sizes (H, W) that frames were resized to, and of the clips that DiffFP compared, in order."""

    resized: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    compared: list[tuple[int, int]] = dataclasses.field(default_factory=list)


@pytest.fixture
def measure(data_folder, tokenizer, config, tmp_path, monkeypatch):
    """Measures the one sample of a folder, with a budget of 90 vision tokens.

    Checks its counts against what `prepare_sample` makes.
    """

    def run(**line) -> tuple[IndexRow, Calls]:
        files = {"a.png": image_bytes(100, 140), "v.mp4": video_bytes(grey_frames([10, 80, 160, 240]), fps=1)}
        folder = data_folder(train=[line], files=files)
        calls = Calls()

        def resize(image_HWC: np.ndarray, size: tuple[int, int], picture: FixedPicture | None) -> np.ndarray:
            calls.resized.append(size)
            return sized_image(image_HWC, size, picture)

        def prune(frames_FHWC: np.ndarray, **settings) -> np.ndarray:
            calls.compared.append(frames_FHWC.shape[1:3])
            return keep_mask(frames_FHWC, **settings)

        limits = dataclasses.replace(config, visual_budget_tokens=90)
        setup = BuildSetup(
            source_uri=folder.as_uri(),
            work=Work(tmp_path.as_uri()),
            config=limits,
            tokenizer=tokenizer,
            prune=prune,
        )
        (found,) = read_annotations(folder / "annotations" / "train.jsonl", "train")
        with open_source(setup.source_uri).opened(found) as (record, media):
            row = new_row(record)
            with monkeypatch.context() as patched:
                patched.setattr(decoded, "sized_image", resize)
                measure_sample(row, record, media, setup)
            for merge in (1, 2):
                settings = PrepareSettings(image_merge_size=merge, video_merge_size=2, difffp=True, data=limits)
                sample = prepare_sample(record, media, tokenizer, settings, keep_mask)
                image, video, kept = (getattr(row, f"{kind}_tokens_m{merge}") for kind in ("image", "video", "kept"))
                assert (len(sample.input_ids_T), len(sample.keep_M)) == (row.text_tokens + image + kept, image + video)
        return row, calls

    return run


def test_a_clip_is_resized_and_compared_once(measure):
    row, calls = measure(video=["v.mp4"], conversations=conversation("<video> What?", "A."))
    assert len(set(calls.resized)) == 1
    assert len(calls.resized) == 4
    assert calls.compared == calls.resized[:1]
    assert row.video_tokens_m1 == row.video_tokens_m2 > 0
    assert row.kept_tokens_m1 == row.kept_tokens_m2 > 0


def test_a_picture_is_counted_from_its_size(measure):
    row, calls = measure(image=["a.png"], conversations=conversation("<image> What?", "A."))
    assert calls == Calls()
    assert row.image_tokens_m1 > row.image_tokens_m2 > 0
    assert (row.video_tokens_m1, row.kept_tokens_m1, row.video_tokens_m2, row.kept_tokens_m2) == (0, 0, 0, 0)


def test_a_clip_beside_a_picture_is_measured_at_the_size_of_each_image_merge(measure):
    line = {"image": ["a.png"], "video": ["v.mp4"]}
    row, calls = measure(**line, conversations=conversation("<image> <video> What?", "A."))
    assert len(set(calls.compared)) == len(calls.compared) == 2
    assert len(calls.resized) == 8
    assert set(calls.resized) == set(calls.compared)
    assert row.image_tokens_m1 > row.image_tokens_m2
    assert row.kept_tokens_m1 < row.kept_tokens_m2
    assert row.video_tokens_m1 < row.video_tokens_m2


def test_a_text_has_no_vision_tokens(measure):
    row, calls = measure(conversations=conversation("Write 42.", "42."))
    assert calls == Calls()
    assert (row.image_tokens_m1, row.video_tokens_m1, row.kept_tokens_m2) == (0, 0, 0)
