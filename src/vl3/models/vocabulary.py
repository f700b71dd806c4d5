"""A folder's tokenizer.json as data: the ids of tokens, and the tokens that VideoLLaMA3 adds."""

from pathlib import Path
from typing import Any

from vl3.errors import ConfigError
from vl3.models.stored import read_json

TOKENIZER_FILE = "tokenizer.json"
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
"""What the chat format needs and every Qwen2 tokenizer has."""
_RESTORE = "Restore the file from the model's source."
IMAGE_TOKEN = "<image>"
METHOD_TOKENS = (IMAGE_TOKEN, "<|stream_start|>", "<|stream_end|>")
"""What VideoLLaMA3 adds to a Qwen2.5 tokenizer, in this order."""
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
"""Placeholders of images and videos in transformers' layout; Qwen2.5 tokenizers have both."""


class Vocabulary:
    """Ids of a tokenizer.json. Special tokens can be added and get the ids that the tokenizers library would give."""

    def __init__(self, folder: Path) -> None:
        """Read tokenizer.json.

        Raises:
            ConfigError: the file is missing or has no vocabulary.
        """
        self.path = folder / TOKENIZER_FILE
        self.data = read_json(self.path)
        model = self.data.get("model")
        words = model.get("vocab") if isinstance(model, dict) else None
        if isinstance(words, list):  # Unigram: pairs of piece and score
            try:
                words = {piece: index for index, (piece, _) in enumerate(words)}
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{self.path}: model.vocab is no list of pieces ({error}). {_RESTORE}") from error
        if not isinstance(words, dict) or not words:
            raise ConfigError(f"{self.path} has no model.vocab. Use the tokenizer of a Qwen2 model.")
        added = self.data.setdefault("added_tokens", [])
        self._num_words = len(words)
        try:
            self._ids: dict[str, int] = words | {token["content"]: token["id"] for token in added}
        except (TypeError, KeyError) as error:
            raise ConfigError(f"{self.path}: added_tokens holds no tokens with ids ({error!r}). {_RESTORE}") from error
        for token, token_id in self._ids.items():
            if type(token_id) is not int or token_id < 0 or not isinstance(token, str):
                raise ConfigError(f"{self.path}: token {token!r:.80} has the id {token_id!r:.80}. {_RESTORE}")
        self.added: dict[str, int] = {}
        """Tokens that were added, with their ids."""

    @property
    def highest_id(self) -> int:
        """The largest id of any token."""
        return max(self._ids.values())

    def find(self, token: str) -> int | None:
        """Id of a token, or None."""
        return self._ids.get(token)

    def ensure(self, token: str) -> int:
        """Id of a token; a missing token is added as the next special token."""
        if token not in self._ids:
            token_id = max(self._num_words, self.highest_id + 1)
            self.data["added_tokens"].append({"id": token_id, "content": token, **_SPECIAL})
            self._ids[token] = self.added[token] = token_id
        return self._ids[token]

    def require_room(self, vocab_size: int) -> None:
        """Raise ConfigError unless the embedding, with `vocab_size` rows, has a row for every id."""
        if self.highest_id >= vocab_size:
            added = f" (with {', '.join(self.added)} added)" if self.added else ""
            raise ConfigError(
                f"{self.path}: the highest id is {self.highest_id}{added} but the embedding has {vocab_size} rows. "
                "Tokens beyond it would have no weights. Use the tokenizer that the weights were trained with."
            )

    def decoder_entries(self) -> dict[str, dict[str, Any]]:
        """The added tokens in the form of `added_tokens_decoder` in tokenizer_config.json."""
        return {str(token_id): {"content": token, **_SPECIAL} for token, token_id in self.added.items()}


_SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
