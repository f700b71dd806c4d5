"""Exercises for the tiny decoder base: sequences of tokens, and which of them to predict.

Pictures are given as maps with one word per vision token, so that the decoder learns to look things up in them before
it sees any encoder feature. The encoder base learns the same words, so stage 1 only has to connect the two.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vl3.config.data import Category
from vl3.conventions import IGNORED_LABEL, PATCH_SIZE_PX
from vl3.data.sample.chat import encode_messages, expand_images, render_record
from vl3.data.sample.clips import Clip
from vl3.data.sample.records import Record, StreamEvent, Turn
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.toy.canvas import CELL_NAMES, COLOURS, DIGITS, SHAPES, WORDS, cells
from vl3.toy.tokenizer import world_words
from vl3.toy.world import DESCRIBE, Scene, ToyQuestion, draw_scene

LOOKUP_CATEGORIES = (
    Category.SCENE_IMAGE,
    Category.DOCUMENT,
    Category.CHART,
    Category.FINE_GRAINED,
    Category.MULTI_IMAGE,
)
"""The categories whose questions have cues."""
VIDEO_CATEGORIES = (Category.GENERAL_VIDEO, Category.STREAMING, Category.TEMPORAL_GROUNDING)


@dataclass(frozen=True, slots=True)
class Exercise:
    """One sequence; targets_T is the token itself where it must be predicted, else IGNORED_LABEL."""

    tokens_T: list[int]
    targets_T: list[int]


class ExerciseBook:
    """Draws exercises; each draw depends only on the random generator that is passed."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._cell_tokens = np.array([_word_token(tokenizer, name) for name in CELL_NAMES])
        self._word_tokens = [_word_token(tokenizer, word) for word in (*COLOURS, *SHAPES, *WORDS, *DIGITS)]
        self._distinct_tokens = [_word_token(tokenizer, word) for word in (*world_words(), *DIGITS)]
        self._start = tokenizer.encode("<|im_start|>")[0]
        self._newline = tokenizer.encode("\n")

    def draw(self, kind: str, rng: random.Random) -> Exercise:
        """Draw an exercise: `repeat`, `recall`, `lookup:<category>` or `chat:<category>`."""
        name, _, category = kind.partition(":")
        draw: dict[str, Callable[[], Exercise]] = {
            "repeat": lambda: self._repeat(rng),
            "recall": lambda: self._recall(rng),
            "lookup": lambda: self._lookup(Category(category), rng),
            "chat": lambda: self._chat(Category(category), rng),
        }
        return draw[name]()

    def _repeat(self, rng: random.Random) -> Exercise:
        """A long random sequence twice; the second time every token but the first can be predicted (induction).

        Tokens a b c: start a b c a b c, targets - - - - - b c.
        """
        tokens = rng.sample(self._distinct_tokens, rng.randrange(16, 33))
        return Exercise([self._start, *tokens, *tokens], [IGNORED_LABEL] * (len(tokens) + 2) + tokens[1:])

    def _recall(self, rng: random.Random) -> Exercise:
        """Pairs of words, then the first words again in another order; the word that belongs to each is the target.

        Pairs a x and b y: a x b y b y a x, targets - - - - - y - x.
        """
        keys = rng.sample(self._word_tokens, rng.randrange(4, 12))
        pairs = [(key, rng.choice(self._word_tokens)) for key in keys]
        tokens = [token for pair in pairs for token in pair]
        targets = [IGNORED_LABEL] * len(tokens)
        for key, value in rng.sample(pairs, len(pairs)):
            tokens += [key, value]
            targets += [IGNORED_LABEL, value]
        return Exercise(tokens, targets)

    def _lookup(self, category: Category, rng: random.Random) -> Exercise:
        """A map, then many cues, each followed by its answer: many look-ups in one sequence."""
        scene = draw_scene(category, rng, pixels=False)
        maps = self._maps(scene, merge_size=rng.choice((1, 1, 2)), prune=False)
        tokens = [self._start, *(token for item in maps for token in item), *self._newline]
        targets = [IGNORED_LABEL] * len(tokens)
        for _ in range(3):
            questions = [*scene.questions, *scene.extras]
            for question in rng.sample(questions, len(questions)):
                cue = self._tokenizer.encode(f"\n{question.cue}")[len(self._newline) :]
                answer = self._tokenizer.encode(f"\n{question.answer}")[len(self._newline) :]
                tokens += [*cue, *answer]
                targets += [*[IGNORED_LABEL] * len(cue), *answer]
        return Exercise(tokens, targets)

    def _chat(self, category: Category, rng: random.Random) -> Exercise:
        """A conversation as in training, with words of the map in place of vision tokens."""
        scene = draw_scene(category, rng, pixels=False)
        is_video = category in VIDEO_CATEGORIES
        merge_size = 2 if is_video else rng.choice((1, 1, 2))
        maps = self._maps(scene, merge_size=merge_size, prune=is_video and rng.random() < 0.6)
        seconds = [float(second) for second in range(len(scene.frames))]
        messages = render_record(_record(scene, rng), [seconds] if is_video else [])
        counts = [len(item) for item in maps]
        chat = expand_images(encode_messages(messages, self._tokenizer), counts, self._tokenizer.image_id)
        tokens_T = chat.input_ids_T.copy()
        tokens_T[tokens_T == self._tokenizer.image_id] = [token for item in maps for token in item]
        return Exercise(tokens_T.tolist(), chat.labels_T.tolist())

    def _maps(self, scene: Scene, *, merge_size: int, prune: bool) -> list[list[int]]:
        """The words of each picture; with `prune`, only those of cells that changed since the previous picture."""
        cell_px = PATCH_SIZE_PX * merge_size
        maps, before = [], None
        for frame in scene.frames:
            labels_HW = _on_grid(frame.labels_HW, cell_px)
            words = self._cell_tokens[cells(labels_HW, cell_px)]
            if prune and before is not None:
                words = words[_changed(before, labels_HW, cell_px)]
            maps.append(words.tolist())
            before = labels_HW
        return maps


