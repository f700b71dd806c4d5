"""How the earlier attempts of a stage ended, and whether another attempt may follow."""

from dataclasses import dataclass

from vl3.launch.diagnosis.causes import Cause


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that failed."""

    cause: str
    """Name of its cause."""
    step: int
    """Highest training step that was seen until then."""


def parse_history(text: str) -> list[FailedAttempt]:
    """Read the annotation of a TrainJob; an entry without a valid step counts as a failure at step 0.

    "node_lost@120,crash@340" is a lost node at step 120, then a crash at step 340; "crash" is a crash at step 0.
    """
    entries = []
    for entry in filter(None, text.split(",")):
        cause, _, step = entry.partition("@")
        entries.append(FailedAttempt(cause, int(step) if step.isdigit() else 0))
    return entries


def format_history(history: list[FailedAttempt]) -> str:
    """The annotation's text, which parse_history reads."""
    return ",".join(f"{past.cause}@{past.step}" for past in history)


def may_retry(cause: Cause, history: list[FailedAttempt], *, max_retries: int) -> bool:
    """Whether another attempt may help.

    With max_retries=2, the third failure is final. A crash is retried only if the job got further than at the crash
    before: after "crash@100,crash@340" there is another attempt, after "crash@100,crash@100" there is none.

    Args:
        cause: why the last attempt failed.
        history: all failed attempts, including the last one.
        max_retries: retries that the placement allows in total.
    """
    if cause.retry == "never" or len(history) > max_retries:
        return False
    if cause.retry == "progress":
        same = [past for past in history if past.cause == cause.name]
        return len(same) < 2 or same[-1].step > same[-2].step
    return True
