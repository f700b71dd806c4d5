"""The parameters of a workflow run: one value from the command line to every step.

A parameter is a field here and nothing else: both commands that start runs make their options from the fields, and
pipelines, components and steps pass the value on as it is.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vl3.errors import ConfigError
from vl3.system.secrets import holds_secret, masked

_INSTEAD = {
    "--tracking": "the variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN), for "
    "PostgreSQL PGUSER and PGPASSWORD",
    "--endpoint": "VL3_KFP_TOKEN or VL3_KFP_COOKIES",
    "--set": "the variables that the server's own client reads",
}
_INSTEAD_OF_S3 = "the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


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
    data_uri: str = field(
        default="",
        metadata={"option": "--data", "help": "Folder of annotations and media, or a corpus file (.yaml) of several."},
    )
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
            "help": "Model to start from or to evaluate: folder, s3://, hf://owner/name, models:/name@alias or run://RUN.",
        },
    )
    """Whole model that the first stage starts from, or that is evaluated; empty starts from the recipe's bases."""
    artifacts_uri: str = field(default="", metadata={"option": "--artifacts", "help": "Root of what steps publish."})
    """Root of everything that steps publish."""
    tracking_uri: str = field(
        default="",
        metadata={
            "option": "--tracking",
            "help": "MLflow store of runs and models: sqlite:////absolute/mlflow.db or http(s)://host:port; "
            "default here: mlflow.db beside the run's folder.",
        },
    )
    """MLflow tracking store."""
    run_id: str = field(
        default="", metadata={"option": "--run-id", "help": "Identity of the run; generated if left out."}
    )
    """Identity of the run; a restart keeps it."""

    def __post_init__(self) -> None:
        for one in fields(WorkflowParameters):
            value = getattr(self, one.name)
            for text in (value,) if isinstance(value, str) else value:
                refuse_secret(one.metadata["option"], text, is_address=one.name == "tracking_uri")

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
                f"{masked(repr(data)):.500}. Correct the value of the wrong type."
            )
        return cls(**{**data, "overrides": tuple(overrides)})


def refuse_secret(option: str, text: str, *, is_address: bool = False) -> None:
    """Refuse a value with a password or a token: it would be in the process list, in records and in logs.

    Args:
        option: the option that it was given to.
        text: its value.
        is_address: see vl3.system.secrets.holds_secret.

    Raises:
        ConfigError: it has one; the message names the variables to use instead.
    """
    if holds_secret(text, is_address=is_address):
        raise ConfigError(
            f"{option} {masked(text)} has a password or a token in it, which everyone on this machine could read in "
            f"the process list and in the run's records. Leave it out of the address, and set "
            f"{_INSTEAD.get(option, _INSTEAD_OF_S3)}."
        )
