"""The folders of runs on this machine: which names they may have, and which runs there are."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vl3.errors import ConfigError
from vl3.pipelines.local.record import read_former

RUNS = Path("runs")
"""Folder of the runs on this machine, by name."""
RECORD = "run.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
NAME_RULE = "Use up to 100 letters (a-z, A-Z), digits, '.', '_' and '-', beginning with a letter or digit."
"""What is_name allows, for messages."""
_NOT_IN_PATHS = re.compile(r"[\x00-\x1f\x7f?%]")
_TRACES = (RECORD, "run.lock", "artifacts/steps")
"""What tells the folder of an earlier run from any other folder."""


def is_name(text: str) -> bool:
    """Whether a text can be the name or the id of a run."""
    return _NAME.fullmatch(text) is not None


def run_folder(run: str) -> Path:
    """The absolute folder of a run: `mine` is runs/mine; a text with a slash is a path.

    Raises:
        ConfigError: the name or the path has characters that are not allowed.
    """
    path = Path(run) if "/" in run else RUNS / run
    name = run.rstrip("/").rpartition("/")[2]
    if not is_name(name):
        raise ConfigError(
            f"run {run!r}: {name!r} cannot be the name of a run, which becomes part of URIs and ids. {NAME_RULE}"
        )
    folder = path.absolute()
    if _NOT_IN_PATHS.search(str(folder)):
        raise ConfigError(
            f"run {run!r}: the path {str(folder)!r} has a '?', a '%' or a control character, which the address "
            "of a tracking database cannot have. Use another folder."
        )
    return folder


def new_run_folder(run: str) -> Path:
    """The folder of a run to start: one that does not exist, is empty, or has an earlier attempt of a run.

    Raises:
        ConfigError: as run_folder, or the folder cannot be one, or it belongs to something else: a run removes and
            replaces files in its folder.
    """
    folder = run_folder(run)
    try:
        place = next(path for path in (folder, *folder.parents) if path.exists())
        is_usable = place.is_dir()
        is_foreign = place == folder and is_usable and any(folder.iterdir()) and not _has_traces(folder)
    except OSError as error:
        raise ConfigError(
            f"run {run!r}: the folder {folder} cannot be used ({error.strerror}). Use another RUN."
        ) from error
    if not is_usable:
        raise ConfigError(f"run {run!r}: {place} is a file, so {folder} cannot be a run folder. Use another RUN.")
    if is_foreign:
        raise ConfigError(
            f"run {run!r}: {folder} has files and no run.json, so it is not the folder of a run. A run replaces files "
            "in its folder: use another RUN."
        )
    return folder


def find_run(run: str) -> Path | None:
    """The folder of a run that has a record, by its name below runs/ or its path; None if there is none."""
    folders = (Path(run), RUNS / run) if "/" not in run else (Path(run),)
    return next((folder.absolute() for folder in folders if run and read_former(folder / RECORD)), None)


def local_runs(runs: Path = RUNS) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folder and record of every run below runs/, the latest first."""
    found = [(path.parent, read_run(path.parent)) for path in runs.glob(f"*/{RECORD}")]
    yield from sorted((pair for pair in found if pair[1]), key=lambda pair: pair[1]["started_at"], reverse=True)


def read_run(folder: Path) -> dict[str, Any]:
    """The record of a run, whose state is `killed` if it says `running` and its runner is gone; empty if there is none.

    Other programs may have changed the file: what is missing in it is None, and tasks that are not tasks are left out.
    """
    from vl3.pipelines.local.lock import is_running  # with psutil, which set-up lacks when it checks a name

    record = read_former(folder / RECORD)
    if not record:
        return {}
    state, tasks = record.get("state"), record.get("tasks")
    texts = {name: value if isinstance(value := record.get(name), str) else "" for name in ("started_at", "workflow")}
    parameters = record.get("parameters")
    return {
        **record,
        **texts,
        "state": "killed" if state == "running" and not is_running(folder) else str(state),
        "parameters": parameters if isinstance(parameters, dict) else {},
        "tasks": [task for task in (tasks if isinstance(tasks, list) else []) if _is_task(task)],
    }


def report_of(folder: Path) -> Path | None:
    """The page of a run's report, or None if it has none yet."""
    page = folder / "report" / "report.html"
    return page if page.is_file() else None


def _has_traces(folder: Path) -> bool:
    return any((folder / name).exists() for name in _TRACES)


def _is_task(task: Any) -> bool:
    return isinstance(task, dict) and isinstance(task.get("name"), str) and isinstance(task.get("state"), str)
