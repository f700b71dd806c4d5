"""Ids of a tokenizer.json, and what is added to it."""

import json

import pytest
from tokenizers import Tokenizer

from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import ConfigError
from vl3.models.vocabulary import METHOD_TOKENS, Vocabulary


def test_added_tokens_get_the_ids_that_the_library_gives_them(chat_tokenizer):
    vocabulary = Vocabulary(chat_tokenizer)
    assert [vocabulary.ensure(token) for token in METHOD_TOKENS] == [40, 41, 42]
    assert vocabulary.added == {"<|stream_start|>": 41, "<|stream_end|>": 42}
    ours = ChatTokenizer.from_folder(chat_tokenizer)
    assert (ours.image_id, ours.stream_start_id, ours.stream_end_id) == (40, 41, 42)
    written = Tokenizer.from_str(json.dumps(vocabulary.data))
    assert [written.token_to_id(token) for token in METHOD_TOKENS] == [40, 41, 42]
    assert written.encode("<|stream_end|>").ids == [42]


def test_ids_beyond_the_embedding_are_refused_with_the_numbers(chat_tokenizer):
    vocabulary = Vocabulary(chat_tokenizer)
    vocabulary.require_room(41)
    vocabulary.ensure("<|video_pad|>")
    with pytest.raises(
        ConfigError, match=r"tokenizer.json: the highest id is 41 \(with <\|video_pad\|> added\) .* has 41 rows"
    ):
        vocabulary.require_room(41)


def test_a_file_without_words_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    with pytest.raises(ConfigError, match=r"tokenizer.json has no model.vocab"):
        Vocabulary(tmp_path)
