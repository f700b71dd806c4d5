"""`vl3 convert`: a checkpoint from one layout to another."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class WrittenLayout(StrEnum):
    """Layouts that can be written; vl3's own is the official one."""

    OFFICIAL = "official"
    TRANSFORMERS = "transformers"
    VL3 = "vl3"


def convert(
    source: Annotated[
        Path, typer.Argument(help="Checkpoint folder: official, training repository, transformers or vl3.")
    ],
    target: Annotated[Path, typer.Argument(help="Folder to create; it appears when it is complete.")],
    to: Annotated[WrittenLayout, typer.Option("--to", help="Layout to write. vl3's own is the official one.")],
    max_shard_bytes: Annotated[int, typer.Option(help="Maximum bytes of tensors in one file.")] = 5_000_000_000,
) -> None:
    """Convert a checkpoint: weights byte for byte, with config, tokenizer and preprocessor files."""
    from vl3.models.convert import convert as convert_folder
    from vl3.models.layouts.names import Layout

    layout = Layout.TRANSFORMERS if to == WrittenLayout.TRANSFORMERS else Layout.OFFICIAL
    done = convert_folder(source, target, layout, max_shard_bytes=max_shard_bytes)
    files = "1 file" if done.num_files == 1 else f"{done.num_files} files"
    print(
        f"{target}: {layout} layout from {done.source_layout} layout, {done.num_tensors} tensors, "
        f"{done.size_bytes / 1e6:.1f} MB in {files}"
    )
    if to == WrittenLayout.VL3:
        print("vl3's own layout is the official one.")
