"""The generated world: a small version of each category of the paper's mixture tables whose answers can be checked.

A scene is a pure function of (category, random generator). Its questions have answers from a fixed set, so that the
probability of guessing right (`chance`) is defined.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from vl3.config.data import Category
from vl3.toy.canvas import BRIGHT, COLOURS, DIGITS, SHAPES, WORDS, Canvas, Frame

COLOUR_NAMES = tuple(COLOURS)
LETTERS = tuple("abcdefghijkl")
DIRECTIONS = ("left", "right", "up", "down")
DESCRIBE = "Describe."


@dataclass(frozen=True, slots=True)
class ToyQuestion:
    """A question and its only right answer."""

    prompt: str
    answer: str
    chance: float
    """Probability of guessing the answer from the allowed ones without looking."""
    cue: str = ""
    """The question in as few words as possible, for the look-up exercises of the decoder base."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What one sample shows and the questions about it."""

    category: Category
    frames: tuple[Frame, ...]
    """The images, or one picture per second of a video."""
    questions: tuple[ToyQuestion, ...]
    """Questions of the category's task, in random order; held-out samples ask only the first."""
    extras: tuple[ToyQuestion, ...] = ()
    """Easier questions, only for training."""
    caption: str = ""
    """The answer to `Describe.`; empty if the category has no captions."""


def draw_scene(category: Category, rng: random.Random, *, pixels: bool = True) -> Scene:
    """Draw one scene; with `pixels=False` only its map, with the same content, for the decoder base."""
    return _DRAW[category](rng, pixels)


def _side(rng: random.Random, nominal_px: int) -> int:
    """An even side (H.264 needs that) near the nominal length, so that media have many sizes."""
    return nominal_px + 2 * rng.randint(-2, 3)


def _colour_question(prompt: str, answer: str, cue: str) -> ToyQuestion:
    return ToyQuestion(prompt, answer, 1 / len(COLOURS), cue)


def _scene_image(rng: random.Random, pixels: bool) -> Scene:
    width, height = rng.choice(((56, 56), (84, 56), (56, 84)))
    canvas = Canvas(_side(rng, width), _side(rng, height), rng, paper=None, pixels=pixels)
    count = rng.choice((2, 3))
    places = rng.sample([(column, row) for column in range(2) for row in range(2)], count)
    objects = sorted(zip(places, rng.sample(COLOUR_NAMES, count), rng.sample(SHAPES, count), strict=True), key=_row)
    for (column, row), colour, shape in objects:
        x = canvas.width_px * (column + 0.5) / 2 + rng.uniform(-2, 2)
        y = canvas.height_px * (row + 0.5) / 2 + rng.uniform(-2, 2)
        canvas.shape(shape, colour, x, y, rng.uniform(10, 13))
    questions = [_colour_question(f"What colour is the {shape}?", colour, shape) for _, colour, shape in objects]
    questions += [
        ToyQuestion(f"What shape is the {colour} object?", shape, 1 / len(SHAPES), colour)
        for _, colour, shape in objects
    ]
    rng.shuffle(questions)
    caption = ", ".join(f"{colour} {shape}" for _, colour, shape in objects)
    return Scene(Category.SCENE_IMAGE, (canvas.frame(),), tuple(questions), caption=caption)


def _row(item: tuple[tuple[int, int], str, str]) -> tuple[int, int]:
    (column, row), _, _ = item
    return row, column


def _scene_text(rng: random.Random, pixels: bool) -> Scene:
    canvas = Canvas(_side(rng, 56), _side(rng, 56), rng, paper=None, pixels=pixels)
    number = [rng.choice(DIGITS) for _ in range(2)]
    size, colour = rng.choice((28, 30, 32)), rng.choice(BRIGHT)
    x, y = rng.uniform(2, 8), rng.uniform(-2, 18)
    for digit in number:
        x += canvas.text(digit, x, y, size, colour) + rng.uniform(1, 5)
    text = "".join(number)
    question = ToyQuestion("Read the number.", text, 0.01, "number")
    return Scene(Category.SCENE_TEXT, (canvas.frame(),), (question,), caption=f"the number {text}")


