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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"tracking_uri": "http://me:hunter2@host"},
            r"--tracking http://\*\*\*@host has a pass.*MLFLOW_TRACKING_USERNAME",
        ),
        ({"tracking_uri": "me:hunter2@host"}, r"--tracking \*\*\*@host has a password"),
        ({"tracking_uri": "postgresql://me:hunter2@db/x"}, r"postgresql://me:\*\*\*@db/x has .* PGUSER and PGPASSWORD"),
        ({"data_uri": "s3://AKIA:hunter2@bucket/data"}, r"--data s3://\*\*\*@bucket/data has .* AWS_ACCESS_KEY_ID"),
        ({"artifacts_uri": "s3://b/k?X-Amz-Signature=hunter2"}, r"--artifacts s3://b/k\?X-Amz-Signature=\*\*\* has"),
        (
            {"overrides": ("seed=1", "model.vision_base=https://hunter2@host/x")},
            r"--set model\.vision_base=https://\*\*\*@h",
        ),
    ],
    ids=["tracking", "no scheme", "database", "data", "artifacts", "override"],
)
def test_a_secret_is_refused_with_what_to_set_instead(given: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        WorkflowParameters(**given)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError):
        WorkflowParameters.from_dict({**given, "overrides": list(given.get("overrides", ()))})


def test_parameters_that_are_not_valid_are_shown_without_their_secrets() -> None:
    with pytest.raises(ConfigError) as caught:
        WorkflowParameters.from_dict({"recipe": 1, "tracking_uri": "http://me:hunter2@host"})
    assert "http://***@host" in str(caught.value)
    assert "hunter2" not in str(caught.value)
