"""How an exported model ends its answers: at the chat format's `<|im_end|>`, whatever the base's files say.

A base that was not made for chats names another end or none, and transformers' `generate()` would never stop.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.errors import ConfigError
from vl3.models.stored import read_json
from vl3.models.vocabulary import Vocabulary

log = logging.getLogger("vl3.models")

GENERATION_FILE = "generation_config.json"
_MESSAGE_END, _END_OF_TEXT = "<|im_end|>", "<|endoftext|>"
_SAMPLING = {
    "temperature": (0.0, 1000.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 10**6),
    "repetition_penalty": (0.0, 1000.0),
    "max_new_tokens": (0, 10**9),
}
"""What a base's generation_config.json may decide, with bounds (above, at most). Everything else could keep an answer
from ending or end it early: other ends, forced and suppressed tokens, least lengths, strings to stop at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """The ids and tokens that end and pad a text."""

    end_id: int
    """`<|im_end|>`."""
    pad_id: int
    """`<|endoftext|>`, or the end itself in a vocabulary without it."""
    tokens: dict[str, str]
    """The same as settings of a tokenizer."""

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "Ending":
        """The ending in a vocabulary.

        Raises:
            ConfigError: it has no `<|im_end|>`.
        """
        end_id, pad_id = vocabulary.find(_MESSAGE_END), vocabulary.find(_END_OF_TEXT)
        if end_id is None:
            raise ConfigError(
                f"{vocabulary.path} has no {_MESSAGE_END}, with which every answer ends, so that `generate()` would "
                "never stop. Use the tokenizer that the weights were trained with."
            )
        pad = _MESSAGE_END if pad_id is None else _END_OF_TEXT
        return cls(
            end_id=end_id,
            pad_id=end_id if pad_id is None else pad_id,
            tokens={"eos_token": _MESSAGE_END, "pad_token": pad},
        )

    def corrected_ids(self, carried: dict[str, Any]) -> dict[str, Any]:
        """The values that a decoder's config carries, with these ids in place of the base's."""
        ids = {"bos_token_id": self.pad_id, "eos_token_id": self.end_id, "pad_token_id": self.pad_id}
        return {key: ids.get(key, value) for key, value in carried.items()}

    def generation_config(self, source: Path) -> dict[str, Any]:
        """The content of generation_config.json: this ending, and how the base chooses tokens."""
        base = _base_settings(source / GENERATION_FILE)
        ends = base.get("eos_token_id")
        also_ends_at_pad = self.pad_id != self.end_id and isinstance(ends, list) and self.pad_id in ends
        kept = {key: base[key] for key, bounds in _SAMPLING.items() if _is_within(base.get(key), bounds)}
        if isinstance(base.get("do_sample"), bool):
            kept["do_sample"] = base["do_sample"]
        return {
            "bos_token_id": self.pad_id,
            "eos_token_id": [self.end_id, self.pad_id] if also_ends_at_pad else self.end_id,
            "pad_token_id": self.pad_id,
            **kept,
        }


def _base_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return read_json(path)
    except ConfigError as error:  # nothing in it is needed
        log.warning("%s; the export gets settings of its own", error)
        return {}


def _is_within(value: Any, bounds: tuple[float, float]) -> bool:
    """Whether a value is a number of the bounds' own type above the first and at most the second."""
    above, at_most = bounds
    kinds = (int,) if isinstance(above, int) else (int, float)
    return (
        isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value) and above < value <= at_most
    )
