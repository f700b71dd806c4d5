r"""The chat format: exact strings of each message, and which tokens are supervised.

Each message is tokenised separately, and only what this module puts into it becomes special tokens: a text that
contains `<|im_end|>` keeps it as text. A message has one `<image>` for each image or frame; the caller repeats it once
for each token that the frame has (`expand_images`).

A question on an image, supervised tokens in brackets:

    <|im_start|>user\n<image>\nWhat?<|im_end|>\n<|im_start|>assistant\n[A cat.<|im_end|>]\n

Several turns, starting with a system turn. Only the assistant's text is supervised, with or without media:

    <|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Yo<|im_end|>]\n

A video has one `<image>` per frame, each after its time. Several images are on one line each:

    <|im_start|>user\nTime 0.0s:<image>,Time 1.0s:<image>\nWhat?<|im_end|>\n<|im_start|>assistant\n[Rain.<|im_end|>]\n
    <|im_start|>user\n<image>\n<image>\nWhich?<|im_end|>\n<|im_start|>assistant\n[The first.<|im_end|>]\n

Two clips, the second from 3 s on; each has the times of its own file, and a picture may stand between them:

    <|im_start|>user\nTime 0.0s:<image>,Time 1.0s:<image>\nand<image>\nor Time 3.0s:<image>\nWhich?<|im_end|>\n

In a stream, the first token of the message after each frame is supervised too: it is the model's decision to keep
watching or to speak. (A user's turn is not the model's decision, so it is not supervised.)

    <|stream_start|>stream\nTime 0.0s: <image>\n<|stream_end|>[<|stream_start|>]stream\nTime 1.0s: <image>\n
    <|stream_end|>[<|im_start|>]assistant\n[It stops.<|im_end|>]\n

Legend: F frames, T tokens.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vl3.conventions import IGNORED_LABEL
from vl3.data.sample.records import IMAGE_TAG, VIDEO_TAG, Record, StreamEvent
from vl3.data.sample.tokenizer import IMAGE_MARK, MESSAGE_END, MESSAGE_START, STREAM_END, STREAM_START, ChatTokenizer

STREAM_ROLE = "stream"
ASSISTANT_HEADER = f"{MESSAGE_START}assistant\n"
_TAGS = re.compile(f"({re.escape(IMAGE_TAG)}|{re.escape(VIDEO_TAG)})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    r"""One rendered message: its role, and its text in parts.

    Every second part, starting with the second, is a special token; the others are text, whatever they contain:

        ("", "<|im_start|>", "user\n", "<image>", "\nWhat?", "<|im_end|>", "\n")
    """

    role: str
    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        """The exact text of the message."""
        return "".join(self.parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedChat:
    """Tokens of a sample with one `<image>` token for each image or frame.

    `labels_T` is the token itself where it is supervised and -100 elsewhere (not shifted by one). `answer_start` is
    the index of the first token of the last answer's content.
    """

    input_ids_T: np.ndarray
    labels_T: np.ndarray
    answer_start: int


def render_record(record: Record, clip_times: Iterable[Sequence[float] | np.ndarray] = ()) -> list[Message]:
    r"""The messages of a sample; `clip_times` are the times of the frames of each clip, in seconds of its file.

    A question about three frames:

        <|im_start|>user\nTime 0.0s:<image>,Time 1.0s:<image>,Time 2.0s:<image>\nWhat?<|im_end|>\n
    """
    waiting = iter(clip_times)
    if record.is_stream:
        return list(_render_stream(record.events, next(waiting), record.start_seconds))
    return [render_message(turn.role, turn.text, waiting) for turn in record.turns]


def render_message(role: str, text: str, clip_times: Iterable[Sequence[float] | np.ndarray] = ()) -> Message:
    r"""One message. Text around tags is stripped; a newline comes after an image or the last frame, none before it.

    Only the user shows media: in any other message a tag is text. Of `clip_times` as many are taken as the text has
    `<video>` tags, so that an iterator goes on with the next message.

    >>> render_message("user", "A <image> B").text
    '<|im_start|>user\nA<image>\nB<|im_end|>\n'
    """
    if role != "user":
        return render_text(role, text)
    waiting = iter(clip_times)
    parts = ["", MESSAGE_START, f"{role}\n"]
    for chunk in _TAGS.split(text):
        before = _times(next(waiting)) if chunk == VIDEO_TAG else [""] if chunk == IMAGE_TAG else []
        for words in before:
            parts[-1] += words
            parts += [IMAGE_MARK, ""]
        parts[-1] += "\n" if chunk in (IMAGE_TAG, VIDEO_TAG) else chunk.strip()
    return Message(role=role, parts=(*parts, MESSAGE_END, "\n"))


def _times(timestamps_F: Sequence[float] | np.ndarray) -> list[str]:
    """What stands before each frame of a clip: 0 and 1 s give `Time 0.0s:` and `,Time 1.0s:`."""
    return [f"{',' if index else ''}Time {float(seconds):.1f}s:" for index, seconds in enumerate(timestamps_F)]


def render_text(role: str, text: str) -> Message:
    r"""One message without media, in which `<image>` is text.

    >>> render_text("user", " A <image> B").text
    '<|im_start|>user\nA <image> B<|im_end|>\n'
    """
    return Message(role=role, parts=("", MESSAGE_START, f"{role}\n{text.strip()}", MESSAGE_END, "\n"))


def _render_stream(
    events: Sequence[StreamEvent], timestamps_F: Sequence[float] | np.ndarray, start_seconds: float
) -> Iterator[Message]:
    """Messages and frames in order of time; frames after the last message are dropped.

    Frames at 0, 1, 2 and 3 s, messages at 1 and 2.5 s:

        frame 0s, frame 1s, message 1s, frame 2s, message 2.5s       (the frame at 3 s is dropped)
    """
    frame = 0
    for event in events:
        while frame < len(timestamps_F) and timestamps_F[frame] <= event.time_seconds:
            yield render_stream_frame(float(timestamps_F[frame]) - start_seconds)
            frame += 1
        yield render_text(event.role, event.text)


def render_stream_frame(seconds: float) -> Message:
    r"""One frame of a stream as its own message.

    >>> render_stream_frame(2.0).text
    '<|stream_start|>stream\nTime 2.0s: <image>\n<|stream_end|>'
    """
    words = f"{STREAM_ROLE}\nTime {seconds:.1f}s: "
    return Message(role=STREAM_ROLE, parts=("", STREAM_START, words, IMAGE_MARK, "\n", STREAM_END, ""))


def encode_messages(messages: Sequence[Message], tokenizer: ChatTokenizer) -> EncodedChat:
    r"""Tokenise each message separately and mark what is supervised (more examples in the module's docstring).

    Two messages, with a tokenizer for which each word is one token; a dash is the label -100:

        input_ids  <|im_start|> user \n Hi <|im_end|> \n <|im_start|> assistant \n Yo <|im_end|> \n
        labels          -        -   -  -      -      -       -           -     -  Yo <|im_end|> -
        answer_start is the index of Yo, 9
    """
    ids: list[int] = []
    labels: list[int] = []
    answer_start = 0
    for index, message in enumerate(messages):
        tokens = _encode_message(message, tokenizer)
        targets = [IGNORED_LABEL] * len(tokens)
        if message.role == "assistant":
            first, last = _answer_span(tokens, tokenizer)
            targets[first:last] = tokens[first:last]
            answer_start = len(ids) + first
        # A user's or system message after a frame is not the model's decision, so its first token is not supervised.
        if index and messages[index - 1].role == STREAM_ROLE and message.role in (STREAM_ROLE, "assistant"):
            targets[0] = tokens[0]
        ids += tokens
        labels += targets
    return EncodedChat(
        input_ids_T=np.array(ids, dtype=np.int64), labels_T=np.array(labels, dtype=np.int64), answer_start=answer_start
    )


def _encode_message(message: Message, tokenizer: ChatTokenizer) -> list[int]:
    ids: list[int] = []
    for index, part in enumerate(message.parts):
        ids += tokenizer.encode(part) if index % 2 else tokenizer.encode_text(part)
    return ids


def _answer_span(tokens: list[int], tokenizer: ChatTokenizer) -> tuple[int, int]:
    """Index of the first token of an assistant message's content, and the index after its last `<|im_end|>`."""
    header = len(tokenizer.encode(ASSISTANT_HEADER))
    end = len(tokens) - tokens[::-1].index(tokenizer.im_end_id)
    return header, end


def expand_images(chat: EncodedChat, counts_F: Sequence[int] | np.ndarray, image_id: int) -> EncodedChat:
    """Repeat each `<image>` token as often as its image or frame has tokens, which may be zero times after DiffFP.

    Tokens `a <image> b <image> c` with counts 3 and 0 become `a <image> <image> <image> b c`.

    Args:
        chat: tokens with one `<image>` for each image or frame.
        counts_F: tokens of each image or frame, in order.
        image_id: id of the `<image>` token.
    """
    repeats = np.ones(len(chat.input_ids_T), dtype=np.int64)
    repeats[chat.input_ids_T == image_id] = counts_F
    return EncodedChat(
        input_ids_T=np.repeat(chat.input_ids_T, repeats),
        labels_T=np.repeat(chat.labels_T, repeats),
        answer_start=int(repeats[: chat.answer_start].sum()),
    )