def _document(rng: random.Random, pixels: bool) -> Scene:
    lines = 4
    canvas = Canvas(_side(rng, 56), _side(rng, 28 * lines), rng, paper=245, pixels=pixels)
    words = rng.sample(WORDS, lines)
    pitch = canvas.height_px / lines
    for line, word in enumerate(words):
        canvas.text(word, 3 + rng.uniform(-2, 3), pitch * line + 3 + rng.uniform(-2, 2), 18, (20, 20, 30))
    asked = rng.sample(range(lines), lines)
    questions = [
        ToyQuestion(f"Read line {line + 1}.", words[line], 1 / len(WORDS), f"line {line + 1}") for line in asked
    ]
    extras = [
        ToyQuestion(f"Which line holds {words[line]}?", str(line + 1), 1 / lines, words[line]) for line in asked[:2]
    ]
    return Scene(Category.DOCUMENT, (canvas.frame(),), tuple(questions), tuple(extras), caption=" ".join(words))


def _chart(rng: random.Random, pixels: bool) -> Scene:
    bars = 3
    canvas = Canvas(_side(rng, 28 * bars), _side(rng, 84), rng, paper=235, pixels=pixels)
    colours, levels = rng.sample(COLOUR_NAMES, bars), rng.sample(range(1, 6), bars)
    pitch, height = canvas.width_px / bars, canvas.height_px
    for bar in range(bars):
        top = height - 14 * levels[bar] - rng.uniform(-1, 3)
        canvas.bar(colours[bar], pitch * bar + 4, top, pitch * bar + 23, height)
    tallest = colours[levels.index(max(levels))]
    questions = (_colour_question("Which bar is tallest?", tallest, "tallest"),)
    extras = tuple(
        _colour_question(f"What colour is bar {bar + 1}?", colours[bar], f"bar {bar + 1}")
        for bar in rng.sample(range(bars), 2)
    )
    caption = "bars " + " ".join(f"{colour} {level}" for colour, level in zip(colours, levels, strict=True))
    return Scene(Category.CHART, (canvas.frame(),), questions, extras, caption=caption)


