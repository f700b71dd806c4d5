"""Filters, versions, and the interface itself."""

import math

import pytest

from vl3.curation.scorer import Filter, Scorer, version_digest
from vl3.curation.scorers.image_facts import ImageFacts
from vl3.errors import ConfigError


def test_a_filter_keeps_what_is_inside_and_never_the_unknown() -> None:
    judged = Filter(name="shape", column="aspect_ratio", minimum=0.5, maximum=2, source="test")
    assert [judged.keeps(value) for value in (0.5, 2, 0.49, 2.01, None, math.nan)] == [True, True, *[False] * 4]
    assert judged.rule == "0.5 to 2"


def test_a_filter_of_words() -> None:
    judged = Filter(name="kind", column="kind", allowed=("photo", "chart"), source="test")
    assert judged.keeps("photo")
    assert not judged.keeps("text")
    assert judged.rule == "one of photo, chart"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "would keep all, or judge twice"),
        ({"minimum": 1, "allowed": ("a",)}, "would keep all, or judge twice"),
        ({"minimum": 2, "maximum": 1}, "keeps nothing: minimum=2 exceeds maximum=1"),
    ],
)
def test_a_filter_that_contradicts_itself_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Filter(name="one", column="one", source="test", **given)


def test_a_version_hangs_on_settings_and_not_on_their_order() -> None:
    assert version_digest({"a": 1, "b": 2}) == version_digest({"b": 2, "a": 1})
    assert version_digest({"a": 1}) != version_digest({"a": 2})


def test_image_facts_are_a_scorer() -> None:
    assert isinstance(ImageFacts("facts", 1000), Scorer)
