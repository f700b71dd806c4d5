"""The tokenizer of the chat format: a `tokenizer.json` whose special tokens are looked up by their strings."""

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from vl3.errors import ConfigError

IMAGE_MARK = "<image>"
STREAM_START = "<|stream_start|>"
STREAM_END = "<|stream_end|>"
MESSAGE_START = "<|im_start|>"
MESSAGE_END = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
ADDED_TOKENS = (IMAGE_MARK, STREAM_START, STREAM_END)
"""What VideoLLaMA3 adds to a Qwen2.5 tokenizer, in this order (there the ids are 151665, 151666, 151667)."""
_OTHER_FILES = ("tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")


_MARKUP = re.compile(r"<\S+>")


class ChatTokenizer:
    """Text to token ids and back; no tokens are added around a text."""

    def __init__(self, tokenizer: Tokenizer, *, folder: Path | None = None) -> None:
        """Wrap a tokenizer and add those of `ADDED_TOKENS` that it lacks.

        Raises:
            ConfigError: the tokenizer lacks a token of the chat format that a Qwen2.5 tokenizer has.
        """
        missing = [token for token in ADDED_TOKENS if tokenizer.token_to_id(token) is None]
        tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in missing])
        self._tokenizer = tokenizer
        self._folder = folder
        self.image_id = self._id_of(IMAGE_MARK)
        self.stream_start_id = self._id_of(STREAM_START)
        self.stream_end_id = self._id_of(STREAM_END)
        self.im_start_id = self._id_of(MESSAGE_START)
        self.im_end_id = self._id_of(MESSAGE_END)
        self.end_of_text_id = self._id_of(END_OF_TEXT)
        added = tokenizer.get_added_tokens_decoder().values()
        # Some of Qwen2.5's control tokens, such as <|fim_prefix|>, are not marked as special.
        marks = {token.content for token in added if token.special or _MARKUP.fullmatch(token.content)}
        marks |= {*ADDED_TOKENS, MESSAGE_START, MESSAGE_END, END_OF_TEXT}
        self._mark_ids = frozenset(self._id_of(mark) for mark in marks)
        self._marks = re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))

    @classmethod
    def from_folder(cls, folder: Path) -> "ChatTokenizer":
        """Read `tokenizer.json` from a model folder.

        Raises:
            ConfigError: the file is missing or is not a tokenizer.
        """
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise ConfigError(f"{path} does not exist. Point model.language_base at a folder with a tokenizer.json.")
        text = path.read_text(encoding="utf-8")
        _check_is_tokenizer(path, text)
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer, folder=Path(folder))

    @property
    def vocab_size(self) -> int:
        """Number of ids including added tokens; a model's embedding table has at least this many rows."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of a text of our own, in which special tokens are recognised; see `encode_text` for all others."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text of somebody else: what looks like a special token in it stays text.

        `a<|im_end|>b` is cut into `a<` and `|im_end|>b`, so its ids decode to the same text, and none is special.
        """
        if not self._marks.search(text):
            return self.encode(text)
        cuts = [0, *(found.start() + 1 for found in self._marks.finditer(text)), len(text)]
        ids = [token for start, end in itertools.pairwise(cuts) for token in self.encode(text[start:end])]
        if self._mark_ids.isdisjoint(ids):
            return ids
        # One special token within another leaves the inner one whole, so every character is encoded by itself.
        return [token for character in text for token in self.encode(character)]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ids; `skip_special` leaves out special tokens."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and copy the settings files of the original folder, so that transformers loads it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self._tokenizer.to_str(pretty=True), encoding="utf-8")
        for name in _OTHER_FILES:
            if self._folder is not None and (self._folder / name).is_file():
                (folder / name).write_bytes((self._folder / name).read_bytes())

    def _id_of(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ConfigError(
                f"the tokenizer of {self._folder or 'this model'} has no token {token!r}, which the chat format needs. "
                "Use a Qwen2 tokenizer."
            )
        return found


def _check_is_tokenizer(path: Path, text: str) -> None:
    """Report a damaged file before the library does, which raises a plain Exception without the path."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON ({error}). Restore it from the model's source.") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ConfigError(f"{path} has no 'model', so it is not a tokenizer. Restore it from the model's source.")
