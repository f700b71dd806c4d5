"""The catalogue against a second reading of the paper's tables."""

import pytest

from vl3.errors import ConfigError
from vl3.evaluation.catalogue.entry import Need, choose_benchmarks, groups, read_benchmarks

# Tables 5 to 8 of the paper, its own columns: the catalogue is compared with a second reading of them.
PAPER_2B = [79.8, 91.9, 69.4, 779, 59.2, 15.5, 28.6, 45.3, 44.2, 67.3, 78.2, 62.7, 1901]
PAPER_2B += [59.6, 63.4, 39.9, 65.5, 58.5, 68.0, 58.2, 65.4, 57.1, 41.6, 63.4, 81.1, 55.5]
PAPER_7B = [86.3, 94.9, 78.9, 828, 67.1, 26.2, 33.6, 48.8, 56.7, 72.7, 84.7, 64.9, 2102]
PAPER_7B += [66.2, 70.3, 44.1, 69.7, 63.3, 72.8, 61.3, 73.0, 59.8, 45.3, 68.1, 84.5, 60.7]
PEER_7B = [86.1, 94.5, 77.6, 845, 65.4, 19.7, 34.3, 56.0, 54.8, 70.7, 93.2, 62.4, 2344]
PEER_7B += [64.2, 70.0, 43.7, 72.0, 66.7, 68.9, 60.9, 70.9, 60.0, 44.7, 69.7, 85.0]


def test_the_catalogue_has_the_numbers_of_the_papers_tables() -> None:
    all_ = list(read_benchmarks().values())
    assert [one.published["2b"].paper for one in all_] == PAPER_2B
    assert [one.published["7b"].paper for one in all_] == PAPER_7B
    assert [one.published["7b"].peer.score for one in all_ if one.published["7b"].peer] == PEER_7B


def test_groups_are_the_13_image_and_the_13_video_benchmarks() -> None:
    by_group = groups()
    assert {name: len(names) for name, names in by_group.items()} == {"quick": 8, "image": 13, "video": 13, "paper": 26}
    needs_nothing = [one.name for one in choose_benchmarks(["quick"]) if one.needs]
    assert needs_nothing == []


def test_needs_are_those_of_the_benchmarks() -> None:
    needs = {name: one.needs for name, one in read_benchmarks().items() if one.needs}
    assert needs == {
        "mathvista": (Need.JUDGE,),
        "videomme_sub": (Need.SUBTITLES,),
        "mmvu": (Need.JUDGE_UNPARSED,),
        "egoschema": (Need.SUBMISSION,),
        "perception_test": (Need.SUBMISSION,),
        "activitynet_qa": (Need.JUDGE,),
        "tempcompass": (Need.JUDGE,),
    }


def test_benchmarks_are_chosen_by_name_and_group_each_once() -> None:
    chosen = choose_benchmarks(["mvbench", "quick", "gqa"])
    assert [one.name for one in chosen] == [*groups()["quick"], "mvbench"]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'mvbnch' is neither a benchmark nor a group .*Did you mean 'mvbench'"):
        choose_benchmarks(["mvbnch"])
    with pytest.raises(ConfigError, match="no benchmark is named"):
        choose_benchmarks([])
