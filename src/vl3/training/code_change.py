"""What a stage logs when its checkpoint was written by other code than that which trains now."""

from dataclasses import dataclass

from vl3.training.checkpoint import TrainerState
from vl3.training.job import StageJob

_VERSION_SHOWN = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeHistory:
    """The code that trains now, and each change of the code since step 0."""

    version: str
    """Digest of the code that trains."""
    commit: str
    """Its commit."""
    changes: tuple[str, ...]
    """Each change since step 0: `step 300: commit a1b2 (version c3d4) -> commit e5f6 (version a7b8)`."""


def code_history(job: StageJob, found: TrainerState | None) -> CodeHistory:
    """The history of a stage that resumes from a checkpoint, or starts at step 0 if `found` is None."""
    changes: tuple[str, ...] = ()
    if found is not None:
        changes = tuple(found.code_changes)
        if found.code_version != job.code_version:
            changes += (f"step {found.step}: {_of(found)} -> {_of(job)}",)
    return CodeHistory(version=job.code_version, commit=job.commit, changes=changes)


def resume_note(job: StageJob, found: TrainerState) -> str:
    """The note for a stage that resumes from other code's checkpoint; empty if the code is the same."""
    if found.code_version == job.code_version:
        return ""
    return f"resumes at step {found.step} with other code: checkpoint written by {_of(found)}, now {_of(job)}"


def restart_note(job: StageJob, found: TrainerState) -> str:
    """The note for a stage that restarts because of `engine.on_code_change=restart`; empty if it resumes.

    A checkpoint written by the current code does not count if the code changed before it: the setting asks for a stage
    that is trained by one code from its first step.
    """
    if found.code_version == job.code_version and not found.code_changes:
        return ""
    history = "; ".join(code_history(job, found).changes)
    return (
        f"starts again at step 0 because of engine.on_code_change=restart: the checkpoint of step {found.step} was "
        f"trained by other code ({history}). The stage's checkpoints are removed"
    )


def _of(code: StageJob | TrainerState) -> str:
    version = code.code_version[:_VERSION_SHOWN] or "unknown"
    return f"commit {code.commit} (version {version})"
