"""Samples that are handed to training."""

import json

from vl3.curation.handover import image_name, with_texts


def test_texts_follow_the_caption_in_the_papers_form() -> None:
    texts = [
        {"text": "GO", "box": [300, 10, 400, 50], "score": 1},
        {"text": "STOP", "box": [10, 20, 300, 90], "score": 1},
    ]
    facts = {"width": 640, "height": 480, "texts": texts}
    assert with_texts("A street", json.dumps(facts), "a.jpg") == (
        "A street. The texts in this image are STOP<box>[[16,42,469,188]]</box>, GO<box>[[469,21,625,104]]</box>."
    )


def test_a_picture_without_texts_keeps_its_caption() -> None:
    assert with_texts("A street", json.dumps({"width": 1, "height": 1, "texts": []}), "a.jpg") == "A street"


def test_an_image_is_named_by_its_digest_and_first_bytes() -> None:
    assert image_name("ab" * 32, b"\xff\xd8\xff\xe0") == f"images/ab/{'ab' * 32}.jpg"
    assert image_name("ab" * 32, b"<svg onload=x>") == f"images/ab/{'ab' * 32}.img"
