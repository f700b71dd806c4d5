"""What is in the key of the step that makes samples of videos, and of the one that captions images."""

import dataclasses
import json
from pathlib import Path

import pytest

from vl3.config.overrides import apply_overrides
from vl3.recipes.catalog import get_any_recipe
from vl3.steps import curate_images, curate_videos
from vl3.system.uris import file_uri
from vl3.workflow.step import StepRequest

ENDPOINT = {"url": "http://one:8000/v1", "model": "m", "version": "1"}


@pytest.fixture
def videos(request_of_tiny: StepRequest, tmp_path: Path) -> StepRequest:
    (tmp_path / "data" / "videos").mkdir(parents=True)
    (tmp_path / "data" / "videos" / "a.mp4").write_bytes(b"a")
    config = get_any_recipe("video_synthesis")
    return dataclasses.replace(request_of_tiny, config=config, data_uri=file_uri(tmp_path / "data"))


def with_(request: StepRequest, *overrides: str) -> StepRequest:
    return dataclasses.replace(request, config=apply_overrides(request.config, overrides))


@pytest.mark.parametrize(
    "override",
    [
        "videos.captioner.model=other",
        "videos.captioner.version=second",
        "videos.captioner.temperature=0.5",
        f"videos.asker={json.dumps(ENDPOINT)}",
        "videos.dataset=clips",
        "videos.pattern=videos/*.mp4",
        "videos.max_bad_fraction=0.5",
    ],
)
def test_samples_follow(override: str, videos: StepRequest) -> None:
    assert curate_videos.key_parts(with_(videos, override)) != curate_videos.key_parts(videos)


@pytest.mark.parametrize(
    "override",
    ["videos.captioner.url=http://two:1/v1", "videos.captioner.max_concurrent=3", "videos.workers=3", "seed=4"],
)
def test_samples_do_not_follow(override: str, videos: StepRequest) -> None:
    assert curate_videos.key_parts(with_(videos, override)) == curate_videos.key_parts(videos)


def test_samples_follow_the_data_and_a_recipe_without_videos_follows_nothing(videos: StepRequest) -> None:
    before = curate_videos.key_parts(videos)
    Path(videos.data_uri.removeprefix("file://"), "videos", "b.mp4").write_bytes(b"b")
    assert curate_videos.key_parts(videos) != before
    tiny = dataclasses.replace(videos, config=get_any_recipe("curate_tiny"))
    assert curate_videos.key_parts(tiny) == {}


def test_captions_of_images_follow_their_prompts_and_not_the_videos(videos: StepRequest, tmp_path: Path) -> None:
    captioned = dataclasses.replace(videos, config=get_any_recipe("vl3_syn7m"))
    before = curate_images.key_parts(captioned)
    rules = tmp_path / "rules.yaml"
    ours = Path(curate_images.DEFAULT_RULES).read_text(encoding="utf-8")
    rules.write_text(ours, encoding="utf-8")
    same = curate_images.key_parts(with_(captioned, f'scorers.short.settings={{"style":"short","rules":"{rules}"}}'))
    assert same == before
    rules.write_text(ours.replace("in one or two sentences", "in three sentences"), encoding="utf-8")
    assert ours != rules.read_text(encoding="utf-8")
    other = curate_images.key_parts(with_(captioned, f'scorers.short.settings={{"style":"short","rules":"{rules}"}}'))
    assert other != before
    moving = with_(captioned, f"videos={json.dumps({'captioner': ENDPOINT})}")
    assert curate_images.key_parts(moving) == before
