"""`vl3 base`: the pretrained encoder and decoder that the tiny recipe starts from."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The small pretrained bases of the tiny recipe.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Exists so that typer keeps `vl3 base make` as two words although it is the only verb."""


@app.command()
def make(
    out: Annotated[Path, typer.Option(help="Folder to write tiny_vision/ and tiny_language/ into.")],
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the generated world.")] = 0,
) -> None:
    """Train both bases from scratch, on the generated world only (up to an hour on two cores)."""
    from vl3.toy.bases import make_bases

    make_bases(out, seed=seed)
    print(f"{out}: tiny_vision, tiny_language and their card, README.md")
