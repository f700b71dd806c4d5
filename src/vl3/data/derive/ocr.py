"""Samples of pictures with texts: captions with boxes, the five OCR tasks, and the text of scenes and of documents."""

from collections.abc import Iterator
from random import Random

from vl3.data.catalogue.adapter import box_text, turns
from vl3.data.derive.facts import Line, PictureFacts, PlacedText
from vl3.data.derive.reading_order import document_lines, joined, scene_lines
from vl3.data.sample.problems import ProblemKind, SampleProblem

READ_DOCUMENT = "<image>\nRead the text of the document."


def ocr_caption(picture: PictureFacts) -> Iterator[Line]:
    """The caption with all texts and their boxes, in the words of the paper (sec. 3.2.2).

    `A street. The texts in this image are STOP<box>[[10,20,300,90]]</box>, GO<box>[[..]]</box>.`
    """
    question = "<image>\nDescribe the image, and give all texts in it with their boxes."
    yield _line(picture, "ocr_caption", question, caption_with_texts(picture))


def caption_with_texts(picture: PictureFacts) -> str:
    """The caption with all texts and their boxes.

    Raises:
        SampleProblem: there is no caption.
    """
    _require_caption(picture)
    return f"{_sentence(picture.caption)} {_all_texts(picture)}"


def scene_text(picture: PictureFacts) -> Iterator[Line]:
    """The caption, if there is one, and the texts from left to right and top to bottom (sec. 3.2.1, BLIP3-OCR)."""
    texts = joined(scene_lines(picture.texts), ", ")
    caption = f"{_sentence(picture.caption)} " if picture.caption else ""
    question = "<image>\nDescribe the image and read its text." if caption else "<image>\nRead the text in the image."
    yield _line(picture, "scene_text", question, f"{caption}{texts}")


def document_text(picture: PictureFacts) -> Iterator[Line]:
    """The text of a document in reading order, a line for each of its lines (sec. 3.2.1)."""
    text = joined(document_lines(picture.texts), "\n")
    yield {**_line(picture, "document_text", READ_DOCUMENT, text), "category": "document"}


def ocr_tasks(picture: PictureFacts, former: PictureFacts | None, random: Random) -> Iterator[Line]:
    """One sample of each of the five OCR tasks of the paper (sec. 3.2.3).

    Existence and the choice between two pictures need a text of another picture, which is that of the line before.
    Localisation and recognition ask for a text that stands in the picture once, as only it has one answer.
    """
    yield _line(picture, "ocr_all", "<image>\nRead all texts in the image and give their boxes.", _all_texts(picture))
    by_text: dict[str, list[PlacedText]] = {}
    for text in picture.texts:
        by_text.setdefault(text.text.casefold(), []).append(text)
    single = sorted(found[0] for found in by_text.values() if len(found) == 1)
    if single:
        target = random.choice(single)
        box = f"[{box_text(target.box, picture.width_px, picture.height_px)}]"
        where_is = f'<image>\nWhere is the text "{target.text}"? Answer in [[x0,y0,x1,y1]] format.'
        yield _line(picture, "ocr_localisation", where_is, box)
        yield _line(picture, "ocr_recognition", f"<image>\nWhich text is in the box {box}?", target.text)
    if former is not None:
        yield from _with_another(picture, former, random)


def _with_another(picture: PictureFacts, former: PictureFacts, random: Random) -> Iterator[Line]:
    """Existence, yes or no with equal chances, and the choice between two pictures, in either order."""
    here, there = ({text.text.casefold(): text.text for text in one.texts} for one in (picture, former))
    own = sorted(here[key] for key in here.keys() - there.keys() if not _is_within(key, there))
    foreign = sorted(there[key] for key in there.keys() - here.keys() if not _is_within(key, here))
    is_there = random.random() < 0.5
    if own and foreign:
        asked = random.choice(own if is_there else foreign)
        question = f'<image>\nIs the text "{asked}" in the image? Answer yes or no.'
        yield {**_line(picture, "ocr_existence", question, "Yes" if is_there else "No"), "chance": 0.5}
    if own and picture.image != former.image:
        images = [picture.image, former.image]
        place = random.randrange(2)
        question = f'<image>\n<image>\nWhich image contains the text "{random.choice(own)}"? Answer first or second.'
        line = _line(picture, "ocr_which_image", question, ("First", "Second")[place])
        yield {**line, "image": images[:: 1 if place == 0 else -1], "chance": 0.5}


def _is_within(key: str, texts: dict[str, str]) -> bool:
    """Whether a text is part of another one: `go` is in a picture that reads `GO HOME`."""
    return any(key in other for other in texts)


def _all_texts(picture: PictureFacts) -> str:
    texts = (
        f"{text.text}<box>[{box_text(text.box, picture.width_px, picture.height_px)}]</box>"
        for line in scene_lines(picture.texts)
        for text in line
    )
    return f"The texts in this image are {', '.join(texts)}."


def _require_caption(picture: PictureFacts) -> None:
    if not picture.caption:
        reason = "caption: there is none, so its sentence would be missing. Add it, or make scene-text."
        raise SampleProblem(ProblemKind.STRUCTURE, reason, picture.image)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "。")) else f"{text}."


def _line(picture: PictureFacts, source: str, question: str, answer: str) -> Line:
    return {
        "image": [picture.image],
        "category": "scene_text",
        "source": source,
        "conversations": turns(question, answer),
    }
