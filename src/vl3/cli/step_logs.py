"""Where the lines of `vl3 run logs` come from: the cluster's API has the pods, Kubeflow Pipelines what is archived."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vl3.errors import ConfigError, Vl3Error

if TYPE_CHECKING:
    from vl3.pipelines.server import Server


def log_lines(server: "Server", name: str, task: str, namespace: str | None, *, follow: bool) -> Iterator[str]:
    """Lines of the log of a task's latest attempt; notes go to stderr.

    Args:
        server: the Kubeflow Pipelines server.
        name: run id, or the server's own id of a run.
        task: name of the task in the workflow.
        namespace: namespace of the pods; None for the kubeconfig's.
        follow: whether to go on until the task has ended.

    Raises:
        ConfigError: there is no such run or task, it has not started, or we lack a right.
        ClusterError: the log is gone, or cannot be read now.
    """
    from vl3.launch.kube.client import Client
    from vl3.launch.kube.connection import connect
    from vl3.launch.step_logs import NoPodError, follow_step, read_step
    from vl3.launch.step_pods import find_step_pods
    from vl3.pipelines.submit import archived_log, find_run, is_ended

    run = find_run(server, name)
    try:
        client = Client(connect(namespace))
        find_step_pods(client, run.run_id)  # shows whether we may
    except Vl3Error as error:
        if follow and not is_ended(run, task):
            raise ConfigError(
                f"the log of {task} cannot be followed, because its pods cannot be read: {error} Without --follow, the "
                "server's own copy is printed as far as it is written."
            ) from error
        _note(f"the log is the server's own copy, because the pods cannot be read: {error}")
        yield from archived_log(server, run, task)
        return
    try:
        if follow:
            yield from follow_step(client, run.run_id, task, _note, lambda: is_ended(server.run(run.run_id), task))
        else:
            yield from read_step(client, run.run_id, task, _note)
    except NoPodError:
        yield from archived_log(server, run, task)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
