"""Counts in fixed bins: parts add up, and two builds are compared by a number that is known."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from vl3.errors import DataError
from vl3.validation import profile as profile_module
from vl3.validation.profile import MEASURES, Profile, by_category, count_keys, drift_rows, stability_index


def _frame(
    count: int, *, split: str = "train", source: str = "qa", tokens: float = 100, turns: float = 2
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "split": split,
            "category": "chart",
            "source": [source] * count,
            "longest_tokens": float(tokens),
            "visual_tokens": 0.0,
            "supervised_tokens": 5.0,
            "duration_seconds": np.nan,
            "aspect_ratio": 1.5,
            "num_turns": float(turns),
        }
    )


def test_parts_add_up() -> None:
    whole, parts = Profile(), Profile()
    frames = [_frame(3), _frame(2, source="caption", tokens=7), _frame(4, split="heldout"), _frame(0)]
    whole.add(pd.concat(frames, ignore_index=True))
    for frame in frames:
        parts.add(frame)
    assert (
        whole.samples
        == parts.samples
        == {
            ("train", "chart", "qa"): 3,
            ("train", "chart", "caption"): 2,
            ("heldout", "chart", "qa"): 4,
        }
    )
    for measure in MEASURES:
        for split in ("train", "heldout"):
            assert whole.of_split(measure, split).tolist() == parts.of_split(measure, split).tolist()
    assert by_category(whole.samples) == {"heldout": {"chart": 4}, "train": {"chart": 5}}


def test_a_value_falls_into_the_bin_whose_edges_enclose_it() -> None:
    length = MEASURES[0]
    profile = Profile()
    profile.add(_frame(1, tokens=100))
    (place,) = np.flatnonzero(profile.of_split(length, "train"))
    assert length.edges[place - 1] <= 100 < length.edges[place]
    assert not profile.of_split(MEASURES[3], "train").any(), "a picture has no duration"


def test_stability_index_of_the_worked_example() -> None:
    assert stability_index(np.array([50, 50]), np.array([60, 40])) == pytest.approx(
        0.1 * np.log(1.2) + 0.1 * np.log(1.25)
    )
    assert stability_index(np.array([5, 5]), np.array([500, 500])) == 0
    assert stability_index(np.array([1, 0]), np.array([0, 1])) == pytest.approx(2 * 0.9999 * np.log(1e4))
    assert np.isnan(stability_index(np.array([0, 0]), np.array([1, 1])))


def test_drift_tells_the_mix_from_the_lengths() -> None:
    before, now = Profile(), Profile()
    before.add(pd.concat([_frame(50), _frame(50, source="caption")]))
    now.add(pd.concat([_frame(90, tokens=100), _frame(10, source="caption")]))
    rows = {row["measure"]: row for row in drift_rows(before, now)}
    assert rows["mix"]["stability_index"] == pytest.approx(0.4 * np.log(1.8) + 0.4 * np.log(5))
    assert (rows["mix"]["samples_before"], rows["mix"]["samples_now"]) == (100, 100)
    assert rows["longest_tokens"]["stability_index"] == 0
    assert "duration_seconds" not in rows


def test_more_sources_than_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_module, "MAX_SOURCES", 2)
    frame = _frame(3)
    frame["source"] = ["a", "b", "c\n"]
    with pytest.raises(DataError, match=r"more than 2 sources.*'c\\n'"):
        Profile().add(frame)


def test_keys_are_counted_up_to_a_number_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_module, "MAX_KEYS", 2)
    counts = Counter[str]()
    count_keys(counts, pd.Series(["page, licence", None, "licence", "page, licence", "other"]))
    assert counts == {"page": 2, "licence": 3}
