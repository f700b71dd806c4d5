"""What ran, in the tags from which MLflow's own pages show a run's source, and in tags of ours."""

import getpass
from collections.abc import Mapping
from typing import Any

from vl3.system.commit import UNKNOWN_COMMIT
from vl3.system.provenance import in_words

REPOSITORY = "https://github.com/vl3/vl3"
"""Where the commits are."""


def source_tags(ran: Mapping[str, Any], *, is_cluster: bool = False) -> dict[str, str]:
    """Tags with the source of a run; what is not known has no tag.

    Args:
        ran: what ran (vl3.system.provenance).
        is_cluster: whether a platform runs it; MLflow then calls the source a job.
    """
    words = in_words(ran)
    is_known = words["commit"] not in ("", UNKNOWN_COMMIT)
    versions = ran.get("versions")
    tags = {
        "mlflow.source.name": words["command"],
        "mlflow.source.type": "JOB" if is_cluster else "LOCAL",
        "mlflow.source.git.commit": words["commit"] if is_known else "",
        "mlflow.source.git.repoURL": REPOSITORY if is_known else "",
        "mlflow.user": _user(),
        "vl3.tree": words["tree"],
        "vl3.machine": words["machine"],
        "vl3.image": words["image"],
        "vl3.versions": ", ".join(f"{name} {one}" for name, one in versions.items())
        if isinstance(versions, dict)
        else "",
    }
    return {name: text for name, text in tags.items() if text}


def _user() -> str:
    """The account of this process; empty where it has no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
