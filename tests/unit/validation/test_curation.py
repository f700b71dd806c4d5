"""Great Expectations over a curation: what passes, and what is refused with its reason."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.curation import small_recipe
from vl3.config.curation import VideoSynthesis
from vl3.config.endpoint import EndpointConfig
from vl3.errors import DataError
from vl3.report.curation import score_histogram, write_curation_report
from vl3.validation.curation import validate_curation

NO_VIDEOS = {"dataset": "", "videos": 0, "samples": 0, "funnel": {}, "failures": [], "examples": []}


@pytest.fixture
def no_videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "videos.json").write_text(json.dumps(NO_VIDEOS))
    return folder


def write(folder: Path, **changes: list) -> Path:
    """A curation of four images, of which two are kept."""
    columns = {
        "where": ["a", "b", "c", "d"],
        "status": ["kept", "kept", "dropped", "failed"],
        "step": ["", "", "light", "facts"],
        "rule": ["", "", ">= 100", "no picture"],
        "aspect_ratio": [1.0, 1.5, 1.0, None],
        "brightness": [120.0, 130.0, 50.0, None],
    } | changes
    (folder / "decisions").mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "decisions" / "lines-000000.parquet")
    steps = [("read", 4, 4), ("shape", 4, 3), ("light", 3, 2)]
    funnel = [
        {
            "step": name,
            "column": "c",
            "rule": "r",
            "source": "s",
            "came": came,
            "left": left,
            "dropped": came - left,
            "failed": 0,
        }
        for name, came, left in steps
    ]
    facts = {
        "recipe": "small",
        "images": 4,
        "kept": 2,
        "funnel": funnel,
        "failures": [],
        "scorers": {"facts": "0123456789abcdef"},
        "examples": {},
        "histograms": {},
    }
    facts["histograms"] = {"light": {"column": "brightness", "edges": [0, 1, 2], "counts": [1, 3], "thresholds": [1]}}
    shown = {"part": "p", "key": "k", "where": "<b>a</b>", "value": "", "rule": "", "captions": {"short": "a <cat>"}}
    facts["examples"] = {"kept": [shown]}
    (folder / "curation.json").write_text(json.dumps(facts))
    (folder / "pictures.json").write_text(
        json.dumps({"thumbs": {"p": {"k": "data:image/jpeg;base64,AAAA"}}, "clusters": {}})
    )
    (folder / "datasets.json").write_text(json.dumps({"short": 1}))
    (folder / "short" / "annotations").mkdir(parents=True)
    (folder / "short" / "image.png").write_bytes(b"x")
    line = {"image": ["image.png"], "conversations": [{"value": "?"}, {"value": "a caption"}]}
    (folder / "short" / "annotations" / "train.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def test_a_curation_that_adds_up_passes_and_has_a_page(tmp_path: Path, no_videos: Path) -> None:
    curation, out = write(tmp_path / "curation"), tmp_path / "validation"
    out.mkdir()
    result = validate_curation(curation, no_videos, small_recipe(), out)
    result.require_passed()
    assert result.facts == {"expectations": 6, "lines": 4, "kept": 2, "dropped": 1, "failed": 1}
    assert (out / "data_docs" / "index.html").is_file()
    page = write_curation_report(
        curation, no_videos, out / "validation.json", tmp_path, name="one", data="d", corpus="file:///c/corpus.yaml"
    ).read_text()
    assert "2 of 4 images" in re.sub("</?data[^>]*>", "", page)
    assert "&lt;b&gt;a&lt;/b&gt;" in page
    assert "file:///c/corpus.yaml" in page
    assert "a &lt;cat&gt;" in page
    assert "0123456789abcdef" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"brightness": [120.0, 99.0, 50.0, None]}, "kept_fit_light.*b: brightness=99"),
        ({"rule": ["", "", "", "no picture"]}, "every_end_has_its_reason.*c: unexplained=no step or no threshold"),
        ({"status": ["kept", "kept", "dropped", "lost"]}, "every_image_ends"),
        ({"status": ["kept", "dropped", "dropped", "failed"]}, "funnel_adds_up.*kept: .*2 are left, and 1 are kept"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes: dict, message: str, tmp_path: Path, no_videos: Path) -> None:
    (tmp_path / "out").mkdir()
    result = validate_curation(write(tmp_path / "curation", **changes), no_videos, small_recipe(), tmp_path / "out")
    with pytest.raises(DataError, match=f"(?s){message}"):
        result.require_passed()


def test_a_sample_without_its_image_is_refused(tmp_path: Path, no_videos: Path) -> None:
    curation = write(tmp_path / "curation")
    (curation / "short" / "image.png").unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"(?s)samples_are_whole.*short:1: .*image\.png is missing"):
        validate_curation(curation, no_videos, small_recipe(), tmp_path / "out").require_passed()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "videos/gone.mp4"}, r"the video videos/gone\.mp4 is missing"),
        ({"start": 3.0}, r"the clip of videos/a\.mp4 ends before it starts"),
        ({"answer": " "}, "a caption, question or answer is empty"),
    ],
)
def test_a_clip_that_is_not_whole_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    given = {"path": "videos/a.mp4", "start": 1.0, "answer": "It falls."} | changes
    folder = tmp_path / "made" / "video_synthesis"
    (folder / "annotations").mkdir(parents=True)
    (folder / "videos").mkdir()
    (folder / "videos" / "a.mp4").write_bytes(b"x")
    medium = {"path": given["path"], "start": given["start"], "end": 2.0}
    line = {"video": medium, "conversations": [{"value": "<video>\nWhat happens?"}, {"value": given["answer"]}]}
    (folder / "annotations" / "train.jsonl").write_text(json.dumps(line) + "\n")
    endpoint = EndpointConfig(url="http://localhost:1/v1", model="m", version="1")
    recipe = small_recipe(videos=VideoSynthesis(captioner=endpoint))
    (tmp_path / "out").mkdir()
    result = validate_curation(write(tmp_path / "curation"), tmp_path / "made", recipe, tmp_path / "out")
    with pytest.raises(DataError, match=f"(?s)samples_are_whole.*video_synthesis:1: .*{message}"):
        result.require_passed()


def test_a_histogram_shows_its_threshold() -> None:
    svg = score_histogram([0, 1, 2], [1, 3], [1.5], title="brightness", description="3 of 4")
    assert svg.count('class="bar"') == 2
    assert "stroke-dasharray" in svg
    assert ">1.5<" in svg
    assert score_histogram([0, 1], [0], [], title="none", description="none") == ""
