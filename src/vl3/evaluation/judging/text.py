"""What a person reads out of an answer: its words, the letter of an option, yes or no, a number."""

import re
import unicodedata

_SPACES = re.compile(r"\s+")
_NUMBER = re.compile(r"[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")
_SAID = re.compile(
    r"(?:answer|option|choice)(?:\s+is|\s+would\s+be|\s+should\s+be)?\s*[:=]?\s*(?:option\s+)?\(?([A-Z])\)?(?![\w'])",
    re.IGNORECASE,
)
_YES = {"yes", "true", "correct", "yeah"}
_NO = {"no", "false", "incorrect", "not", "nope"}


def plain(text: str) -> str:
    """The words as they are compared: case folded, one space between them, no full stop or quotes around them.

    >>> plain(' "Yes." ')
    'yes'
    """
    folded = _SPACES.sub(" ", unicodedata.normalize("NFKC", text)).strip().casefold()
    return folded.strip("\"'`* ").rstrip(".!,;:").strip("\"'`* ")


def option_letter(text: str, options: int) -> str | None:
    """The letter of the option that an answer chooses, A being the first; None if it chooses none, or several.

    First what the answer says it is, then a letter at the start, then one in brackets, then one alone:

        "The answer is B, not (A)."   B
        "C. a dog"                    C
        "I would take (D)"            D
        "A dog and a cat"             none: an article is no letter

    Args:
        text: the answer.
        options: number of options; with 4, E is no letter.
    """
    allowed = {chr(ord("A") + number) for number in range(options)}
    stripped = text.strip().strip("*`\"' ")
    if len(stripped) == 1:
        return stripped.upper() if stripped.upper() in allowed else None
    # "The answer is a dog." has an article, "the answer is a." a letter.
    said = [
        match[1].upper()
        for match in _SAID.finditer(stripped)
        if match[1].upper() in allowed and (match[1].isupper() or not stripped[match.end() :].strip(".) "))
    ]
    if said:
        return said[-1]
    if len(set(re.findall(r"\(([A-Z])\)", stripped)) & allowed) > 1:
        return None
    start = re.match(r"\(?([A-Za-z])(?:\)|[.:,](?:\s|$)|$)", stripped)
    if start and start[1].upper() in allowed:
        return start[1].upper()
    for pattern in (r"\(([A-Z])\)", r"(?<![\w'])([A-Z])(?![\w'])[.:)]", r"(?<![\w'])([B-HJ-Z])(?![\w'])"):
        found = {letter for letter in re.findall(pattern, stripped) if letter in allowed}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def yes_or_no(text: str) -> str | None:
    """`yes` or `no` by the answer's first word that is one of the two; None if there is none.

    >>> yes_or_no("No, it is not.")
    'no'
    """
    for word in re.findall(r"[a-z]+", text.casefold()):
        if word in _YES:
            return "yes"
        if word in _NO:
            return "no"
    return None


def number(text: str) -> float | None:
    """The only number of an answer, or the last after `is` or `=`; None if there is none, or several.

    "1,250 kg" is 1250, "12 %" is 12, "a total of 3 + 4 = 7" is 7, "3 or 4" is none.
    """
    found = [match for match in _NUMBER.findall(text) if any(character.isdigit() for character in match)]
    values = [float(match.replace(",", "").replace("\u2212", "-")) for match in found]
    if len(values) == 1:
        return values[0]
    after = re.split(r"=|\bis\b", text)[-1]
    last = [match for match in _NUMBER.findall(after) if any(character.isdigit() for character in match)]
    if len(last) == 1 and after != text:
        return float(last[0].replace(",", "").replace("\u2212", "-"))
    return None


def anls(said: str, right: str) -> float:
    """1 - edit distance / longer length, and 0 where that is below one half (arXiv 1905.13648, sec. 4).

    "hallo" for "hello" is 1 - 1/5 = 0.8; "hat" for "hello" is 1 - 4/5 = 0.2, so 0.
    """
    longer = max(len(said), len(right))
    if not longer:
        return 1.0
    similarity = 1.0 - edit_distance(said, right) / longer
    return similarity if similarity >= 0.5 else 0.0


def edit_distance(first: str, second: str) -> int:
    """Fewest insertions, deletions and replacements of characters between two texts (Levenshtein)."""
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]
