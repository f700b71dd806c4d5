"""The commit of the running code, for people who look for a version. It is not part of any key."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

COMMIT_VARIABLE = "VL3_COMMIT"
"""Commit that an image was built from, since an image has no checkout."""
UNKNOWN_COMMIT = "unknown"
_PACKAGE = Path(__file__).parents[1]
_PATIENCE_SECONDS = 5.0


def code_commit(environ: Mapping[str, str], *, package: Path = _PACKAGE) -> str:
    """The commit of the checkout that contains the package, with `-dirty` if other code than the commit's may run.

    That is so if a file of the checkout differs from it, or if the package has a module that git does not know.
    Without a checkout it is the value of VL3_COMMIT, otherwise `unknown`. A missing or failing git is not an error.

    Args:
        environ: environment of this process.
        package: folder of vl3's sources.
    """
    # A git hook's GIT_DIR may name another repository, and `git describe` must not lock the index.
    variables = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
    variables["GIT_OPTIONAL_LOCKS"] = "0"
    # A virtual environment may be inside another project's checkout: use only one that tracks our files.
    if _git(package, variables, "ls-files", "--error-unmatch", "__init__.py"):
        found = _git(package, variables, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
        if found:
            stray = _git(package, variables, "ls-files", "--others", "--exclude-standard", "*.py")
            return f"{found}-dirty" if stray and not found.endswith("-dirty") else found
    return environ.get(COMMIT_VARIABLE) or UNKNOWN_COMMIT


def _git(folder: Path, variables: Mapping[str, str], *arguments: str) -> str:
    """The output of a git command; empty if it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_PATIENCE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""
