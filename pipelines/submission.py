"""What is submitted: the parameters of one run of the workflow, checked before a server is asked. No kfp here."""

import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from vl3.config.codec import digest
from vl3.config.overrides import apply_overrides
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe

TRACKING = "http://mlflow:5000"
"""The MLflow server of the run's namespace (manifests/components/mlflow)."""
ON_CLUSTER = "launch.backend=trainjob"
"""The override that makes a run a cluster's."""
_RUN_ID = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_DIGEST_HEX = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One run to submit."""

    recipe: str
    """Name of the recipe."""
    overrides: tuple[str, ...]
    """Typed overrides, those of the cluster included."""
    data_uri: str
    """Folder of annotations and media, s3://."""
    artifacts_uri: str
    """Root of everything that steps publish, s3://."""
    tracking_uri: str
    """MLflow server as pods see it."""
    run_id: str
    """Identity of the run; whoever submits it again goes on with it."""

    @property
    def experiment(self) -> str:
        """The experiment that the run belongs to."""
        return f"vl3-{self.recipe}"

    @property
    def parameters(self) -> dict[str, Any]:
        """The workflow's parameters."""
        return {
            "recipe": self.recipe,
            "overrides": list(self.overrides),
            "data_uri": self.data_uri,
            "artifacts_uri": self.artifacts_uri,
            "tracking_uri": self.tracking_uri,
            "run_id": self.run_id,
        }


def make_submission(
    recipe: str, overrides: list[str], *, data_uri: str, artifacts_uri: str, tracking_uri: str, run_id: str
) -> Submission:
    """Check everything that can be checked here.

    Args:
        recipe: name of the recipe.
        overrides: typed overrides as given.
        data_uri: see Submission.
        artifacts_uri: see Submission.
        tracking_uri: see Submission; the namespace's own server where empty.
        run_id: see Submission; made of all the others where empty, so that the same request is the same run.

    Raises:
        ConfigError: the recipe, an override, an address or the id is wrong.
    """
    _require_backend(overrides)
    chosen = (*(text for text in overrides if text != ON_CLUSTER), ON_CLUSTER)
    apply_overrides(get_recipe(recipe), chosen)
    _require_scheme("data", data_uri, ("s3",))
    _require_scheme("artifacts", artifacts_uri, ("s3",))
    _require_scheme("tracking", tracking_uri or TRACKING, ("http", "https"))
    submission = Submission(
        recipe=recipe,
        overrides=chosen,
        data_uri=data_uri.rstrip("/"),
        artifacts_uri=artifacts_uri.rstrip("/"),
        tracking_uri=tracking_uri or TRACKING,
        run_id=run_id,
    )
    name = run_id or f"{recipe.replace('_', '-')}-{digest(submission.parameters)[:_DIGEST_HEX]}"
    if not _RUN_ID.fullmatch(name):
        raise ConfigError(
            f"run id {name!r} cannot name a run in every place where it stands (store, MLflow, cluster). Use up to 63 "
            "letters, digits, '-', '_' and '.', with a letter or digit at both ends."
        )
    return replace(submission, run_id=name)


def _require_backend(overrides: list[str]) -> None:
    """The launcher's image has no torch, so a stage cannot be trained in its pod."""
    wrong = [text for text in overrides if text.startswith("launch.backend=") and text != ON_CLUSTER]
    if wrong:
        raise ConfigError(
            f"{wrong[0]} cannot run on a cluster: the step's pod has neither GPUs nor torch. Leave it out, or use "
            "`make run-pipeline`."
        )


def _require_scheme(name: str, uri: str, schemes: tuple[str, ...]) -> None:
    parts = urlsplit(uri)
    if parts.scheme not in schemes or not parts.netloc:
        kinds = " or ".join(f"{scheme}://" for scheme in schemes)
        problem = f"--{name} {uri} is not for a cluster" if uri else f"--{name} is missing"
        raise ConfigError(
            f"{problem}: the workflow's pods run on other machines and share no folder. Name an address that begins "
            f"with {kinds}."
        )
