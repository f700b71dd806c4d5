"""Builds the dataset of a run with the tokenizer, DiffFP and number of processes of its configuration."""

from collections.abc import Callable
from pathlib import Path

from vl3.config.run import RunConfig
from vl3.data.build.dataset import BuildSummary, build_dataset
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.store.bases import base_folder


def build_for_run(
    data_folder: Path,
    out_folder: Path,
    config: RunConfig,
    *,
    annotations: Path | None = None,
    tokenizer_folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildSummary:
    """Build the dataset of a run; see `build_dataset` for arguments and errors.

    `tokenizer_folder` has the tokenizer of the model that the run starts from; None uses the language base's.
    """
    return build_dataset(
        data_folder,
        out_folder,
        annotations=annotations,
        config=config.data,
        tokenizer=ChatTokenizer.from_folder(tokenizer_folder or base_folder(config.model.language_base)),
        prune=keep_mask,
        workers=config.data.build_workers,
        progress=progress,
    )
