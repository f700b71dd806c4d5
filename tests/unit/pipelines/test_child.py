"""What the local runner changes of the compiled workflow before it runs."""

from pathlib import Path

import pytest
from kfp import compiler, components, dsl, local

from tests.support.workflows import compile_train
from vl3.pipelines.compile import ir_digest
from vl3.pipelines.local.child import leave_out_retries


@dsl.component(install_kfp_package=False)
def fail_once_a_call(folder: str) -> None:
    """Leave a file a call, then fail."""
    import tempfile

    tempfile.mkstemp(dir=folder)
    raise ValueError


@dsl.pipeline
def retried(folder: str) -> None:
    """A task that a cluster would try three times."""
    fail_once_a_call(folder=folder).set_retry(2, backoff_duration="0s")


def test_the_file_says_what_a_cluster_retries(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    compile_train(path)
    digest = ir_digest(path)
    graph = components.load_component_from_file(str(path)).component_spec.implementation.graph
    tasks = [task for component in graph.components.values() for task in component.dag.tasks.values()]
    tasks += graph.root.dag.tasks.values()
    assert sum(task.retry_policy.max_retry_count for task in tasks) == 14 * 2 + 4
    leave_out_retries(graph)
    assert sum(task.retry_policy.max_retry_count for task in tasks) == 0
    assert ir_digest(path) == digest


def test_here_a_failed_task_is_not_tried_again(tmp_path: Path) -> None:
    compiler.Compiler().compile(retried, str(tmp_path / "retried.yaml"))
    calls = tmp_path / "calls"
    calls.mkdir()
    workflow = components.load_component_from_file(str(tmp_path / "retried.yaml"))
    leave_out_retries(workflow.component_spec.implementation.graph)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))
    with pytest.raises(RuntimeError, match="fail-once-a-call"):
        workflow(folder=str(calls))
    assert len(list(calls.iterdir())) == 1
