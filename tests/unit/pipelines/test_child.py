"""What the local runner changes of the compiled workflow before it runs."""

from pathlib import Path

from kfp import components

from pipelines.compile import compile_train, ir_digest
from pipelines.local.child import leave_out_retries


def test_retries_are_for_clusters(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    compile_train(path)
    digest = ir_digest(path)
    spec = components.load_component_from_file(str(path)).pipeline_spec
    tasks = [task for component in spec.components.values() for task in component.dag.tasks.values()]
    tasks += spec.root.dag.tasks.values()
    assert sum(task.retry_policy.max_retry_count for task in tasks) == 8 * 2 + 4
    leave_out_retries(spec)
    assert sum(task.retry_policy.max_retry_count for task in tasks) == 0
    assert ir_digest(path) == digest
