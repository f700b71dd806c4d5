"""A folder in which the documentation's commands run as a reader would run them."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from PIL import ImageFont

from tests.cli.conftest import ODD_RUN, REPOSITORY, corpus, local_chain, make_runner
from tests.support.samples import conversation, grey_frames, image_bytes, video_bytes

__all__ = ["corpus", "local_chain", "make_runner"]


@dataclass(frozen=True)
class Desk:
    """The folder, and the environment of its commands."""

    folder: Path
    environment: dict[str, str]


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory, local_chain: Path, corpus: Path) -> Desk:
    """A folder with a finished run, a few media, and data of one's own; runs of tiny are short in it."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(local_chain / ODD_RUN, folder / "runs" / "tiny", symlinks=True)
    shutil.copy(local_chain / ODD_RUN / ".." / "mlflow.db", folder / "runs")
    shutil.copytree(corpus, folder / "mine")
    for name in ("cat.jpg", "city.jpg", "plate.jpg"):
        (folder / name).write_bytes(image_bytes(56, 84, suffix="jpg"))
    write_sources(folder)
    (folder / "clip.mp4").write_bytes(video_bytes(grey_frames([0, 60, 120, 180] * 3)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VL3_", "MLFLOW_", "_MLFLOW_"))}
    search = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    short = str(REPOSITORY / "tests" / "support" / "short_tiny")
    path = os.pathsep.join(filter(None, [short, kept.get("PYTHONPATH")]))
    return Desk(folder, kept | {"PATH": search, "PYTHONPATH": path, "TERM": "dumb"})


def write_sources(folder: Path) -> None:
    """What the pages on derived and published data start from: texts in a picture, a corpus, raw samples, TextCaps."""
    texts = {"image": "a.jpg", "width": 84, "height": 56, "texts": [{"text": "STOP", "box": [1, 2, 30, 9]}]}
    raw = {"image": "a.jpg", "conversations": conversation("<image> What does the sign say?", "It says stop.")}
    caps = {"data": [{"image_id": "a", "caption_str": "A sign that says stop."}]}
    files = {
        "signs/facts.jsonl": json.dumps(texts | {"caption": "A street."}) + "\n",
        "corpus.txt": "One fox and two dogs crossed the street. " * 30 + "\n",
        "raw/annotations/train.jsonl": json.dumps(raw) + "\n",
        "downloads/textcaps/TextCaps_0.1_train.json": json.dumps(caps),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "downloads" / "textcaps" / "train_images").mkdir()
    (folder / "downloads" / "textcaps" / "train_images" / "a.jpg").write_bytes(image_bytes(56, 84, suffix="jpg"))
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert isinstance(font.path, BytesIO)
    (folder / "fonts").mkdir()
    (folder / "fonts" / "plain.ttf").write_bytes(font.path.getvalue())
