"""What a job's pods are to do, as the variable that they read."""

import json

from vl3.errors import ConfigError
from vl3.launch.job import LaunchJob

JOB_VARIABLE = "VL3_JOB"
"""The stage's job as JSON, read by the pods."""
_MAX_DOCUMENT_BYTES = 100_000  # Linux passes at most 128 KiB in one variable


def document_of(job: LaunchJob) -> str:
    """The job's document as JSON.

    Raises:
        ConfigError: it is too large for a variable.
    """
    # Not sorted: the order of the stages is the order of the configuration. It is the same in every launch.
    document = json.dumps(job.document, separators=(",", ":"))
    if len(document.encode()) > _MAX_DOCUMENT_BYTES:
        raise ConfigError(
            f"the job of {job.name} is {len(document.encode())} bytes of JSON, more than the {_MAX_DOCUMENT_BYTES} "
            "that fit into a pod's variable. Shorten the recipe's lists or put them into a file that it names."
        )
    return document


def escaped(value: str) -> str:
    """A variable's value as Kubernetes takes it: it expands $(NAME), and $$ is an escaped $."""
    return value.replace("$(", "$$(")