def _word_token(tokenizer: ChatTokenizer, word: str) -> int:
    """The token of a word or digit at the start of a line."""
    return tokenizer.encode(f"\n{word}")[-1]


def _on_grid(labels_HW: np.ndarray, cell_px: int) -> np.ndarray:
    """The labels resized to whole cells, as the preprocessing does with pixels."""
    height, width = (max(1, round(side / cell_px)) * cell_px for side in labels_HW.shape)
    rows = np.arange(height) * labels_HW.shape[0] // height
    columns = np.arange(width) * labels_HW.shape[1] // width
    return labels_HW[rows][:, columns]


def _changed(before_HW: np.ndarray, after_HW: np.ndarray, cell_px: int) -> np.ndarray:
    """Which cells changed (DiffFP on labels); if none did, the first cell is kept."""
    rows, columns = after_HW.shape[0] // cell_px, after_HW.shape[1] // cell_px
    differs = (before_HW != after_HW).reshape(rows, cell_px, columns, cell_px).any((1, 3)).reshape(-1)
    differs[0] |= not differs.any()
    return differs


def _record(scene: Scene, rng: random.Random) -> Record:
    """The scene as an annotation: some questions, sometimes with the caption first."""
    questions = [*scene.questions, *scene.extras]
    questions = rng.sample(questions, min(5, len(questions)))
    if scene.caption and rng.random() < 0.4:
        questions = [ToyQuestion(DESCRIBE, scene.caption, 0.0), *questions[:3]]
    is_video = scene.category in VIDEO_CATEGORIES
    tag = "<video>\n" if is_video else "<image>\n" * len(scene.frames)
    turns: list[Turn] = []
    events: tuple[StreamEvent, ...] = ()
    if scene.category is Category.STREAMING:
        change = float(len(scene.frames) - 1)
        prompt, answer = scene.questions[0].prompt, scene.questions[0].answer
        events = (
            StreamEvent(role="user", text=prompt, time_seconds=0.0),
            StreamEvent(role="assistant", text=answer, time_seconds=change),
        )
    else:
        for index, question in enumerate(questions):
            turns.append(Turn(role="user", text=(tag if index == 0 else "") + question.prompt))
            turns.append(Turn(role="assistant", text=question.answer))
    return Record(
        sample_id="exercise",
        split="train",
        category=scene.category,
        source="qa",
        media=(Clip(path="video"),) if is_video else tuple(str(index) for index in range(len(scene.frames))),
        turns=tuple(turns),
        events=events,
        chance=None,
        where="exercise",
    )
