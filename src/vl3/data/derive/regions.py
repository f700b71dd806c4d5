"""Samples of regions: a caption for each box, and captions of pictures whose phrases have boxes (paper sec. 3.2.2)."""

from collections.abc import Iterator

from vl3.data.catalogue.adapter import box_text, turns
from vl3.data.derive.facts import Box, Line, PhrasedPicture, PictureFacts
from vl3.data.derive.reading_order import scene_lines

REGIONS_A_SAMPLE = 8
"""Turns of a conversation about regions; more are further samples, which a row can be filled with more evenly."""


def region_captions(picture: PictureFacts) -> Iterator[Line]:
    """Conversations in which each region is asked for by its box and described, from top to bottom."""
    regions = [text for line in scene_lines(picture.texts) for text in line]
    for start in range(0, len(regions), REGIONS_A_SAMPLE):
        texts = []
        for region in regions[start : start + REGIONS_A_SAMPLE]:
            box = box_text(region.box, picture.width_px, picture.height_px)
            texts += [f"Describe the region [{box}].", region.text]
        texts[0] = f"<image>\n{texts[0]}"
        yield _line(picture.image, "region_caption", *texts)


def grounded_caption(picture: PhrasedPicture) -> Iterator[Line]:
    """The caption with each phrase that has boxes marked; of phrases that overlap the first and longest.

    `A man runs` with the phrase 0 to 5 gives `<ref>A man</ref>[[1,2,3,4]] runs`.
    """
    text, at = "", 0
    for phrase in sorted(picture.phrases, key=lambda phrase: (phrase.start, -phrase.end)):
        if phrase.start >= at:
            words = picture.caption[phrase.start : phrase.end]
            text += f"{picture.caption[at : phrase.start]}<ref>{words}</ref>[{_boxes(phrase.boxes, picture)}]"
            at = phrase.end
    question = "<image>\nDescribe the image and give the boxes of what you mention in [[x0,y0,x1,y1]] format."
    yield _line(picture.image, "grounded_caption", question, text + picture.caption[at:])


def _boxes(boxes: tuple[Box, ...], picture: PhrasedPicture) -> str:
    return ",".join(box_text(box, picture.width_px, picture.height_px) for box in boxes)


def _line(image: str, source: str, *texts: str) -> Line:
    return {"image": [image], "category": "fine_grained", "source": source, "conversations": turns(*texts)}
