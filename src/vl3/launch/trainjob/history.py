"""How the earlier attempts of a stage ended, and whether another one may follow."""

from dataclasses import dataclass

from vl3.launch.diagnosis.causes import CRASH, Cause


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that failed."""

    cause: str
    """Name of its cause."""
    step: int
    """Highest training step that was seen until then."""


def parse_history(text: str) -> list[FailedAttempt]:
    """Read the annotation of a TrainJob; what is not understood counts as a failure at step 0."""
    entries = []
    for entry in filter(None, text.split(",")):
        cause, _, step = entry.partition("@")
        entries.append(FailedAttempt(cause, int(step) if step.isdigit() else 0))
    return entries


def format_history(history: list[FailedAttempt]) -> str:
    """The annotation's form."""
    return ",".join(f"{past.cause}@{past.step}" for past in history)


def may_retry(cause: Cause, history: list[FailedAttempt], *, max_retries: int) -> bool:
    """Whether another attempt may help.

    Args:
        cause: why the last attempt failed.
        history: all failed attempts, the last one included.
        max_retries: new attempts that a placement allows in all.
    """
    if cause.retry == "never" or len(history) > max_retries:
        return False
    if cause.retry == "progress":
        crashes = [past for past in history if past.cause == CRASH.name]
        return len(crashes) < 2 or crashes[-1].step > crashes[-2].step
    return True
