"""The parameters of a workflow run: one value from the command line to every step.

A parameter is a field here and nothing else: both commands that start runs make their options from the fields, and
pipelines, components and steps pass the value on as it is.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vl3.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowParameters:
    """What a run of a workflow is asked to do. `metadata` holds the option of the command line and its help."""

    recipe: str = field(
        default="",
        metadata={"option": "--recipe", "help": "Name of the recipe; default: the workflow's own small one."},
    )
    """Name of the recipe."""
    overrides: tuple[str, ...] = field(
        default=(), metadata={"option": "--set", "help": "Typed override, KEY=VALUE; repeat for more than one."}
    )
    """Typed overrides of the recipe, each `path.to.field=value`."""
    data_uri: str = field(default="", metadata={"option": "--data", "help": "Folder of annotations and media."})
    """Folder of annotations and media."""
    stages: str = field(
        default="",
        metadata={"option": "--stages", "help": "Stages to train, as a,b or a..b; default: all of the recipe."},
    )
    """Consecutive stages of the recipe (vl3.config.part)."""
    model_uri: str = field(
        default="",
        metadata={
            "option": "--from",
            "help": "Model to start from or to evaluate: folder, s3://, hf://owner/name or models:/name@alias.",
        },
    )
    """Whole model that the first stage starts from, or that is evaluated; empty starts from the recipe's bases."""
    artifacts_uri: str = field(default="", metadata={"option": "--artifacts", "help": "Root of what steps publish."})
    """Root of everything that steps publish."""
    tracking_uri: str = field(default="", metadata={"option": "--tracking", "help": "MLflow tracking store."})
    """MLflow tracking store."""
    run_id: str = field(
        default="", metadata={"option": "--run-id", "help": "Identity of the run; generated if left out."}
    )
    """Identity of the run; a restart keeps it."""

    def to_dict(self) -> dict[str, Any]:
        """The parameters as JSON data, as the workflow engine carries them."""
        return asdict(self) | {"overrides": list(self.overrides)}

    @classmethod
    def from_dict(cls, data: object) -> "WorkflowParameters":
        """Read parameters that the workflow engine carried.

        Raises:
            ConfigError: a parameter is unknown or has a value of another type.
        """
        known = {one.name for one in fields(cls)}
        if not isinstance(data, dict) or not set(data) <= known:
            found = ", ".join(sorted(map(str, data))) if isinstance(data, dict) else type(data).__name__
            raise ConfigError(
                f"the workflow's parameters are {', '.join(sorted(known))}; found {found}. Submit the run with the "
                "version of vl3 that its images have."
            )
        overrides = data.get("overrides", ())
        texts = [value for name, value in data.items() if name != "overrides"]
        if not isinstance(overrides, list | tuple) or not all(isinstance(text, str) for text in (*overrides, *texts)):
            raise ConfigError(
                "the workflow's parameters must be strings, and overrides a list of strings; found "
                f"{data!r:.500}. Correct the value of the wrong type."
            )
        return cls(**{**data, "overrides": tuple(overrides)})