def _fine_grained(rng: random.Random, pixels: bool) -> Scene:
    canvas = Canvas(_side(rng, 56), _side(rng, 56), rng, paper=None, pixels=pixels)
    colours, questions = rng.sample(COLOUR_NAMES, 4), []
    for colour, (column, row) in zip(colours, ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
        radius = rng.uniform(9, 12)
        x = canvas.width_px * (column + 0.5) / 2 + rng.uniform(-2, 2)
        y = canvas.height_px * (row + 0.5) / 2 + rng.uniform(-2, 2)
        canvas.shape(rng.choice(SHAPES), colour, x, y, radius)
        box = _box(canvas, x - radius, y - radius, x + radius, y + radius)
        questions.append(_colour_question(f"What colour is at {box}?", colour, box))
    rng.shuffle(questions)
    return Scene(Category.FINE_GRAINED, (canvas.frame(),), tuple(questions), caption=" ".join(colours))


def _box(canvas: Canvas, x0: float, y0: float, x1: float, y1: float) -> str:
    """A box `[[x0,y0,x1,y1]]` in thousandths of width and height, with three digits per number.

    On 56x84 px a box from (14, 21) to (42, 84) is `[[250,250,750,999]]`.
    """
    relative = (x0 / canvas.width_px, y0 / canvas.height_px, x1 / canvas.width_px, y1 / canvas.height_px)
    return "[[" + ",".join(f"{min(999, max(0, int(1000 * value))):03d}" for value in relative) + "]]"


def _multi_image(rng: random.Random, pixels: bool) -> Scene:
    count = rng.choice((2, 3, 4))
    colours, frames = rng.sample(COLOUR_NAMES, count), []
    for colour in colours:
        canvas = Canvas(_side(rng, 56), _side(rng, 56), rng, paper=None, pixels=pixels)
        canvas.shape(rng.choice(SHAPES), colour, 28 + rng.uniform(-7, 7), 28 + rng.uniform(-7, 7), rng.uniform(12, 17))
        frames.append(canvas.frame())
    asked = rng.sample(range(count), count)
    questions = tuple(
        _colour_question(f"What colour is in image {index + 1}?", colours[index], f"image {index + 1}")
        for index in asked
    )
    extras = tuple(
        ToyQuestion(f"Which image shows {colours[index]}?", str(index + 1), 1 / count, colours[index])
        for index in asked[:2]
    )
    return Scene(Category.MULTI_IMAGE, tuple(frames), questions, extras, caption=" ".join(colours))


def _text_only(rng: random.Random, _: bool) -> Scene:
    letters = [rng.choice(LETTERS) for _ in range(rng.choice((4, 5)))]
    text = " ".join(letters)
    questions = [
        ToyQuestion(f"First letter of: {text}?", letters[0], 1 / len(letters)),
        ToyQuestion(f"Last letter of: {text}?", letters[-1], 1 / len(letters)),
    ]
    rng.shuffle(questions)
    return Scene(Category.TEXT_ONLY, (), tuple(questions), (ToyQuestion(f"Repeat: {text}", text, 0.0),))


def _general_video(rng: random.Random, pixels: bool) -> Scene:
    frames_count, side = 4, _side(rng, 56)
    colour, shape, direction = rng.choice(COLOUR_NAMES), rng.choice(SHAPES), rng.choice(DIRECTIONS)
    speed, radius = rng.uniform(8, 10), rng.uniform(9, 12)
    start = (side - speed * (frames_count - 1)) / 2 + rng.uniform(-2, 2)
    lane = rng.choice((radius + 3, side - radius - 3)) + rng.uniform(-1, 1)
    background, frames = Canvas(side, side, rng, paper=None, pixels=pixels), []
    for second in range(frames_count):
        way = start + speed * second
        x, y = {"right": (way, lane), "left": (side - way, lane), "down": (lane, way), "up": (lane, side - way)}[
            direction
        ]
        canvas = background.copy()
        canvas.shape(shape, colour, x, y, radius)
        frames.append(canvas.frame())
    question = ToyQuestion("Which way does it move?", direction, 1 / len(DIRECTIONS))
    extras = (
        _colour_question("What colour is it?", colour, ""),
        ToyQuestion("What shape is it?", shape, 1 / len(SHAPES)),
    )
    caption = f"{colour} {shape} moves {direction}"
    return Scene(Category.GENERAL_VIDEO, tuple(frames), (question,), extras, caption=caption)


def _streaming(rng: random.Random, pixels: bool) -> Scene:
    """The colour changes at second 1 to 4; the answer is expected at that frame, which is the last of the scene."""
    before, after = rng.sample(COLOUR_NAMES, 2)
    shape, change = rng.choice(SHAPES), rng.randrange(1, 5)
    draw_at = _standing_object(rng, pixels)
    frames = tuple(draw_at(shape, after if second >= change else before) for second in range(change + 1))
    question = ToyQuestion("Say when the colour changes.", after, 1 / 4 / (len(COLOURS) - 1))
    return Scene(Category.STREAMING, frames, (question,))


def _temporal_grounding(rng: random.Random, pixels: bool) -> Scene:
    seconds = 6
    colour, shape = rng.choice(COLOUR_NAMES), rng.choice(SHAPES)
    first = rng.randrange(0, seconds - 1)
    last = rng.randrange(first + 1, seconds)
    draw_at = _standing_object(rng, pixels)
    frames = tuple(draw_at(shape, colour if first <= second <= last else None) for second in range(seconds))
    question = ToyQuestion(f"When is the {colour} {shape} seen?", f"{first}.0-{last}.0 s", 1 / 15)
    return Scene(Category.TEMPORAL_GROUNDING, frames, (question,))


def _standing_object(rng: random.Random, pixels: bool) -> Callable[[str, str | None], Frame]:
    """A function that draws an object at a fixed place, or the bare background for colour None."""
    background = Canvas(_side(rng, 56), _side(rng, 56), rng, paper=None, pixels=pixels)
    radius = rng.uniform(12, 18)
    x, y = background.width_px / 2 + rng.uniform(-8, 8), background.height_px / 2 + rng.uniform(-8, 8)

    def draw(shape: str, colour: str | None) -> Frame:
        canvas = background.copy()
        if colour is not None:
            canvas.shape(shape, colour, x, y, radius)
        return canvas.frame()

    return draw


_DRAW: dict[Category, Callable[[random.Random, bool], Scene]] = {
    Category.SCENE_IMAGE: _scene_image,
    Category.SCENE_TEXT: _scene_text,
    Category.DOCUMENT: _document,
    Category.CHART: _chart,
    Category.FINE_GRAINED: _fine_grained,
    Category.MULTI_IMAGE: _multi_image,
    Category.TEXT_ONLY: _text_only,
    Category.GENERAL_VIDEO: _general_video,
    Category.STREAMING: _streaming,
    Category.TEMPORAL_GROUNDING: _temporal_grounding,
}
