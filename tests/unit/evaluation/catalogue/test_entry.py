"""The catalogue: names, groups and needs."""

import pytest

from vl3.errors import ConfigError
from vl3.evaluation.catalogue.entry import Need, choose_benchmarks, groups, read_benchmarks


def test_groups_are_the_13_image_and_the_13_video_benchmarks() -> None:
    by_group = groups()
    sizes = {"quick": 8, "image": 13, "video": 13, "paper": 26, "ablation": 5}
    assert {name: len(names) for name, names in by_group.items()} == sizes
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
