"""The parameters of one run to submit, checked before any request to a server. No kfp here."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vl3.config.codec import digest
from vl3.config.parameters import WorkflowParameters
from vl3.errors import ConfigError
from vl3.pipelines.workflows import Workflow, effective_config, get_workflow

TRACKING = "http://mlflow:5000"
"""The MLflow server of the run's namespace (manifests/components/mlflow)."""
_RUN_ID = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_DIGEST_HEX = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One run to submit."""

    workflow: Workflow
    """The workflow to compile."""
    parameters: WorkflowParameters
    """Its parameters, including the cluster's overrides, with addresses that pods can reach."""

    @property
    def run_id(self) -> str:
        """Identity of the run; submitting it again resumes it."""
        return self.parameters.run_id

    @property
    def experiment(self) -> str:
        """The experiment that the run belongs to."""
        return f"vl3-{self.parameters.recipe}"


def make_submission(workflow_name: str, given: WorkflowParameters) -> Submission:
    """Check everything that can be checked here.

    Args:
        workflow_name: name of the workflow.
        given: parameters as given. An empty tracking_uri uses the namespace's own server; an empty run_id is derived
            from the other parameters, so that the same request is the same run.

    Raises:
        ConfigError: the workflow, the recipe, an override, an address or the id is wrong.
    """
    workflow = get_workflow(workflow_name)
    _require_backend(workflow, given.overrides)
    own = (text for text in given.overrides if text not in workflow.cluster_overrides)
    parameters = replace(
        given,
        recipe=given.recipe or workflow.default_recipe,
        stages=given.stages or workflow.default_stages,
        overrides=(*own, *workflow.cluster_overrides),
        data_uri=given.data_uri.rstrip("/"),
        artifacts_uri=given.artifacts_uri.rstrip("/"),
        tracking_uri=given.tracking_uri or TRACKING,
    )
    _require_shared_model(given.model_uri)
    effective_config(workflow, parameters)  # refuses a recipe or an override here, not in a pod
    _require_scheme("data", given.data_uri, ("s3",))
    _require_scheme("artifacts", given.artifacts_uri, ("s3",))
    _require_scheme("tracking", parameters.tracking_uri, ("http", "https"))
    asked = {"workflow": workflow.name, **parameters.to_dict()}
    name = given.run_id or f"{parameters.recipe.replace('_', '-')}-{digest(asked)[:_DIGEST_HEX]}"
    if not _RUN_ID.fullmatch(name):
        raise ConfigError(
            f"run id {name!r} is not valid in the store, MLflow and the cluster. Use up to 63 letters, digits, '-', "
            "'_' and '.', with a letter or digit at both ends."
        )
    return Submission(workflow=workflow, parameters=replace(parameters, run_id=name))


def _require_backend(workflow: Workflow, overrides: Iterable[str]) -> None:
    """Refuse overrides that contradict the cluster's: the launcher's image has no torch, so it cannot train a stage."""
    fixed = {text.partition("=")[0]: text for text in workflow.cluster_overrides}
    wrong = [text for text in overrides if fixed.get(text.partition("=")[0], text) != text]
    if wrong:
        raise ConfigError(
            f"{wrong[0]} does not work on a cluster: the step's pod has neither GPUs nor torch. Leave it out, or use "
            "`make run-pipeline`."
        )


def _require_shared_model(uri: str) -> None:
    """Refuse a model that only this machine has."""
    if uri and not uri.startswith(("s3://", "hf://", "models:/", "run://")):
        raise ConfigError(
            f"--from {uri} does not work on a cluster: the workflow's pods run on other machines and share no folder. "
            "Use s3://bucket/key, hf://owner/name@revision, models:/name@alias or run://RUN."
        )


def _require_scheme(name: str, uri: str, schemes: tuple[str, ...]) -> None:
    scheme, separator, rest = uri.partition("://")
    if scheme not in schemes or not separator or rest[:1] in ("", "/"):
        kinds = " or ".join(f"{scheme}://" for scheme in schemes)
        problem = f"--{name} {uri} does not work on a cluster" if uri else f"--{name} is missing"
        raise ConfigError(
            f"{problem}: the workflow's pods run on other machines and share no folder. Use an address that begins "
            f"with {kinds}."
        )
