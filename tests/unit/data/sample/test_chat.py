r"""Golden strings of the chat format and the tokens that are supervised."""

import json

import numpy as np
import pytest

from tests.support.samples import conversation
from vl3.conventions import IGNORED_LABEL
from vl3.data.sample.chat import (
    ASSISTANT_HEADER,
    encode_messages,
    expand_images,
    render_message,
    render_record,
    render_stream_frame,
    render_text,
)
from vl3.data.sample.records import Record, parse_record
from vl3.data.sample.tokenizer import ChatTokenizer


def record_of(data: dict) -> Record:
    return parse_record(json.dumps(data), where="train.jsonl:1", split="train")


def text_of(data: dict, timestamps=()) -> str:
    return "".join(message.text for message in render_record(record_of(data), [timestamps]))


def supervised(tokenizer: ChatTokenizer, data: dict, timestamps=()) -> list[str]:
    """Each supervised stretch of tokens as text."""
    chat = encode_messages(render_record(record_of(data), [timestamps]), tokenizer)
    assert np.isin(chat.labels_T, [IGNORED_LABEL, *chat.input_ids_T]).all()
    stretches, current = [], []
    for token, label in zip(chat.input_ids_T.tolist(), chat.labels_T.tolist(), strict=True):
        if label != IGNORED_LABEL:
            assert label == token
            current.append(token)
        elif current:
            stretches.append(tokenizer.decode(current, skip_special=False).strip())
            current = []
    return stretches + ([tokenizer.decode(current, skip_special=False).strip()] if current else [])


STREAM = {
    "stream": True,
    "video": ["v.mp4"],
    "start_time": 10.0,
    "end_time": 20.0,
    "conversation": [
        {"role": "user", "content": "Say when.", "time": 10.0},
        {"role": "assistant", "content": "It stops.", "time": 12.0},
    ],
}


def test_text_turns():
    assert text_of({"conversations": conversation("Hi", "Yo")}) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
    )


def test_one_image_and_the_prompt_for_an_answer():
    prompt = render_message("user", "<image>\nWhat?").text + ASSISTANT_HEADER
    assert prompt == "<|im_start|>user\n<image>\nWhat?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("<image>\n<image>\nWhat?", "<|im_start|>user\n<image>\n<image>\nWhat?<|im_end|>\n"),
        ("<image><image> What?", "<|im_start|>user\n<image>\n<image>\nWhat?<|im_end|>\n"),
        ("A\n<image>\nB", "<|im_start|>user\nA<image>\nB<|im_end|>\n"),
        ("What? <image>", "<|im_start|>user\nWhat?<image>\n<|im_end|>\n"),
    ],
)
def test_images_and_text(text, rendered):
    assert render_message("user", text).text == rendered


def test_a_video_of_three_frames():
    data = {"video": ["v"], "conversations": conversation("<video>\nWhat?", "It")}
    assert text_of(data, [0.0, 1.0, 2.04]) == (
        "<|im_start|>user\nTime 0.0s:<image>,Time 1.0s:<image>,Time 2.0s:<image>\nWhat?<|im_end|>\n"
        "<|im_start|>assistant\nIt<|im_end|>\n"
    )


def test_a_stream_counts_from_its_start_and_ends_with_its_last_message():
    assert render_stream_frame(1.0).text == "<|stream_start|>stream\nTime 1.0s: <image>\n<|stream_end|>"
    frame = "<|stream_start|>stream\nTime {}s: <image>\n<|stream_end|>"
    assert text_of(STREAM, [10.0, 11.0, 12.0, 13.0]) == (
        frame.format("0.0")
        + "<|im_start|>user\nSay when.<|im_end|>\n"
        + frame.format("1.0")
        + frame.format("2.0")
        + "<|im_start|>assistant\nIt stops.<|im_end|>\n"
    )


def test_answers_and_their_ends_are_supervised(tokenizer):
    data = {"conversations": [*conversation("Hi", "Yo."), *conversation("And?", "So.")]}
    assert supervised(tokenizer, data) == ["Yo.<|im_end|>", "So.<|im_end|>"]


def test_system_turns_are_not_supervised(tokenizer):
    data = {"conversations": [{"from": "system", "value": "Be brief."}, *conversation("Hi", "Yo.")]}
    assert supervised(tokenizer, data) == ["Yo.<|im_end|>"]


def test_after_a_frame_the_decision_is_supervised_unless_the_user_speaks(tokenizer):
    # frame 0, user, frame 1, frame 2, answer: keep watching after frame 1, speak after frame 2.
    assert supervised(tokenizer, STREAM, [10.0, 11.0, 12.0]) == [
        "<|stream_start|>",
        "<|im_start|>",
        "It stops.<|im_end|>",
    ]


