"""The job file of a training stage, which the launcher passes to every worker (no torch here)."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vl3.config.codec import from_dict
from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.system.files import atomic_write_json

JOB_NAME = "job.json"
"""The file from which the processes of a stage read their job."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageJob:
    """One training stage. Configuration and references are plain data, so that the file contains everything."""

    config: dict[str, Any]
    """The effective RunConfig."""
    stage_order: list[str]
    """Names of the configuration's stages in their order, which JSON objects do not promise to keep."""
    stage: str
    """Name of the stage in the configuration."""
    dataset: dict[str, Any]
    """Reference to the dataset."""
    plan: dict[str, Any]
    """Reference to the stage's plan."""
    initial_model: dict[str, Any]
    """Reference to the previous stage's checkpoint, to an imported model, or to the start artifact of two bases."""
    work_uri: str
    """Where resumable checkpoints of this stage are stored, as `<work_uri>/step-000050`."""
    output_uri: str
    """Where the final weights are published."""
    created_by: dict[str, str]
    """What trains the stage, for the manifests."""
    made_from: dict[str, dict[str, str]]
    """The artifacts that the weights were made from, for the final checkpoint's manifest."""
    code_version: str
    """Digest of the launcher's code that decides the stage's weights (vl3.workflow.code)."""
    commit: str
    """Commit of the code that trains; a pod replaces it by that of its image."""
    events_path: str
    """File to which rank 0 appends one JSON line per event; a pod replaces it by its own path."""
    failure_path: str
    """File with the error that ended the stage; a pod replaces it by its own path."""

    def write(self, path: Path) -> None:
        """Write the job file."""
        atomic_write_json(path, asdict(self))


def read_job(path: Path) -> StageJob:
    """Read a job file.

    Raises:
        ConfigError: the file is missing, is not JSON, or a field is missing or unknown.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the stage's job file cannot be read ({error}). Launch the stage again.") from error
    return parse_job(text, str(path))


def parse_job(text: str, where: str) -> StageJob:
    """Read a job from JSON; errors start with `where`, its origin.

    Raises:
        ConfigError: it is not JSON, or a field is missing or unknown.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: the stage's job file cannot be read ({error}). Launch the stage again.") from error
    expected = {field.name for field in fields(StageJob)}
    if not isinstance(data, dict) or set(data) != expected:
        found = ", ".join(sorted(data)) if isinstance(data, dict) else type(data).__name__
        raise ConfigError(
            f"{where}: the job file of a stage must have the fields {', '.join(sorted(expected))}; found {found}. "
            "Launch the stage with the same version of vl3 that runs it."
        )
    return StageJob(**data)


def config_of(job: StageJob) -> RunConfig:
    """The configuration of a job.

    Raises:
        ConfigError: it cannot be built, or its stages are not in the order in which they were written.
    """
    config = from_dict(RunConfig, job.config)
    if list(config.stages) != job.stage_order:
        raise ConfigError(
            f"the stages of the job for {job.stage} are {', '.join(config.stages)} and were "
            f"{', '.join(job.stage_order)} when it was written: something sorted the job's JSON on its way. The order "
            "decides which samples a stage draws. Pass the job on unchanged."
        )
    return config
