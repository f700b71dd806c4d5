"""What is in a key, and what is in the key of unfinished work."""

from dataclasses import replace
from typing import Any

import pytest

from vl3.workflow.key import KeyParts

PARTS = KeyParts(
    config={"seed": 0}, inputs={"dataset": "a" * 64}, modules={"vl3.errors": "1"}, libraries={"torch": "2.13.0"}
)


@pytest.mark.parametrize(
    ("change", "is_other_work"),
    [
        ({"config": {"seed": 1}}, True),
        ({"inputs": {"dataset": "b" * 64}}, True),
        ({"modules": {"vl3.errors": "2"}}, False),
        ({"libraries": {"torch": "2.14.0"}}, False),
    ],
)
def test_code_changes_the_result_and_keeps_the_unfinished_work(change: dict[str, Any], is_other_work: bool) -> None:
    other = replace(PARTS, **change)
    assert other.key("a-step") != PARTS.key("a-step")
    assert (other.work_key("a-step") != PARTS.work_key("a-step")) == is_other_work


def test_tasks_do_not_share_keys() -> None:
    keys = [PARTS.key("a"), PARTS.key("b"), PARTS.work_key("a"), PARTS.work_key("b")]
    assert len(set(keys)) == 4
    assert {len(key) for key in keys} == {32}
