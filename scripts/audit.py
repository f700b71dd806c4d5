"""Compare the pinned libraries with an index of known vulnerabilities: `python scripts/audit.py`, or `make audit`.

pip-audit asks the package index, and counts what that does not know as good: at an index without vulnerabilities it
finds everything safe. So this first asks for a release whose vulnerabilities are known, and believes nothing from an
index that does not report them.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CANARY = "jinja2==2.4.1"
_PROGRAM = (sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json")
_PATIENCE_SECONDS = 300


def main() -> int:
    """Print what was found; returns 1 if a pinned library has a known vulnerability."""
    pins = pinned(ROOT)
    try:
        known, _ = ask([CANARY])
        found, left_out = ask(pins) if known else ([], [])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        return not_checked(f"no index of vulnerabilities answers ({said[-1][:200] if said else type(error).__name__})")
    if not known:
        return not_checked(f"the index here knows no vulnerability of {CANARY}, so it has no list of them")
    for library in found:
        for flaw in library["vulns"]:
            fixed = f"mended in {', '.join(flaw['fix_versions'])}" if flaw["fix_versions"] else "not mended yet"
            print(f"[audit] {library['name']} {library['version']}: {flaw['id']}, {fixed}")
    for library in left_out:
        print(f"[audit] {library['name']} was not checked: {library['skip_reason']}")
    print(f"[audit] {len(pins) - len(left_out)} of {len(pins)} pins checked, {len(found)} with known vulnerabilities")
    return 1 if found else 0


def not_checked(reason: str) -> int:
    """Say it; no reason to fail, because a machine without such an index is none."""
    print(f"[audit] NOT CHECKED: {reason}. SECURITY.md says what was checked by hand.")
    return 0


def pinned(root: Path) -> list[str]:
    """Every `name==version` that is installed for development or into an image."""
    files = [root / "constraints.txt", *sorted(root.glob("images/*/requirements.txt"))]
    lines = [line.strip() for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted({line for line in lines if line and not line.startswith("#")})


def ask(pins: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What pip-audit says of pins: those with vulnerabilities, and those that the index does not know.

    A name may be pinned to two versions, and pip-audit takes one of each: such pins are asked for in turns.

    Raises:
        subprocess.SubprocessError: pip-audit fails, or does not end.
    """
    found: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    while pins:
        now = list({pin.partition("==")[0]: pin for pin in pins}.values())
        pins = [pin for pin in pins if pin not in now]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("".join(f"{pin}\n" for pin in now))
            file.flush()
            command = [*_PROGRAM, f"--requirement={file.name}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_SECONDS)
        if done.returncode not in (0, 1) or not done.stdout.strip():  # 1: there are vulnerabilities
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        libraries = json.loads(done.stdout)["dependencies"]
        found += [library for library in libraries if library.get("vulns")]
        left_out += [library for library in libraries if "skip_reason" in library]
    return found, left_out


if __name__ == "__main__":
    sys.exit(main())
