"""lmms-eval's own tasks on a local copy of their data: nothing is asked of a hub."""

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import lmms_eval.tasks
from lmms_eval.api.task import ConfigurableMessagesTask
from lmms_eval.tasks import TaskManager
from tenacity import RetryError

from vl3.errors import DataError
from vl3.evaluation.catalogue.copies import REPOSITORY_FOLDER
from vl3.evaluation.catalogue.entry import Benchmark, Part
from vl3.evaluation.harness.model import TASK_ERRORS

MODEL_NAME = "vl3"
"""Under this name tasks may have prompts of their own for the model; none has one, so it is asked as any other."""


def task_manager(names: Iterable[str]) -> TaskManager:
    """lmms-eval's index of some of its tasks; that of all takes ten seconds, for there are two thousand.

    Args:
        names: the tasks.
    """
    wanted = re.compile(rf"^task:\s*[\"']?(?:{'|'.join(map(re.escape, names))})[\"']?\s*$", re.MULTILINE)
    folder = Path(str(lmms_eval.tasks.__file__)).parent
    places = {path.parent for path in folder.rglob("*.yaml") if wanted.search(path.read_text(encoding="utf-8"))}
    return TaskManager("ERROR", include_path=sorted(map(str, places)), include_defaults=False, model_name=MODEL_NAME)


def load_task(
    benchmark: Benchmark, part: Part, copy: Path, manager: TaskManager, cache: Path
) -> ConfigurableMessagesTask:
    """One task of a benchmark, on the data of a copy.

    Args:
        benchmark: the entry.
        part: which of its tasks.
        copy: folder of the copy, as `vl3 eval data` has written it.
        manager: the tasks.
        cache: folder for the tables that `datasets` makes of the files.

    Raises:
        DataError: the task's code cannot read the copy: a file or a column is missing, or it is of another version.
    """
    repository = copy / REPOSITORY_FOLDER
    # `datasets` keeps its tables by the folder's last name and the configuration's: each copy needs a cache of its own,
    # or one benchmark would be asked the questions of another.
    own_cache = str(cache / _content_digest(repository))
    config: dict[str, Any] = {
        "task": part.task,
        "dataset_path": str(repository),
        "dataset_kwargs": {"cache_dir": own_cache},
    }
    if part.task in _PROCESS:
        config["process_docs"] = _PROCESS[part.task](repository, own_cache)
    try:
        loaded = manager.load_task_or_group([config], task_type="chat")
    except RetryError as error:
        raise _unreadable(benchmark, part, copy, error.last_attempt.exception()) from error
    except (SystemExit, *TASK_ERRORS) as error:
        raise _unreadable(benchmark, part, copy, error) from error
    task: ConfigurableMessagesTask = loaded[part.task]
    return task


def _unreadable(benchmark: Benchmark, part: Part, copy: Path, error: BaseException | None) -> DataError:
    return DataError(
        f"{benchmark.title}: lmms-eval's task {part.task} cannot read {copy} ({type(error).__name__}: {error}). The "
        "copy is incomplete or of another version than lmms-eval's. Bring it again: vl3 eval data "
        f"{benchmark.name} --root DIR --out URI."
    )


def _content_digest(repository: Path) -> str:
    """Digest of where the files are, their sizes and times."""
    files = [path for path in sorted(repository.rglob("*")) if path.is_file()]
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _gqa(repository: Path, cache: str) -> Callable[[datasets.Dataset], datasets.Dataset]:
    """GQA's pictures are in a dataset of their own, which lmms-eval's function takes from the hub, not the path."""

    def add_images(questions: datasets.Dataset) -> datasets.Dataset:
        pictures = datasets.load_dataset(str(repository), "testdev_balanced_images", split="testdev", cache_dir=cache)
        rows = {name: number for number, name in enumerate(pictures["id"])}
        ordered = pictures.select([rows[name] for name in questions["imageId"]]).select_columns(["image"])
        return datasets.concatenate_datasets([questions, ordered], axis=1)

    return add_images


_PROCESS = {"gqa": _gqa}
