"""Special tokens are found by their strings, in any tokenizer of the Qwen2.5 style."""

import json

import pytest
from tokenizers import Tokenizer

from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import ConfigError


def test_the_methods_tokens_are_added_in_order(qwen_folder):
    before = Tokenizer.from_file(str(qwen_folder / "tokenizer.json")).get_vocab_size()
    tokenizer = ChatTokenizer.from_folder(qwen_folder)
    added = (tokenizer.image_id, tokenizer.stream_start_id, tokenizer.stream_end_id)
    assert added == (before, before + 1, before + 2)
    assert tokenizer.vocab_size == before + 3
    assert (tokenizer.end_of_text_id, tokenizer.im_start_id, tokenizer.im_end_id) == (0, 1, 2)


def test_tokens_that_are_there_are_kept(tokenizer):
    again = ChatTokenizer(Tokenizer.from_str(tokenizer._tokenizer.to_str()))
    assert again.vocab_size == tokenizer.vocab_size
    assert again.image_id == tokenizer.image_id


@pytest.mark.parametrize("text", ["Grüße, 東京! 12 circles\n", "<|im_start|>user\n<image>\nWhat?<|im_end|>\n"])
def test_text_survives_and_special_tokens_are_one_id(qwen_folder, tokenizer, text):
    for each in (ChatTokenizer.from_folder(qwen_folder), tokenizer):
        ids = each.encode(text)
        assert each.decode(ids, skip_special=False).replace("\n ", "\n") == text
        assert ids.count(each.image_id) == text.count("<image>")
        assert ids.count(each.im_end_id) == text.count("<|im_end|>")


def test_nothing_is_put_around_the_text(qwen_folder):
    tokenizer = ChatTokenizer.from_folder(qwen_folder)
    assert tokenizer.encode("") == []
    assert tokenizer.encode("<image>") == [tokenizer.image_id]
    assert tokenizer.decode(tokenizer.encode("user<|im_end|>")) == "user"


def test_save_keeps_ids_and_settings(qwen_folder, tmp_path):
    (qwen_folder / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    tokenizer = ChatTokenizer.from_folder(qwen_folder)
    tokenizer.save(tmp_path / "out")
    again = ChatTokenizer.from_folder(tmp_path / "out")
    text = "Time 3.0s:<image>,<|stream_end|>"
    assert again.encode(text) == tokenizer.encode(text)
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()) == {"eos_token": "<|im_end|>"}


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"tokenizer\.json does not exist. Point model\.language_base"):
        ChatTokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(("text", "reason"), [("{broken", "is not JSON"), ('{"a": 1}', "has no 'model'")])
def test_a_damaged_tokenizer_is_refused(tmp_path, text, reason):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        ChatTokenizer.from_folder(tmp_path)


def test_a_tokenizer_of_another_family_is_refused(qwen_folder, tmp_path):
    data = json.loads((qwen_folder / "tokenizer.json").read_text())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != "<|im_end|>"]
    del data["model"]["vocab"]["<|im_end|>"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"has no token '<\|im_end\|>'.*Use a Qwen2 tokenizer"):
        ChatTokenizer.from_folder(tmp_path)


TRICKY = [
    "<|im_end|>",
    "<|im_<|im_end|>end|>",
    "a<image><image>b",
    "<|fim_prefix|> <|vision_start|><|image_pad|>",
    "<<|im_start|>|im_start|>",
    "no mark at all",
    "",
]


@pytest.mark.parametrize("text", TRICKY)
def test_text_of_others_gives_no_special_token(tokenizer, qwen_folder, text):
    plain = Tokenizer.from_file(str(qwen_folder / "tokenizer.json"))
    plain.add_special_tokens(["<|vision_start|>", "<|image_pad|>"])
    plain.add_tokens(["<|fim_prefix|>"])  # not marked as special in Qwen2.5's file
    for each, raw in ((tokenizer, None), (ChatTokenizer(plain), plain)):
        ids = each.encode_text(text)
        assert each.decode(ids, skip_special=False) == text
        special = {each.im_start_id, each.im_end_id, each.image_id, each.stream_start_id, each.end_of_text_id}
        special |= set(raw.get_added_tokens_decoder()) if raw else set()
        assert not special & set(ids)


def test_a_token_within_another_stays_text(qwen_folder):
    plain = Tokenizer.from_file(str(qwen_folder / "tokenizer.json"))
    plain.add_special_tokens(["<a<|im_end|>b>"])
    tokenizer = ChatTokenizer(plain)
    ids = tokenizer.encode_text("x<a<|im_end|>b>")
    assert tokenizer.im_end_id not in ids
    assert tokenizer.decode(ids) == "x<a<|im_end|>b>"
