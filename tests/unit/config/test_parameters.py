"""The workflow's parameters as one value."""

from dataclasses import fields

import pytest

from vl3.config.parameters import WorkflowParameters
from vl3.errors import ConfigError

PARAMETERS = WorkflowParameters(recipe="tiny", overrides=("seed=1", "data.max_frames=8"), data_uri="s3://b/data")


def test_parameters_travel_as_plain_data() -> None:
    data = PARAMETERS.to_dict()
    assert data["overrides"] == ["seed=1", "data.max_frames=8"]
    assert WorkflowParameters.from_dict(data) == PARAMETERS
    assert WorkflowParameters.from_dict({}) == WorkflowParameters()


@pytest.mark.parametrize("data", [{"recipe": "tiny", "model": "x"}, ["recipe"], None])
def test_unknown_parameters_are_refused(data: object) -> None:
    with pytest.raises(ConfigError, match=r"the workflow's parameters are artifacts_uri, data_uri, .*; found "):
        WorkflowParameters.from_dict(data)


@pytest.mark.parametrize("data", [{"recipe": 1}, {"overrides": "seed=1"}, {"overrides": [1]}, {"run_id": None}])
def test_a_value_of_another_type_is_refused(data: dict) -> None:
    with pytest.raises(ConfigError, match="parameters must be strings, and overrides a list of strings"):
        WorkflowParameters.from_dict(data)


def test_every_parameter_has_an_option_and_a_help() -> None:
    options = [one.metadata["option"] for one in fields(WorkflowParameters)]
    assert len(set(options)) == len(options)
    assert all(one.metadata["help"].endswith(".") for one in fields(WorkflowParameters))
