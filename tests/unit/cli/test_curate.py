"""`vl3 curate captions` and `vl3 curate video`: from files of a folder and of an endpoint to annotation files."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.support.chat_server import chat_server
from vl3.cli.main import run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (40, 20), (200, 0, 0)).save(folder / "images" / "a.png")
    instances = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 20}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20]}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    (folder / "instances.json").write_text(json.dumps(instances))
    return folder


def test_captions_of_a_coco_file(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chat_server() as server:
        (tmp_path / "endpoint.yaml").write_text(f"url: {server.url}\nmodel: tiny\nversion: '1'\ntimeout_seconds: 300\n")
        status = run(
            ["curate", "captions", "--root", str(root), "--out", str(root / "annotations/train.jsonl"), "--endpoint",
             str(tmp_path / "endpoint.yaml"), "--work", str(tmp_path / "work"), "--source", "coco-recap", "--style",
             "detailed", "--coco", "instances.json", "--images", "images/"]
        )  # fmt: skip
    assert status == 0
    assert "\ndog [0,0,500,1000] 50.0%\n" in server.asked[0].text
    (line,) = (root / "annotations" / "train.jsonl").read_text().splitlines()
    assert json.loads(line)["image"] == "images/a.png"
    assert json.loads(line)["source"] == "coco-recap"
    shown = capsys.readouterr().out
    assert "picture and annotations" in shown
    assert "samples" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--style", "long"], "--style 'long' is unknown. Use one of short, detailed."),
        ([], "pictures are named in one way: set one of --pictures, --coco and --sa1b."),
        (["--pictures", "images/*.gif"], "has no file 'images/*.gif'"),
        (["--pictures", "images/*"], "endpoint.yaml cannot be read"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    status = run(
        ["curate", "captions", "--root", str(root), "--out", str(tmp_path / "train.jsonl"), "--endpoint",
         str(tmp_path / "endpoint.yaml"), "--work", str(tmp_path / "work"), "--source", "x", *options]
    )  # fmt: skip
    assert status == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "train.jsonl").exists()
