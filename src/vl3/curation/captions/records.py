"""Captions of pictures as samples in the project's annotation format, so that the corpus takes them as any dataset.

{"id": "syn7m-short-9f86d081884c", "source": "syn7m", "category": "scene_image", "image": "images/9f/9f86d0.jpg",
 "conversations": [{"from": "human", "value": "<image> Describe it."}, {"from": "gpt", "value": "A dog."}]}
"""

from typing import Any

from vl3.config.data import Category
from vl3.curation.captions.rules import CaptionStyle
from vl3.data.sample.records import IMAGE_TAG

QUESTIONS = {
    CaptionStyle.SHORT: "Describe the image briefly.",
    CaptionStyle.DETAILED: "Describe the image in detail.",
}
"""What a sample asks; not what the captioner was asked."""


def caption_line(image: str, sha256: str, caption: str, style: CaptionStyle, source: str) -> dict[str, Any]:
    """The sample of one caption.

    Args:
        image: path of the picture, relative to the data folder.
        sha256: its digest, from which the id is made.
        caption: the text.
        style: short or detailed.
        source: name of the dataset.
    """
    return {
        "id": f"{source}-{style}-{sha256[:24]}",
        "source": source,
        "category": Category.SCENE_IMAGE.value,
        "image": image,
        "conversations": [
            {"from": "human", "value": f"{IMAGE_TAG}\n{QUESTIONS[style]}"},
            {"from": "gpt", "value": caption},
        ],
    }
