"""Step: bring the weights of every scorer into the run's artifacts, once; nothing later asks the hub.

    scorers/clip/config.json, model.safetensors ...     scorers/aesthetic/model.safetensors

Scorers that name the same weights share their files in the artifact: the second folder names the first.
"""

import shutil
from typing import Any

from vl3.config.curation import CurationConfig
from vl3.errors import ConfigError, Vl3Error
from vl3.launch.check.findings import combined
from vl3.store.bases import base_folder, copy_model_files
from vl3.system.files import atomic_write_json, storage_errors
from vl3.workflow.step import Step, StepOutcome, StepRequest, StepWork

SHARED_FILE = "scorers.json"
"""Which folder has the weights of each scorer."""
_INDEX_FILES = "*.parquet"
"""Files besides those of any model: an index of benchmarks."""


def run(work: StepWork[CurationConfig]) -> StepOutcome:
    """Fetch and publish.

    Raises:
        ConfigError: an address is wrong, or has no model.
        StorageError: it cannot be downloaded or stored.
    """
    uris = weights_of(work.request.config)
    first_of = {uri: next(name for name, one in uris.items() if one == uri) for uri in uris.values()}
    problems: list[Vl3Error] = []
    with work.step_run() as step_run, work.fresh_folder("scorers") as folder:
        for number, (uri, name) in enumerate(first_of.items()):
            work.progress(number, len(first_of), f"importing {uri}")
            try:
                source, target = base_folder(uri), folder / name
            except ConfigError as error:
                problems.append(ConfigError(f"scorers.{name}.weights: {error}"))
                continue
            with storage_errors(target):
                target.mkdir()
            copy_model_files(source, target)
            for path in source.glob(_INDEX_FILES):
                with storage_errors(target / path.name):
                    shutil.copyfile(path, target / path.name)
        if problems:
            raise combined(problems, "weights cannot be used, listed above")
        atomic_write_json(folder / SHARED_FILE, {name: first_of[uri] for name, uri in uris.items()})
        scorers = work.publish(folder, "scorers", kind="scorers")
        step_run.set_tags({"vl3.scorers": scorers.sha256})
    work.clear()
    return StepOutcome(outputs={"scorers": scorers}, values={"weights": uris})


def weights_of(config: CurationConfig) -> dict[str, str]:
    """The address of the weights of each scorer that has any."""
    return {name: one.weights for name, one in config.scorers.items() if one.weights}


def key_parts(request: StepRequest[CurationConfig]) -> dict[str, Any]:
    """The addresses; a hub's revision is part of one."""
    return {"weights": weights_of(request.config)}


STEP = Step(run=run, key_parts=key_parts)
