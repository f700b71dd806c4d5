"""Clear, readable text in images (the paper's Laion-OCR): PP-OCR by RapidOCR, whose models its package brings along."""

import json
from importlib.metadata import version
from typing import Any

import numpy as np

from vl3.curation.scorer import Batch, version_digest
from vl3.curation.scorers.clip import decoded_images
from vl3.curation.source import clean_text
from vl3.errors import ConfigError

_VERSION = 2
MAX_TEXTS = 200
"""Texts of an image that are kept: a page of small print has more, and is no picture of a scene."""


class OcrText:
    """How clear the text of an image is, how many texts there are, and what and where they are.

    `<name>_clear` is the mean confidence, weighted by characters; 0 without text. `<name>_characters` is their number.
    `<name>_texts` is JSON: {"width": 640, "height": 480, "texts": [{"text": "STOP", "box": [x0, y0, x1, y1], "score":
    0.98}]}, boxes in pixels.
    """

    inputs = ("bytes",)

    def __init__(self, name: str, min_confidence: float) -> None:
        """Make the scorer; the engine is made with the first batch.

        Args:
            name: its name, prefix of its columns.
            min_confidence: texts below it are not counted.

        Raises:
            ConfigError: RapidOCR is not installed.
        """
        self.name, self._min = name, min_confidence
        self.outputs = (f"{name}_clear", f"{name}_characters", f"{name}_texts")
        try:
            library = version("rapidocr")
        except ImportError as error:
            raise ConfigError("RapidOCR is not installed here. Install vl3[curation].") from error
        self.version = version_digest({"kind": "ocr", "code": _VERSION, "library": library, "min": min_confidence})
        self._engine: Any = None

    def __call__(self, batch: Batch) -> Batch:
        """See Scorer."""
        self._engine = self._engine or _make_engine()
        pixels, errors = decoded_images(batch)
        clear = np.full(len(pixels), np.nan, dtype=np.float32)
        characters = np.full(len(pixels), np.nan, dtype=np.float32)
        texts = np.full(len(pixels), None, dtype=object)
        for row, image_HWC in enumerate(pixels):
            if image_HWC is not None:
                found = self._read(image_HWC)
                weights = [len(one["text"]) for one in found]
                clear[row] = np.average([one["score"] for one in found], weights=weights) if found else 0.0
                characters[row] = sum(weights)
                height_px, width_px = image_HWC.shape[:2]
                facts = {"width": width_px, "height": height_px, "texts": found}
                texts[row] = json.dumps(facts, ensure_ascii=False)
        columns = dict(zip(self.outputs, (clear, characters, texts), strict=True))
        return {**columns, f"{self.name}_error": errors}

    def _read(self, image_HWC: np.ndarray) -> list[dict[str, Any]]:
        result = self._engine(np.ascontiguousarray(image_HWC[:, :, ::-1]))  # it takes BGR, as OpenCV does
        if result.txts is None:
            return []
        found = []
        for text, score, corners in zip(result.txts, result.scores, result.boxes, strict=True):
            text = clean_text(text)
            if text and score >= self._min:
                (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
                box = [round(float(one), 1) for one in (x0, y0, x1, y1)]
                found.append({"text": text, "box": box, "score": round(float(score), 4)})
        return found[:MAX_TEXTS]


def _make_engine() -> Any:
    import logging

    from rapidocr import RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.WARNING)
    return RapidOCR()