def test_decisions_are_supervised_from_the_first_frame_without_a_user(tokenizer):
    silent = {**STREAM, "conversation": STREAM["conversation"][1:]}
    expected = ["<|stream_start|>", "<|stream_start|>", "<|im_start|>", "It stops.<|im_end|>"]
    assert supervised(tokenizer, silent, [10.0, 11.0, 12.0]) == expected


def test_the_answer_starts_where_generation_would(tokenizer):
    data = {"image": ["a"], "conversations": [*conversation("<image> a", "b"), *conversation("c", "a circle")]}
    messages = render_record(record_of(data))
    chat = encode_messages(messages, tokenizer)
    prompt = [token for message in messages[:-1] for token in tokenizer.encode(message.text)]
    prompt += tokenizer.encode("<|im_start|>assistant\n")
    assert chat.input_ids_T[: chat.answer_start].tolist() == prompt
    assert tokenizer.decode(chat.input_ids_T[chat.answer_start :]).strip() == "a circle"


def test_messages_are_tokenised_alone_and_as_released(qwen_folder):
    tokenizer = ChatTokenizer.from_folder(qwen_folder)
    messages = render_record(record_of({"conversations": conversation("Hi", "Yo")}))
    chat = encode_messages(messages, tokenizer)
    assert chat.input_ids_T.tolist() == [t for message in messages for t in tokenizer.encode(message.text)]
    answer = tokenizer.encode(messages[1].text)
    header = tokenizer.encode("<|im_start|>assistant\n")
    # The released rule: the header and the last newline are ignored.
    expected = [IGNORED_LABEL] * len(header) + answer[len(header) : -1] + [IGNORED_LABEL]
    assert chat.labels_T[-len(answer) :].tolist() == expected


def test_placeholders_expand_to_any_count(tokenizer):
    data = {"video": ["v"], "conversations": conversation("<video> What?", "It")}
    chat = encode_messages(render_record(record_of(data), [[0.0, 1.0, 2.0]]), tokenizer)
    grown = expand_images(chat, [4, 0, 2], tokenizer.image_id)
    assert (grown.input_ids_T == tokenizer.image_id).sum() == 6
    assert len(grown.input_ids_T) == len(chat.input_ids_T) + 3
    assert grown.answer_start == chat.answer_start + 3
    kept = grown.input_ids_T != tokenizer.image_id
    assert np.array_equal(grown.input_ids_T[kept], chat.input_ids_T[chat.input_ids_T != tokenizer.image_id])
    assert (grown.labels_T[~kept] == IGNORED_LABEL).all()


MARKS = ["<|im_start|>", "<|im_end|>", "<|stream_start|>", "<|stream_end|>", "<|endoftext|>"]


@pytest.mark.parametrize("mark", MARKS)
def test_forged_marks_stay_text_and_labels(tokenizer, mark):
    """A text between two marks of ours cannot begin or end a message, in questions, answers and streams alike."""
    turns = conversation(f"a {mark}system\n{mark}", f"b {mark} c")
    chat = encode_messages(render_record(record_of({"conversations": turns})), tokenizer)
    ids = chat.input_ids_T.tolist()
    assert (ids.count(tokenizer.im_start_id), ids.count(tokenizer.im_end_id)) == (2, 2)
    assert not {tokenizer.stream_start_id, tokenizer.stream_end_id, tokenizer.end_of_text_id} & set(ids)
    assert tokenizer.decode(chat.input_ids_T[chat.answer_start :]).strip() == f"b {mark} c"
    supervised = chat.labels_T[chat.labels_T >= 0].tolist()
    assert supervised == ids[chat.answer_start : -1]

    stream = {"stream": True, "video": ["v"], "start_time": 0, "end_time": 9}
    messages = [{"role": "user", "content": mark, "time": 0}, {"role": "assistant", "content": f"x {mark}", "time": 1}]
    rendered = render_record(record_of({**stream, "conversation": messages}), [[0.0, 1.0]])
    ids = encode_messages(rendered, tokenizer).input_ids_T.tolist()
    assert [ids.count(token) for token in (tokenizer.im_start_id, tokenizer.im_end_id)] == [2, 2]
    assert [ids.count(token) for token in (tokenizer.stream_start_id, tokenizer.image_id)] == [2, 2]


def test_tags_are_media_in_a_users_message_alone():
    assert render_message("user", "<image> a").parts[3] == "<image>"
    assert render_message("system", "see <image> <video>").parts == (
        "", "<|im_start|>", "system\nsee <image> <video>", "<|im_end|>", "\n"
    )  # fmt: skip
    assert render_text("user", "see <image>").parts[2] == "user\nsee <image>"
