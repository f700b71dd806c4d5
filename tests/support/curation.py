"""Small collections of images, and scorers without a model, for tests and benchmarks of curation."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from vl3.config.curation import CurationConfig, HandedDataset, ScorerConfig, SelectionStep
from vl3.curation.scorer import Scorer, version_digest
from vl3.curation.scorers.image_facts import ImageFacts


def photo(seed: int, width_px: int = 96, height_px: int = 80) -> np.ndarray:
    """A smooth random picture (H, W, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width_px, height_px), Image.Resampling.BICUBIC))


def file_of(pixels_HWC: np.ndarray, kind: str = "PNG", **options: int) -> bytes:
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, kind, **options)
    return file.getvalue()


def write_shard(path: Path, samples: list[tuple[str, bytes, str]]) -> None:
    """A tar shard as img2dataset writes it: name, file and text of each sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data, text in samples:
            stem = name.rpartition(".")[0]
            for member, content in ((name, data), (f"{stem}.txt", text.encode("utf-8", "surrogatepass"))):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def write_lines(folder: Path, samples: list[tuple[str, bytes, str]], split: str = "train") -> None:
    """A data folder with one image and one caption a line."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    lines = []
    for name, data, text in samples:
        (folder / "images" / name).write_bytes(data)
        turns = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": text or "nothing"}]
        line = {"id": f"{split}-{name}", "image": [f"images/{name}"], "category": "scene_image", "conversations": turns}
        lines.append(json.dumps(line))
    (folder / "annotations" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


class Brightness:
    """Mean grey of an image as a score, mean colours of its quarters as features; counts the images that it sees."""

    inputs = ("bytes",)
    outputs = ("brightness", "colours")

    def __init__(self, name: str = "brightness", version: str = "1") -> None:
        self.name, self.version, self.seen = name, version_digest({"v": version}), 0

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.seen += len(batch["sha256"])
        grey, colours, errors = [], [], np.full(len(batch["sha256"]), None, dtype=object)
        for row, data in enumerate(batch["bytes"]):
            try:
                pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((2, 2)), dtype=np.float32)
            except OSError as error:
                pixels, errors[row] = np.full((2, 2, 3), np.nan, dtype=np.float32), type(error).__name__
            grey.append(pixels.mean())
            colours.append(pixels.reshape(-1) / 255)
        return {
            "brightness": np.array(grey, dtype=np.float32),
            "colours": np.array(colours, dtype=np.float32),
            f"{self.name}_error": errors,
        }


def small_scorers() -> dict[str, Scorer]:
    """Image facts and brightness."""
    return {"facts": ImageFacts("facts", 1 << 20), "brightness": Brightness()}


def small_recipe(**changes: object) -> CurationConfig:
    """Shape, equal and similar images, brightness, clusters."""
    given: dict[str, object] = {
        "name": "small",
        "seed": 0,
        "scorers": {"facts": ScorerConfig(kind="image_facts"), "brightness": ScorerConfig(kind="image_facts")},
        "steps": {
            "shape": SelectionStep(kind="filter", column="aspect_ratio", minimum=0.5, maximum=2.0, source="ours: test"),
            "equal": SelectionStep(kind="exact_duplicates", source="ours: test"),
            "similar": SelectionStep(kind="near_duplicates", column="phash", max_distance=6, source="ours: test"),
            "light": SelectionStep(kind="filter", column="brightness", minimum=100, source="ours: test"),
            "spread": SelectionStep(
                kind="clusters", column="colours", num_clusters=3, per_cluster=4, source="ours: test"
            ),
        },
        "datasets": {"short": HandedDataset(caption="text")},
        "part_images": 128,
        "chunk_images": 8,
        "max_image_px": 1 << 20,
        "max_failed_fraction": 0.5,
    }
    return CurationConfig(**(given | changes))  # type: ignore[arg-type]
