"""Configuration to plain data and back."""

import json
from typing import Any

import pytest

from vl3.config.codec import canonical_json, digest, flatten, from_dict, to_dict
from vl3.config.data import DiffFPScale
from vl3.config.run import RunConfig
from vl3.config.stages import LearningRates, StageConfig
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_survives_the_way_through_json(name: str) -> None:
    config = get_recipe(name)
    assert from_dict(type(config), json.loads(json.dumps(to_dict(config)))) == config


def test_frozen_part_stays_none() -> None:
    rates = LearningRates(vision=1e-3, projector=None, language=None)
    assert to_dict(rates) == {"vision": 0.001, "projector": None, "language": None}
    assert from_dict(LearningRates, to_dict(rates)) == rates


def test_whole_number_is_taken_for_a_rate() -> None:
    assert from_dict(LearningRates, {"vision": 1, "projector": None, "language": None}).vision == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "many"}, "'many' is not an int"),
        ({"steps": 1.5}, "1.5 is not an int"),
        ({"steps": True}, "True is not an int"),
        ({"difffp": "no"}, "'no' is not a bool"),
        ({"difffp": 1}, "1 is not a bool"),
        ({"timeout_seconds": "long"}, "'long' is not a float"),
        ({"step": 3}, "step"),
    ],
    ids=lambda value: next(iter(value)) + repr(next(iter(value.values()))) if isinstance(value, dict) else "",
)
def test_wrong_type_or_key_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    data = to_dict(get_recipe("tiny").stages["video"]) | change
    with pytest.raises(ConfigError) as caught:
        from_dict(StageConfig, data)
    assert "StageConfig cannot be built" in str(caught.value)
    assert message in str(caught.value)
    assert "Correct the named fields." in str(caught.value)


def test_a_choice_becomes_its_member_and_another_is_refused() -> None:
    """Code asks with `is`: a text that only looks like a member would be taken for the other choice."""
    data = to_dict(get_recipe("tiny"))
    assert from_dict(RunConfig, data).data.difffp_scale is DiffFPScale.RELEASED
    data["data"]["difffp_scale"] = "other"
    with pytest.raises(ConfigError, match="'other' is not one of released, rlt"):
        from_dict(RunConfig, data)


def test_missing_key_is_named() -> None:
    data = to_dict(get_recipe("tiny").stages["video"])
    del data["image_merge_size"]
    with pytest.raises(ConfigError, match="image_merge_size"):
        from_dict(StageConfig, data)


def test_contradiction_inside_nested_data_keeps_its_own_message() -> None:
    data = to_dict(get_recipe("tiny"))
    data["data"]["visual_budget_tokens"] = 640
    with pytest.raises(ConfigError, match=r"^data\.visual_budget_tokens=640 leaves no room for text"):
        from_dict(RunConfig, data)


def test_digest_ignores_the_order_of_keys_and_sees_every_value() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None, "ü"]}) == '{"a":[1.5,null,"ü"],"b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert digest({"a": 2}) != digest({"a": 3})
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_nested_configuration_becomes_paths() -> None:
    nested = {"optimizer": {"betas": [0.9, 0.98]}, "lora": None, "mixture": {"chart:a.b": 2.0}, "empty": {}}
    assert flatten(nested) == {
        "optimizer.betas": [0.9, 0.98], "lora": None, "mixture.chart:a.b": 2.0, "empty": {}
    }  # fmt: skip
