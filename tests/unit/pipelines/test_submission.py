"""What is submitted, checked before a server is asked."""

from dataclasses import replace
from typing import Any

import pytest

from vl3.config.parameters import WorkflowParameters
from vl3.errors import ConfigError
from vl3.pipelines.submission import Submission, make_submission

GOOD: dict[str, Any] = {
    "data_uri": "s3://vl3/data/tiny",
    "artifacts_uri": "s3://vl3/artifacts",
    "tracking_uri": "",
    "run_id": "",
}


def _make(*overrides: str, recipe: str = "tiny", **changes: Any) -> Submission:
    return make_submission("train", WorkflowParameters(recipe=recipe, overrides=overrides, **(GOOD | changes)))


def test_a_run_goes_to_the_cluster_and_to_the_namespaces_mlflow() -> None:
    submission = _make("seed=3")
    assert submission.parameters.overrides == ("seed=3", "launch.backend=trainjob")
    assert submission.parameters.tracking_uri == "http://mlflow:5000"
    assert submission.experiment == "vl3-tiny"
    assert submission.parameters.to_dict() == {
        "recipe": "tiny",
        "overrides": ["seed=3", "launch.backend=trainjob"],
        "data_uri": "s3://vl3/data/tiny",
        "stages": "",
        "model_uri": "",
        "artifacts_uri": "s3://vl3/artifacts",
        "tracking_uri": "http://mlflow:5000",
        "run_id": submission.run_id,
    }


def test_the_same_request_is_the_same_run_and_another_is_not() -> None:
    first = _make("seed=3")
    assert first.run_id.startswith("tiny-")
    assert len(first.run_id) == len("tiny-") + 10
    assert _make("seed=3") == first
    assert _make("launch.backend=trainjob", "seed=3") == first
    assert _make("seed=3", data_uri="s3://vl3/data/tiny/") == first
    others = [_make("seed=4"), _make("seed=3", artifacts_uri="s3://vl3/other"), _make("seed=3", recipe="vl3_2b")]
    assert len({submission.run_id for submission in (first, *others)}) == 4
    assert others[2].run_id.startswith("vl3-2b-")


def test_a_given_run_id_is_kept() -> None:
    assert _make(run_id="night-7").parameters == replace(_make().parameters, run_id="night-7")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "tinny"}, "recipe 'tinny' is unknown. The nearest is 'tiny'"),
        ({"data_uri": ""}, "--data is missing: .* begins with s3://"),
        ({"data_uri": "build/data/tiny"}, "--data build/data/tiny does not work on a cluster"),
        ({"artifacts_uri": "file:///runs"}, "--artifacts file:///runs does not work on a cluster"),
        ({"artifacts_uri": "s3:///key"}, "--artifacts s3:///key does not work on a cluster"),
        ({"tracking_uri": "sqlite:///mlflow.db"}, "--tracking sqlite:///mlflow.db .* http:// or https://"),
        ({"stages": "vidoe", "model_uri": "s3://vl3/m"}, "STAGES=vidoe names 'vidoe', .* The nearest is 'video'"),
        ({"stages": "video"}, "stage video starts from the weights of multitask"),
        ({"model_uri": "runs/tiny"}, "--from runs/tiny does not work on a cluster: .* share no folder"),
        ({"model_uri": "file:///model"}, "--from file:///model does not work on a cluster"),
        ({"model_uri": "hf://a/b/c"}, "'hf://a/b/c' does not name a model of the hub"),
        ({"run_id": "a b"}, "run id 'a b' is not valid in the store"),
        ({"run_id": "../x"}, "run id '../x' is not valid in the store"),
        ({"run_id": "it's"}, "is not valid in the store"),
        ({"run_id": "x" * 64}, "is not valid in the store"),
        ({"run_id": "-x"}, "is not valid in the store"),
    ],
)
def test_bad_input_is_refused_with_the_reason(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _make(**changes)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.max_frame=64", "The nearest is 'data.max_frames'"),
        ("launch.backend=local", "launch.backend=local does not work on a cluster"),
        ("placements.video.nodes=0", "placement.nodes=0"),
    ],
)
def test_a_wrong_override_is_refused_here_not_by_a_pod(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _make(override)


def test_a_part_of_the_chain_is_another_run() -> None:
    part = _make(stages="video", model_uri="models:/vl3-tiny@champion")
    assert (part.parameters.stages, part.parameters.model_uri) == ("video", "models:/vl3-tiny@champion")
    assert part.run_id != _make().run_id


def test_an_evaluation_is_submitted_with_its_model() -> None:
    given = WorkflowParameters(**(GOOD | {"model_uri": "s3://vl3/artifacts/steps/train-video/k/checkpoint"}))
    submission = make_submission("evaluate", given)
    assert submission.parameters.stages == "none"
    assert submission.parameters.overrides == ("launch.backend=trainjob",)
    with pytest.raises(ConfigError, match=r"there is no model to evaluate\. Name one with MODEL: a folder, s3://"):
        make_submission("evaluate", replace(given, model_uri=""))
