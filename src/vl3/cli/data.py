"""`vl3 data`: make a sample corpus, check annotations, build a dataset."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Datasets: sample corpus, checks, building.", no_args_is_help=True)

Recipe = Annotated[str, typer.Option(help="Recipe whose limits apply.")]
DataFolder = Annotated[Path, typer.Option("--data", help="Folder with annotations/train.jsonl and the media.")]


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    seed: Annotated[int, typer.Option(help="Seed of every scene.")] = 0,
    heldout: Annotated[int, typer.Option(help="Held-out scenes of each category.")] = 100,
    scale: Annotated[float, typer.Option(help="Factor on the number of training scenes.")] = 1.0,
    workers: Annotated[int, typer.Option(help="Processes that draw and encode.")] = 2,
) -> None:
    """Write a corpus of real images, videos and annotations; the same one again is left as it is."""
    from vl3.data.corpus import write_corpus

    samples = write_corpus(out, seed=seed, heldout_scenes=heldout, scale=scale, workers=workers)
    print(f"{out}: {samples} samples of ten categories")
