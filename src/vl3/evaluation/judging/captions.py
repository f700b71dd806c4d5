"""CIDEr of descriptions, by pycocoevalcap: words that a reference has and others lack count most (arXiv 1411.5726)."""

import re
from collections.abc import Sequence

from vl3.errors import ConfigError

SCALE = 10.0
"""CIDEr multiplies by it; an item's score here is divided by it again, so that it is from 0 to 1."""


def cider_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """The CIDEr of each answer divided by 10; the words' weights come from all references together.

    Text is lower-cased and split at whatever is no letter or digit; the library's own tokenizer needs Java and
    differs in contractions alone.

    Args:
        answers: one description an item.
        references: the right descriptions of each item, at least one.

    Raises:
        ConfigError: pycocoevalcap is not installed, an item has no reference, or there are fewer than two items, whose
            words then have no weights.
    """
    if len(answers) != len(references) or len(answers) < 2 or not all(references):
        raise ConfigError(
            "CIDEr weighs words by how many of the items have them: it needs at least two items with a reference each, "
            f"and there are {len(answers)} answers with {len(references)} lists of references. Use kind caption_judge."
        )
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise ConfigError(
            "captions are judged by CIDEr, and pycocoevalcap is not installed. Install vl3's extra `eval`, or use kind "
            "caption_judge."
        ) from error
    said = {number: [_words(answer)] for number, answer in enumerate(answers)}
    right = {number: [_words(one) for one in several] for number, several in enumerate(references)}
    _, scores = Cider().compute_score(right, said)
    return [float(score) / SCALE for score in scores]


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
