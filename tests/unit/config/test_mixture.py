"""Keys and values of a mixture: what each names, and what is refused."""

import pytest

from vl3.config.data import Category
from vl3.config.mixture import Draw, MixtureKey, check_mixture, draw_of
from vl3.errors import ConfigError

SAMPLE = ("plotqa", "chart", "qa")


@pytest.mark.parametrize("key", ["chart", "chart:qa", "plotqa", "plotqa:chart", "plotqa:chart:qa"])
def test_a_key_names_the_samples_of_its_parts(key: str) -> None:
    assert MixtureKey.parse(key).names(*SAMPLE)


@pytest.mark.parametrize(
    "key", ["document", "chart:caption", "dvqa", "plotqa:document", "plotqa:chart:caption", "dvqa:chart"]
)
def test_a_key_names_nothing_else(key: str) -> None:
    assert not MixtureKey.parse(key).names(*SAMPLE)


def test_what_is_no_category_is_a_dataset() -> None:
    assert MixtureKey.parse("charts") == MixtureKey(dataset="charts", category=None, source=None)
    assert MixtureKey.parse("chart:qa") == MixtureKey(dataset=None, category=Category.CHART, source="qa")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "neither a category"),
        ("../etc", "neither a category"),
        ("a.b", "neither a category"),
        ("-x", "neither a category"),
        ("x" * 64, "neither a category"),
        ("plotqa:qa", "'qa' is no category either"),
        ("plotqa:", "'' is no category either"),
        ("chart:", r"not of the form \[DATASET:\]CATEGORY\[:SOURCE\]"),
        ("chart:qa:x", "not of the form"),
        ("plotqa:chart:qa:x", "not of the form"),
    ],
)
def test_a_key_that_names_nothing_is_refused(key: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_mixture({key: 1.0}, by_epochs=False)


@pytest.mark.parametrize(("values", "word"), [({}, "neither"), ({"amount": 1.0, "epochs": 1.0}, "both")])
def test_a_draw_has_an_amount_or_epochs(values: dict, word: str) -> None:
    with pytest.raises(ConfigError, match=f"stage.mixture has {word} of amount and epochs"):
        Draw(**values)


def test_a_number_is_an_amount() -> None:
    assert draw_of(3.0) == Draw(amount=3.0)
    assert draw_of(Draw(epochs=1.0)) == Draw(epochs=1.0)


def test_amounts_of_epochs_are_whole_samples() -> None:
    check_mixture({"chart": 1.5}, by_epochs=False)
    check_mixture({"chart": 15.0, "document": Draw(epochs=1.5)}, by_epochs=True)
    with pytest.raises(ConfigError, match=r"stage\.mixture\.chart=1\.5 is no whole number.*\"epochs\": 1"):
        check_mixture({"chart": 1.5}, by_epochs=True)
