"""Run the training workflow on this machine: `python -m pipelines.run --recipe tiny --data DIR --run runs/tiny`.

A thin runner around kfp.local that keeps what it lacks: a lock, a log file per task, timeouts, a record of the run,
progress, clean stopping, and exit codes by error family.
"""

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from pipelines.local.display import tell
from pipelines.local.lock import RunLock
from pipelines.local.processes import wait_for_former
from pipelines.local.watch import Watch
from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.errors import StorageError, Vl3Error
from vl3.recipes.catalog import get_recipe

INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143}


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, run the workflow, return the exit code."""
    arguments = _parse(argv)
    try:
        config = apply_overrides(get_recipe(arguments.recipe), arguments.set)
        return run(arguments, config)
    except Vl3Error as error:
        tell(error)
        return error.exit_code


def run(arguments: argparse.Namespace, config: RunConfig) -> int:
    """Run the workflow in its folder, alone.

    Raises:
        ConfigError: another run is at work in the folder.
        StorageError: the folder cannot be written.
    """
    folder = Path(arguments.run).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder}: the run folder cannot be made ({error.strerror}). Choose another RUN."
        ) from error
    lock = RunLock(folder / "run.lock")
    temporary = Path(tempfile.gettempdir()) / f"vl3-run-{secrets.token_hex(6)}"
    lock.acquire(temporary=str(temporary))
    if lock.former.get("mark"):  # the last runner was killed: let what it left end before writing where it wrote
        wait_for_former(lock.former["mark"])
        shutil.rmtree(lock.former["temporary"], ignore_errors=True)
    watch = Watch(folder, config, _parameters(arguments, folder), temporary)
    for number in INTERRUPTED:
        signal.signal(number, lambda received, _: watch.interrupt(received))
    try:
        return watch.run()
    finally:
        lock.release()


def _parameters(arguments: argparse.Namespace, folder: Path) -> dict[str, str | list[str]]:
    """The workflow's parameters, except the run id."""
    return {
        "recipe": arguments.recipe,
        "overrides": arguments.set,
        "data_uri": Path(arguments.data).absolute().as_uri(),
        "artifacts_uri": arguments.artifacts_uri or (folder / "artifacts").as_uri(),
        "tracking_uri": arguments.tracking_uri or f"sqlite:///{folder / 'mlflow.db'}",
    }


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipelines.run", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="tiny", help="name of the recipe (default: tiny)")
    parser.add_argument("--data", default="build/data/tiny", help="folder with annotations/ and media")
    parser.add_argument("--run", default="runs/tiny", help="folder of the run; start again in it to go on")
    parser.add_argument("--set", nargs="*", default=[], action="extend", metavar="KEY=VALUE", help="typed overrides")
    parser.add_argument("--tracking-uri", default="", help="MLflow store (default: SQLite in the run folder)")
    parser.add_argument("--artifacts-uri", default="", help="root of artifacts (default: artifacts/ in the run folder)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
