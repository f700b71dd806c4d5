"""What a pod is to do, by the fields of the document: which program, how many processes, whose code."""

import json
from dataclasses import asdict, replace

import pytest

from vl3.config.codec import to_dict
from vl3.config.placement import BENCHMARKS, EVALUATION
from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.evaluation.job import EvaluationJob
from vl3.pod.sources import EVALUATION_ENTRIES
from vl3.pod.work import read_work
from vl3.recipes.tiny import tiny
from vl3.workflow.code import code_version


def placed(name: str = EVALUATION, **changes: int | None) -> RunConfig:
    recipe = tiny()
    placement = replace(recipe.placements["video"], **changes)  # type: ignore[arg-type]
    return replace(recipe, placements={**recipe.placements, name: placement})


def document(config: RunConfig, *, code: str = "", benchmarks: tuple[str, ...] = ()) -> str:
    job = EvaluationJob(
        config=to_dict(config),
        stage_order=list(config.stages),
        models=[{"name": "before", "checkpoint": None}],
        start={},
        dataset={},
        benchmarks=[{"name": name, "copy": {}} for name in benchmarks],
        judging={},
        work_uri="s3://bucket/work",
        identity="key",
        code_version=code,
        commit="",
        events_path="",
        failure_path="",
    )
    return json.dumps(asdict(job))


def test_an_evaluation_is_known_by_its_models() -> None:
    work = read_work(document(placed(nodes=3, min_nodes=1, processes_per_node=2)), "VL3_JOB")
    assert (work.what, work.module, work.placement) == ("evaluation", "vl3.evaluation.worker", "evaluation")
    assert work.processes == (6, 4, 2)
    assert not work.is_done()
    assert work.patience_seconds == tiny().launch.task_stall_seconds
    work.require_processes(4, "2 x 2")
    with pytest.raises(ConfigError, match=r"the evaluation needs 6 or 4 or 2 processes, but its pods have 5 x 1 = 5\."):
        work.require_processes(5, "5 x 1")


def test_benchmarks_have_a_program_and_a_placement_of_their_own() -> None:
    work = read_work(document(placed(BENCHMARKS, nodes=2, processes_per_node=1), benchmarks=("mme",)), "VL3_JOB")
    assert (work.module, work.placement) == ("vl3.evaluation.harness.worker", "benchmarks")
    with pytest.raises(ConfigError, match=r"has no placements\.benchmarks, so it was not made for pods"):
        read_work(document(placed(), benchmarks=("mme",)), "VL3_JOB")


def test_the_order_of_stages_outlives_sorted_json() -> None:
    config = placed()
    data = json.loads(document(config))
    work = read_work(json.dumps(data, sort_keys=True), "VL3_JOB")
    assert list(work.config.stages) == list(config.stages)


def test_an_evaluation_without_a_placement_is_no_pods_work() -> None:
    with pytest.raises(ConfigError, match=r"has no placements\.evaluation, so it was not made for pods"):
        read_work(document(tiny()), "VL3_JOB")


def test_an_evaluation_of_another_version_is_refused() -> None:
    data = json.loads(document(placed())) | {"more": 1}
    with pytest.raises(ConfigError, match=r"VL3_JOB: the job of an evaluation must have the fields .* found .*more"):
        read_work(json.dumps(data), "VL3_JOB")


def test_other_code_is_refused() -> None:
    read_work(document(placed(), code=code_version(EVALUATION_ENTRIES)), "VL3_JOB").require_sources()
    work = read_work(document(placed(), code="0" * 64), "VL3_JOB")
    with pytest.raises(
        ConfigError, match=r"the evaluation was launched by other code of vl3 .version 000000000000. than this"
    ):
        work.require_sources()


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_anything_else_is_no_job(text: str) -> None:
    with pytest.raises(ConfigError, match="VL3_JOB: the"):
        read_work(text, "VL3_JOB")
