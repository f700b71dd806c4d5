"""The tokenizer of the tiny language base: the words of the generated world, with characters and bytes as fallback.

A word is the same single token at any position: in a sentence the token includes the space before it, and at the start
of a line the normaliser adds that space (decoding removes it). Each digit is a token. All other text is split into
characters and bytes, so that no text is unknown.
"""

import json
import re
import string
from pathlib import Path

from vl3.toy.canvas import CELL_NAMES, SHAPES, WORDS
from vl3.toy.world import COLOUR_NAMES, DIRECTIONS, LETTERS

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<image>",
    "<|stream_start|>",
    "<|stream_end|>",
)
FIXED_STRINGS = ("Time ", ".0s:", ".0")
"""Strings of the chat format, each of which is one token."""
ROLES = ("user", "assistant", "system", "stream")
PHRASES = (
    "What colour is the shape object at in image bar it Describe Read the number line Which holds tallest shows "
    "First letter of Last Repeat way does move moves Say when changes When seen s bars and differs"
)
SPACE = "\u2581"  # the visible space of SentencePiece
VOCABULARY_MULTIPLE = 32


def world_words() -> list[str]:
    """Every word of the generated world once, in a fixed order."""
    words = [*CELL_NAMES, *COLOUR_NAMES, *SHAPES, *WORDS, *DIRECTIONS, *LETTERS, *re.findall(r"[A-Za-z]+", PHRASES)]
    return [word for word in dict.fromkeys(words) if word.isalpha()]


def build_tokenizer(folder: Path) -> int:
    """Write tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer loads.

    Returns:
        The number of embeddings that a model needs, rounded up to a multiple of VOCABULARY_MULTIPLE.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    characters = [*string.digits, "\n", *(c for c in string.printable if c.isprintable() and c not in string.digits)]
    pieces = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    pieces += [(character, -10.0) for character in [SPACE, *(c for c in characters if c != " ")]]
    pieces += [(SPACE + word, -5.0) for word in world_words()] + [(role, -5.0) for role in ROLES]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    # A role comes directly after <|im_start|>; any other word at the start of a line gets a space.
    tokenizer.normalizer = normalizers.Replace(Regex(r"\n(?=[A-Za-z])"), "\n ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", behavior="isolated"),
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=True),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("\n ", "\n")]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in FIXED_STRINGS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    return -(-size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
