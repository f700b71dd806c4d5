"""The process that runs the compiled workflow with kfp.local: `python -m vl3.pipelines.local.child RUN_FOLDER`.

It is a separate process because kfp.local keeps global state, wraps stdout and cannot be cancelled. It leads its own
session, so that killing its process group also ends kfp's shells and executors.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vl3.config.parameters import WorkflowParameters
from vl3.lifeline import start_lifeline
from vl3.pipelines.local.record import REQUEST
from vl3.pipelines.workflows import get_workflow

if TYPE_CHECKING:
    from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec


def main(folder: Path) -> None:
    """Compile the workflow that the request names, then run the compiled file with its parameters.

    Raises:
        RuntimeError: a task failed; kfp names the task, and its status file says why.
    """
    start_lifeline(os.environ, kill_group=True)
    from kfp import components, local

    from vl3.pipelines.compile import compile_workflow

    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    parameters = WorkflowParameters.from_dict(request["parameters"])
    compile_workflow(get_workflow(request["workflow"]), parameters, folder / "pipeline.yaml")
    workflow = components.load_component_from_file(str(folder / "pipeline.yaml"))
    leave_out_retries(workflow.component_spec.implementation.graph)
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(folder / "kfp"))
    workflow(workflow=parameters.to_dict())


def leave_out_retries(spec: "PipelineSpec") -> None:
    """Drop the tasks' retries, which are for lost nodes: here the user reads the error and starts the run again."""
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values())):
        for task in dag.tasks.values():
            task.ClearField("retry_policy")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
