"""What a mixture gets of the data: counted exactly, nothing in place of what is missing, limits kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl3.config.mixture import Draw
from vl3.data.plan.kinds import ServedKind, fill_draws, require_served, serve_mixture
from vl3.errors import DataError

COUNTS = {
    ("plotqa", "chart", "qa"): 70,
    ("mine", "chart", "caption"): 30,
    ("mine", "text_only", "qa"): 50,
}


def available(**mixture: float | Draw) -> list[int]:
    return [kind.available for kind in serve_mixture(mixture, COUNTS)]


def test_a_key_has_the_samples_that_it_names() -> None:
    keys = ["chart", "chart:qa", "plotqa", "mine", "mine:chart", "mine:chart:caption"]
    assert available(**dict.fromkeys(keys, 1.0)) == [100, 70, 70, 80, 30, 30]


def test_a_cap_and_epochs_make_the_amount() -> None:
    kinds = serve_mixture(
        {"chart": Draw(epochs=2, cap=40), "mine": Draw(epochs=0.5), "plotqa": Draw(amount=900, max_epochs=1.5)}, COUNTS
    )
    assert [(kind.available, kind.amount, kind.max_draws) for kind in kinds] == [
        (40, 80, None),
        (80, 40, None),
        (70, 900, 105),
    ]


MISSING = {
    "chart:ocr": "chart:ocr: the data have no usable training sample of this source; its sources of chart: caption, qa",
    "mine:chart:qa": (
        "mine:chart:qa: the dataset mine has no usable training sample of this source; its sources of chart: caption"
    ),
    "plotqa:document": "plotqa:document: the dataset plotqa has no usable training sample of the category document",
    "document": "document: the data have no usable training sample of the category document",
    "plotqaa": "plotqaa: there is no dataset plotqaa with a usable training sample (did you mean plotqa?)",
    "charts": "charts: there is no dataset charts with a usable training sample (did you mean chart?)",
    "zzz": "zzz: there is no dataset zzz with a usable training sample",
}


@pytest.mark.parametrize("key", MISSING)
def test_nothing_stands_in_for_what_is_missing(key: str) -> None:
    (kind,) = serve_mixture({key: 5.0}, COUNTS)
    assert (kind.available, kind.problem) == (0, MISSING[key])


def test_a_missing_kind_refuses_the_stage_unless_it_is_dropped() -> None:
    kinds = serve_mixture({"chart:ocr": 1.0, "mine": 1.0}, COUNTS)
    with pytest.raises(DataError) as caught:
        require_served(kinds, "refuse", COUNTS)
    assert str(caught.value) == (
        f"the data lack 1 of the 2 kinds that the stage's mixture asks for. {MISSING['chart:ocr']}. Usable training "
        "samples: plotqa:chart:qa 70, mine:text_only:qa 50, mine:chart:caption 30. Add the data, take the kinds out of "
        "the stage's mixture, or set its `missing` to drop to train without them."
    )
    assert require_served(kinds, "drop", COUNTS) == [f"{MISSING['chart:ocr']}; it is left out (missing=drop)"]


def test_a_stage_without_anything_is_refused_in_any_case() -> None:
    kinds = serve_mixture({f"d{number}": 1.0 for number in range(30)}, {})
    with pytest.raises(DataError, match=r"nothing that the stage's mixture asks for\. d0: .* And 18 more\. .*: none\."):
        require_served(kinds, "drop", {})


def kinds_of(*rows: tuple[float, int, int | None]) -> list[ServedKind]:
    return [
        ServedKind(key=f"k{number}", amount=amount, available=count, max_draws=limit, problem="")
        for number, (amount, count, limit) in enumerate(rows)
    ]


def test_epochs_draw_amounts_up_to_their_limits() -> None:
    kinds = kinds_of((100, 50, None), (100, 50, 75), (100, 0, None))
    assert fill_draws(kinds, epochs=2.0, total=None) == [200, 75, 0]


def test_a_total_gives_the_others_what_a_limit_takes() -> None:
    assert fill_draws(kinds_of((2, 9, 3), (1, 9, None), (1, 9, None)), epochs=None, total=12) == [3, 4.5, 4.5]
    assert fill_draws(kinds_of((2, 9, 3), (1, 9, 2)), epochs=None, total=12) == [3, 2]


rows = st.lists(
    st.tuples(st.floats(0.01, 1e7), st.integers(0, 10**6), st.none() | st.integers(1, 10**6)), min_size=1, max_size=8
)


@given(rows, st.floats(1, 1e7))
def test_draws_of_a_total_sum_to_it_and_keep_limits(rows, total) -> None:
    kinds = kinds_of(*rows)
    draws = fill_draws(kinds, epochs=None, total=total)
    for kind, drawn in zip(kinds, draws, strict=True):
        assert 0 <= drawn <= (kind.max_draws or total) * (1 + 1e-9)
        assert drawn == 0 or kind.available
    free = [position for position, kind in enumerate(kinds) if kind.available and kind.max_draws is None]
    limit = sum(kind.max_draws or 0 for kind in kinds if kind.available)
    expected = total if free else min(total, limit)
    assert sum(draws) == pytest.approx(expected)
    ratios = [draws[position] / kinds[position].amount for position in free]
    assert ratios == pytest.approx([ratios[0]] * len(ratios) if ratios else [])
