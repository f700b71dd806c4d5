"""`vl3 base`: the pretrained encoder and decoder that a run starts from."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The pretrained bases that a run starts from.", no_args_is_help=True)


@app.command()
def make(
    out: Annotated[Path, typer.Option(help="Folder to write tiny_vision/ and tiny_language/ into.")],
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the generated world.")] = 0,
) -> None:
    """Train both bases of the tiny recipe from scratch, on the generated world only (up to an hour on two cores)."""
    from vl3.toy.bases import make_bases

    make_bases(out, seed=seed)
    print(f"{out}: tiny_vision, tiny_language and their card, README.md")


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="hf://owner/name@revision, a folder, or s3://bucket/key.")],
    out: Annotated[str, typer.Option(help="s3://bucket/key or a folder, where the base is published.")],
) -> None:
    """Bring a base or a model from the hub or a folder into the store, checked, for a cluster without internet.

    Give its address to model.vision_base, model.language_base or --from.
    """
    from vl3.cli.addresses import as_folder_uri, model_uri
    from vl3.models.imports import import_base

    brought = import_base(model_uri(name), as_folder_uri(out, "--out"))
    print(f"{brought.reference.uri}: {brought.what}, {brought.num_files} files, {brought.size_bytes / 1e9:.2f} GB")
    print(f"sha256 {brought.reference.sha256} (from {brought.came_from})")
