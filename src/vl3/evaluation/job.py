"""The job of an evaluation, which the launching step passes to every process (no torch here)."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vl3.config.codec import from_dict
from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.system.files import atomic_write_json


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationJob:
    """Which models are asked which questions. Configuration and references are plain data."""

    config: dict[str, Any]
    """The effective RunConfig."""
    stage_order: list[str]
    """Names of the configuration's stages in their order, which JSON objects do not promise to keep."""
    models: list[dict[str, Any]]
    """`name` and `checkpoint` of each: a reference, or null for the model that is assembled from the bases."""
    start: dict[str, Any]
    """Reference to what the run started from, which knows the bases."""
    dataset: dict[str, Any]
    """Reference to the dataset, or to a corpus of several."""
    benchmarks: list[dict[str, Any]]
    """`name` of each benchmark and the `copy` that is asked, a reference; empty to ask the held-out samples."""
    judging: dict[str, dict[str, Any]]
    """How held-out answers are judged: by dataset (of a run's only one ""), what its judging.yaml says."""
    work_uri: str
    """Where the answers are kept while the evaluation is not finished."""
    identity: str
    """What the answers follow from: those of another identity are not used."""
    code_version: str
    """Digest of the launcher's code that decides the answers (vl3.workflow.code)."""
    commit: str
    """Commit of the code that runs; a pod replaces it by that of its image."""
    events_path: str
    """File to which rank 0 appends one JSON line per event; a pod replaces it by its own path."""
    failure_path: str
    """File with the error that ended the evaluation; a pod replaces it by its own path."""

    def write(self, path: Path) -> None:
        """Write the job file."""
        atomic_write_json(path, asdict(self))


def read_evaluation_job(path: Path) -> EvaluationJob:
    """Read a job file.

    Raises:
        ConfigError: the file is missing, is not JSON, or a field is missing or unknown.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: the evaluation's job file cannot be read ({error}). Start the run again."
        ) from error
    return parse_evaluation_job(data, str(path))


def parse_evaluation_job(data: object, where: str) -> EvaluationJob:
    """The job in JSON data; errors start with `where`, its origin.

    Raises:
        ConfigError: a field is missing or unknown.
    """
    expected = {field.name for field in fields(EvaluationJob)}
    if not isinstance(data, dict) or set(data) != expected:
        found = ", ".join(sorted(data)) if isinstance(data, dict) else type(data).__name__
        raise ConfigError(
            f"{where}: the job of an evaluation must have the fields {', '.join(sorted(expected))}; found {found}. "
            "Start it with the same version of vl3 that runs it."
        )
    return EvaluationJob(**data)


def evaluation_config(job: EvaluationJob) -> RunConfig:
    """The configuration of a job.

    Raises:
        ConfigError: it cannot be built.
    """
    stages = job.config["stages"]
    return from_dict(RunConfig, job.config | {"stages": {name: stages[name] for name in job.stage_order}})
