"""Pin the libraries of the images: `python -m images.lock` rewrites every images/<role>/requirements.txt.

`uv pip compile` resolves a role's requirements.in within constraints.txt, without the libraries in its left-out.txt
lists. Each file has a digest of what it was made from, so that a test without network notices that it is out of date.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from images.roles import ROLES, ROOT, Role, rule_lines

PYTHON_VERSION = "3.11"
PLATFORM = "x86_64-manylinux_2_28"
_LEFT_OUT = "left-out.txt"
_DIGEST_LINE = "# inputs sha256: "


def uv_program() -> str:
    """The path of uv: on the PATH, or next to this Python, where the set-up installed it."""
    return shutil.which("uv") or str(Path(sys.executable).with_name("uv"))


def source_file(role: Role) -> Path:
    """The file with a role's direct requirements."""
    return role.folder / "requirements.in"


def inputs_digest(role: Role) -> str:
    """Digest over a role's direct requirements and what is left out, without comments."""
    lines = [line for path in (source_file(role), *role.rule_files(_LEFT_OUT)) for line in rule_lines(path)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def is_current(role: Role) -> bool:
    """Whether the locked file was made from the current requirements.in and left-out.txt."""
    path = role.folder / "requirements.txt"
    return path.exists() and f"{_DIGEST_LINE}{inputs_digest(role)}\n" in path.read_text(encoding="utf-8")


def lock(role: Role) -> int:
    """Write a role's requirements.txt; returns the number of distributions.

    Raises:
        subprocess.CalledProcessError: uv found no compatible versions; it has printed why on stderr.
    """
    command = [uv_program(), "pip", "compile", str(source_file(role)), "--quiet", "--no-header", "--no-annotate"]
    command += ["--constraints", str(ROOT / "constraints.txt")]
    for path in role.rule_files(_LEFT_OUT):
        command += ["--override", str(path)]
    command += ["--python-version", PYTHON_VERSION, "--python-platform", PLATFORM, "--no-emit-index-url"]
    if role.parent and ROLES[role.parent].requirements:  # keep the parent's versions
        command += ["--constraints", str(ROLES[role.parent].folder / "requirements.txt")]
    environment = os.environ | {"UV_SYSTEM_CERTS": os.environ.get("UV_SYSTEM_CERTS", "1")}
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    head = f"# Made by `python -m images.lock`; change requirements.in instead.\n{_DIGEST_LINE}{inputs_digest(role)}\n"
    pins = [line for line in result.stdout.splitlines() if line and not line.lstrip().startswith("#")]
    (role.folder / "requirements.txt").write_text(head + "\n".join(pins) + "\n", encoding="utf-8")
    return len(pins)


def main() -> int:
    """Lock every role that has requirements."""
    for role in ROLES.values():
        if not source_file(role).exists():
            continue
        try:
            print(f"[images] {role.name}: {lock(role)} distributions locked")
        except FileNotFoundError:
            print("[images] uv is missing. Install it (pip install uv) and start again.", file=sys.stderr)
            return 2
        except subprocess.CalledProcessError:
            print(f"[images] {role.name}: no compatible versions, see above. Its file is unchanged.", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
