"""Generated samples of all ten categories, as `vl3 data sample` makes them."""

import subprocess
import sys
from pathlib import Path


def make_corpus(folder: Path, *options: str) -> Path:
    """Make the samples in a new folder."""
    program = "import sys; from vl3.cli.main import main; sys.exit(main())"
    arguments = ["data", "sample", "--out", str(folder), *options]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)
    return folder
