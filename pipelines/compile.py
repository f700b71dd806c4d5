"""Compile the workflow to its one IR file: `python -m pipelines.compile FILE`."""

import sys
from pathlib import Path


def compile_train(path: Path) -> None:
    """Write the IR of the training workflow."""
    from kfp.compiler import Compiler

    from pipelines.train import train

    Compiler().compile(train, str(path))


def without_sdk_version(text: str) -> str:
    """The IR without the line that changes with each kfp release, for comparison."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("sdkVersion:"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m pipelines.compile FILE")
    compile_train(Path(sys.argv[1]))
