"""The version in git of a workflow (manifests/pipelines), found on a server by its content."""

from typing import Any

from vl3.errors import ConfigError
from vl3.pipelines.compile import git_digest, spec_digest, version_name
from vl3.pipelines.server import Server
from vl3.pipelines.submission import Submission


def require_version(server: Server, submission: Submission, digest: str) -> Any:
    """The server's PipelineVersion with the content of a run's workflow.

    Args:
        server: where it is looked for.
        submission: the run.
        digest: digest of its workflow as compiled for it.

    Raises:
        ConfigError: git holds no such version, the server has none, or its content is another.
    """
    _require_in_git(submission, digest)
    workflow = submission.workflow
    name = version_name(workflow, digest)
    newest = None
    for version in server.versions(workflow.pipeline_name):
        if version.name == name:
            return _require_content(server, version, digest)
        newest = newest or version
    raise ConfigError(_not_applied(server, name, newest))


def _require_in_git(submission: Submission, digest: str) -> None:
    """Refuse a run whose steps no version has: another part of the chain is another workflow."""
    workflow, recipe = submission.workflow, submission.parameters.recipe
    in_git = git_digest(workflow, recipe)
    if digest != in_git:
        raise ConfigError(
            f"git holds no version for this run: it needs {version_name(workflow, digest)}, and the one of the recipe "
            f"{recipe} is {version_name(workflow, in_git)}, for all its stages as they are. Leave out what changes the "
            "steps or their pods (--stages, --set), or leave out --version git: then the workflow is uploaded with the "
            "run."
        )


def _require_content(server: Server, version: Any, digest: str) -> Any:
    try:
        found = spec_digest(version.pipeline_spec)
    except ValueError as error:
        found = f"unknown ({error})"
    if found != digest:
        raise ConfigError(
            f"pipeline version {version.name} of {server.endpoint} is not what git has under that name, so it is not "
            f"run: its content's digest is {found}, git's is {digest}. A version never changes: delete this one "
            f"(`kubectl delete pipelineversion {version.name}{_option(server)}`) and apply git's: {_apply(server)}."
        )
    return version


def _not_applied(server: Server, name: str, newest: Any) -> str:
    if newest is None:
        return (
            f"{server.endpoint} has no pipeline version {name}, and no other of this workflow. Apply git's to a server "
            f"that keeps pipelines as Kubernetes objects: {_apply(server)}."
        )
    return (
        f"{server.endpoint} has no pipeline version {name}; its newest is {newest.name}. This checkout and the cluster "
        f"are out of step: submit from the commit that is on the cluster, or apply this one: {_apply(server)}."
    )


def _apply(server: Server) -> str:
    return f"`kubectl apply -k manifests/pipelines{_option(server)}`, or let Argo CD sync its wave 4"


def _option(server: Server) -> str:
    """A server for one user reads only its own namespace, which Kubeflow's manifests call kubeflow."""
    return f" -n {server.namespace or 'kubeflow'}"
