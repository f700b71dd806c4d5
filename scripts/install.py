"""Install packages with uv and show done of total: `install.py UV PYTHON ARGUMENT...`, as `uv pip install ARGUMENT...`.

uv shows bars on a terminal only, and no total. What it downloads appears as one folder each in its cache, and what it
installs as one `.dist-info` folder; how many there will be it says beforehand (--dry-run):

    Would download 207 packages
    Would install 210 packages
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from setup_progress import SetupProgress

_POLL_SECONDS = 0.5
_SHOWN_LINES = 20


def planned(text: str) -> tuple[int, int]:
    """How many packages uv would download and install, from what its dry run says."""
    found = {verb: int(count) for verb, count in re.findall(r"Would (download|install) (\d+) package", text)}
    return found.get("download", 0), found.get("install", 0)


def folders_in(folder: Path, pattern: str) -> set[str]:
    """Names of the folders that match."""
    return {path.name for path in folder.glob(pattern)} if folder.is_dir() else set()


def install(uv: str, python: str, arguments: list[str]) -> int:
    """Install; returns uv's exit status, after its last lines if it failed."""
    command = [uv, "pip", "install", "--python", python]
    dry = subprocess.run([*command, "--dry-run", *arguments], capture_output=True, text=True, check=False)
    if dry.returncode:
        return _tell(dry.stderr, dry.returncode)
    downloads, installs = planned(dry.stderr)
    cache = Path(_output([uv, "cache", "dir"])) / "archive-v0"
    packages = Path(_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))
    cached, installed = folders_in(cache, "*"), folders_in(packages, "*.dist-info")
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, *arguments], stdout=log, stderr=subprocess.STDOUT)
        downloading, installing = SetupProgress("downloading packages"), SetupProgress("installing packages")
        while _is_running(process):
            done = len(folders_in(cache, "*") - cached)
            placed = len(folders_in(packages, "*.dist-info") - installed)
            if placed:
                installing.report(min(placed, installs), installs)
            elif downloads:
                downloading.report(min(done, downloads), downloads)
        if process.returncode == 0 and installs:
            installing.report(installs, installs)
            installing.close()
        log.seek(0)
        return 0 if process.returncode == 0 else _tell(log.read(), process.returncode)


def _is_running(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _tell(text: str, status: int) -> int:
    print("\n".join(["", *text.splitlines()[-_SHOWN_LINES:]]), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(install(sys.argv[1], sys.argv[2], sys.argv[3:]))
