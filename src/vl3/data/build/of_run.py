"""Builds the dataset of a run with the tokenizer, DiffFP and number of processes of its configuration."""

from pathlib import Path

from vl3.config.run import RunConfig
from vl3.data.build.dataset import BuildSummary, Progress, begin, build_dataset, finish_dataset, make_units, plan_units
from vl3.data.build.executors import Executor, Processes
from vl3.data.build.shards import shard_name
from vl3.data.build.work import Work
from vl3.data.build.worker import BuildSetup
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.store.bases import base_folder
from vl3.store.manifest import StoredFile
from vl3.store.uris import split_s3


def build_for_run(
    data: Path | str,
    out_folder: Path,
    config: RunConfig,
    *,
    annotations: Path | None = None,
    tokenizer_folder: Path | None = None,
    ray: str | None = None,
    identity: str = "",
    progress: Progress | None = None,
) -> BuildSummary:
    """Build the dataset of a run; see `build_dataset` for arguments and errors.

    `tokenizer_folder` has the tokenizer of the model that the run starts from; None uses the language base's.
    """
    return build_dataset(
        data,
        out_folder,
        annotations=annotations,
        config=config.data,
        tokenizer=_tokenizer(config, tokenizer_folder),
        prune=keep_mask,
        workers=config.data.build_workers,
        ray=ray,
        identity=identity,
        progress=progress,
    )


def build_units_for_run(
    data: str,
    work_uri: str,
    folder: Path,
    config: RunConfig,
    *,
    tokenizer_folder: Path | None = None,
    executor: Executor | None = None,
    identity: str = "",
    progress: Progress | None = None,
) -> dict[str, StoredFile]:
    """Build the dataset of a run in a bucket: the units below `work_uri`, everything but the shards in `folder`.

    No disk holds the data or the shards. See `build_dataset` for the other arguments and for errors.

    Args:
        data: URI of the data.
        work_uri: s3:// URI of the units.
        folder: an empty folder.
        config: the run's.
        tokenizer_folder: see build_for_run.
        executor: who makes the units; None is this machine's processes.
        identity: see build_dataset.
        progress: see build_dataset.

    Returns:
        The shards by name, to be published with the folder.
    """
    setup = setup_for_run(data, work_uri, config, tokenizer_folder)
    begin(setup, identity)
    units = plan_units(setup)
    make_units(units, setup, executor or Processes(workers=config.data.build_workers), progress)
    finish_dataset(units, setup, folder)
    prefix = split_s3(work_uri)[1]
    return {
        shard_name(unit.number): StoredFile(
            key=f"{prefix}/{setup.work.shard_key(unit.number)}", entry=setup.work.require(unit.number).shard
        )
        for unit in units
    }


def setup_for_run(data: str, work_uri: str, config: RunConfig, tokenizer_folder: Path | None = None) -> BuildSetup:
    """What all units of a run's build share."""
    return BuildSetup(
        source_uri=data,
        work=Work(work_uri),
        config=config.data,
        tokenizer=_tokenizer(config, tokenizer_folder),
        prune=keep_mask,
    )


def _tokenizer(config: RunConfig, folder: Path | None) -> ChatTokenizer:
    return ChatTokenizer.from_folder(folder or base_folder(config.model.language_base))
