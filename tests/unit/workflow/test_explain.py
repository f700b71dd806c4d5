"""The differences between two keys, in words that name what changed."""

from dataclasses import replace
from typing import Any

import pytest

from vl3.workflow.explain import differences, judge
from vl3.workflow.key import KeyParts
from vl3.workflow.record import StepRecord

THEN = KeyParts(
    config={"optimizer.warmup_ratio": 0.03, "steps": 200, "lora": None},
    inputs={"dataset": "a" * 64},
    modules={"vl3.training.loop": "1", "vl3.models.encoder": "2", "vl3.models.old": "3"},
    libraries={"torch": "2.13.0"},
)


def record(parts: KeyParts, **changes: Any) -> StepRecord:
    facts: dict[str, Any] = {"seconds": 60.0, "created_at": "2026-03-01T10:00:00.000+00:00", "commit": "c" * 40}
    return StepRecord(key=parts.key("a-step"), name="a-step", outputs={}, values={}, parts=parts, **(facts | changes))


CHANGES: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "config": (
        {"config": THEN.config | {"optimizer.warmup_ratio": 0.05}},
        "config optimizer.warmup_ratio 0.03 -> 0.05",
    ),
    "field that came": ({"config": THEN.config | {"lora.rank": 8}}, "config lora.rank none -> 8"),
    "code": (
        {"modules": {"vl3.training.loop": "9", "vl3.models.encoder": "2", "vl3.models.fresh": "4"}},
        "code changed in vl3.models.fresh (new), vl3.models.old (gone), vl3.training.loop",
    ),
    "input": ({"inputs": {"dataset": "b" * 64}}, "input dataset aaaaaaaaaaaa -> bbbbbbbbbbbb"),
    "library": ({"libraries": {"torch": "2.14.0"}}, "library torch 2.13.0 -> 2.14.0"),
    "several": (
        {"config": THEN.config | {"steps": 300}, "inputs": {}},
        "config steps 200 -> 300; input dataset aaaaaaaaaaaa -> none",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_differences_are_named(name: str) -> None:
    changes, expected = CHANGES[name]
    assert "; ".join(differences(THEN, replace(THEN, **changes)).lines()) == expected


def test_a_field_that_is_none_is_not_one_that_is_missing() -> None:
    without = replace(THEN, config={name: value for name, value in THEN.config.items() if name != "lora"})
    assert differences(THEN, without).config == {"lora": (None, None)}
    assert differences(THEN, THEN).lines() == []


def test_long_lists_and_values_are_cut() -> None:
    modules = {f"vl3.data.part{number:02d}": "x" for number in range(20)}
    (line,) = differences(THEN, replace(THEN, modules=THEN.modules | modules)).lines()
    assert line.endswith("vl3.data.part07 (new) and 12 more")
    (line,) = differences(THEN, replace(THEN, config=THEN.config | {"lora": "x" * 100})).lines()
    assert line == f"config lora none -> {'x' * 57}..."


def test_without_a_finished_one_there_is_nothing_to_compare() -> None:
    verdict = judge(THEN, [], cost=lambda _: "much")
    assert (verdict.reason, verdict.warning, verdict.differences) == ("none is finished yet", "", None)


def test_an_equal_key_that_is_not_reused_has_lost_its_outputs() -> None:
    assert judge(THEN, [record(THEN)]).reason == "the outputs of the finished one are gone or damaged"


def test_the_newest_gives_the_reason_and_any_that_differs_in_code_alone_the_warning() -> None:
    now = replace(THEN, modules=THEN.modules | {"vl3.training.loop": "9"})
    newest = record(replace(now, config=THEN.config | {"steps": 100}))
    verdict = judge(
        now, [newest, record(THEN, commit=f"{'c' * 40}-dirty")], cost=lambda found: f"It takes {found.seconds:.0f} s"
    )
    assert verdict.reason == "config steps 100 -> 200"
    assert verdict.warning == (
        "a finished one of 2026-03-01T10:00 (commit cccccccccccc-dirty) differs in code alone: code changed in "
        "vl3.training.loop. It takes 60 s. To keep it, run the code of that commit."
    )
    assert judge(now, [newest], cost=lambda _: "much").warning == ""
    both = replace(now, config=THEN.config | {"steps": 100})
    assert judge(both, [record(THEN)], cost=lambda _: "much").warning == "", "another configuration is another result"
    assert judge(now, [record(THEN)]).warning == "", "no cost, no warning"


def test_no_more_records_are_read_than_needed() -> None:
    read = []

    def finished():
        for seconds in (1.0, 2.0, 3.0):
            read.append(seconds)
            yield record(THEN, seconds=seconds)

    judge(THEN, finished())
    assert read == [1.0]
