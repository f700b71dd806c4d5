"""The tiny tokenizer: words of the world are one token wherever they stand, and nothing is unknown."""

import pytest

from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.toy.tokenizer import VOCABULARY_MULTIPLE, build_tokenizer, world_words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizer")


@pytest.fixture(scope="module")
def vocabulary_size(folder):
    return build_tokenizer(folder)


@pytest.fixture(scope="module")
def tokenizer(folder, vocabulary_size):
    return ChatTokenizer.from_folder(folder)


def test_a_word_is_the_same_token_at_the_start_of_a_line_and_within(tokenizer):
    for word in world_words():
        at_start = tokenizer.encode(f"assistant\n{word}")
        within = tokenizer.encode(f"assistant\nred {word}")
        assert len(at_start) == 3, word
        assert at_start[-1] == within[-1], word


def test_digits_stand_apart_and_times_are_short(tokenizer):
    assert len(tokenizer.encode("Time 3.0s:")) == 3
    assert len(tokenizer.encode("assistant\n47")) == 4
    assert len(tokenizer.encode("1.0-3.0 s")) == 6


def test_the_prompt_is_a_prefix_of_the_conversation(tokenizer):
    prompt = tokenizer.encode("<|im_start|>assistant\n")

    assert tokenizer.encode("<|im_start|>assistant\nred circle<|im_end|>\n")[: len(prompt)] == prompt


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\n<image>\nWhat colour is at [[050,568,442,932]]?<|im_end|>\n",
        "<|stream_start|>stream\nTime 0.0s: <image>\n<|stream_end|>",
        "na\u00efve \u65e5\u672c\u8a9e \U0001f642 tab\tand  two spaces",
        "user\nFirst letter of: d j k j?",
    ],
)
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text


def test_the_vocabulary_is_padded_for_the_embedding(tokenizer, vocabulary_size):
    assert vocabulary_size % VOCABULARY_MULTIPLE == 0
    assert tokenizer.vocab_size <= vocabulary_size


def test_transformers_reads_the_folder_alike(tokenizer, folder):
    from transformers import AutoTokenizer

    text = "<|im_start|>user\n<image>\nWhich bar is tallest?<|im_end|>\n"
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == tokenizer.encode(text)
