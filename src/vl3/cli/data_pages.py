"""`vl3 data show` and `vl3 data stats`: pages about a built dataset."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl3.cli.recipe import Overrides
from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.errors import ConfigError, DataError
from vl3.recipes.catalog import get_recipe

if TYPE_CHECKING:
    from vl3.data.sample.prepare import PrepareSettings


def show(
    dataset: Annotated[Path, typer.Argument(help="Dataset that `vl3 data build` wrote.")],
    stage: Annotated[str | None, typer.Option(help="Stage that sees the samples; by default the last one.")] = None,
    samples: Annotated[int, typer.Option(help="Number of samples.", min=1, max=500)] = 12,
    split: Annotated[str, typer.Option(help="`train` or `heldout`.")] = "train",
    seed: Annotated[int, typer.Option(help="Seed of the choice of samples.", min=0)] = 0,
    plan: Annotated[
        Path | None, typer.Option(help="Plan of the stage: tell in which step and row samples fall.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("build/samples.html"),
    recipe: Annotated[str, typer.Option(help="Recipe whose stages are meant.")] = "tiny",
    overrides: Overrides = None,
) -> None:
    """Write a page of samples as the model sees them: frames, what DiffFP drops, supervised tokens, counts."""
    from vl3.data.build.index import DatasetIndex
    from vl3.data.build.shards import ShardReader
    from vl3.data.sample.tokenizer import ChatTokenizer
    from vl3.report.samples import choose_rows, view_sample, write_samples_page
    from vl3.store.bases import base_folder

    config = apply_overrides(get_recipe(recipe), overrides or [])
    name = _stage_name(config, stage)
    settings = _prepare_settings(config, name)
    index = DatasetIndex.read(dataset)
    reader = ShardReader(dataset, index)
    tokenizer = ChatTokenizer.from_folder(base_folder(config.model.language_base))
    rows = choose_rows(index, split, samples, seed)
    places = _places(plan, dataset, rows) if plan else {}
    views = [view_sample(index, reader, row, settings, tokenizer, places=places.get(row)) for row in rows]
    write_samples_page(views, out, dataset=dataset.name, stage=name, difffp=settings.difffp)
    print(f"{out}: {len(views)} samples")


def _places(plan: Path, dataset: Path, rows: list[int]) -> dict[int, list[tuple[int, int]]]:
    """Step, and row of the step, of each time that the plan draws a row of the dataset."""
    from vl3.data.build.index import INDEX_NAME
    from vl3.data.plan.stage_plan import StagePlan

    with (dataset / INDEX_NAME).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with StagePlan(plan) as opened:
        return opened.places_of(digest, rows)


def _stage_name(config: RunConfig, stage: str | None) -> str:
    """The stage asked for, or the recipe's last.

    Raises:
        ConfigError: the recipe has no such stage.
    """
    if stage is None:
        return list(config.stages)[-1]
    if stage not in config.stages:
        raise ConfigError(f"the recipe has no stage {stage!r:.200}. Give --stage one of {', '.join(config.stages)}.")
    return stage


def _prepare_settings(config: RunConfig, stage: str) -> "PrepareSettings":
    from vl3.data.sample.prepare import PrepareSettings
    from vl3.models.bases import FixedWanted
    from vl3.models.fixed_config import read_fixed
    from vl3.store.bases import base_folder

    row, fixed = config.stages[stage], FixedWanted.of(config.model)
    return PrepareSettings(
        image_merge_size=row.image_merge_size,
        video_merge_size=row.video_merge_size,
        difffp=row.difffp,
        data=config.data,
        picture=None
        if fixed is None
        else read_fixed(base_folder(config.model.vision_base), fixed.skipped_blocks).picture,
    )


def stats(
    dataset: Annotated[Path, typer.Argument(help="Dataset that `vl3 data build` wrote.")],
    stage: Annotated[str | None, typer.Option(help="Stage whose lengths are shown; by default the last one.")] = None,
    split: Annotated[str, typer.Option(help="`train` or `heldout`.")] = "train",
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("build/stats.html"),
    recipe: Annotated[str, typer.Option(help="Recipe whose stages are meant.")] = "tiny",
    overrides: Overrides = None,
) -> None:
    """Write a page of distributions by source: length, vision tokens, duration, aspect ratio, turns."""
    from vl3.data.build.parts import parts_of_dataset
    from vl3.report.data_stats import Distribution, write_stats_page
    from vl3.validation.profile import MEASURES
    from vl3.validation.suite import profile_of

    config = apply_overrides(get_recipe(recipe), overrides or [])
    name = _stage_name(config, stage)
    profile = profile_of(parts_of_dataset(dataset), {name: config.stages[name]})
    samples = profile.mix(split)
    if not samples:
        raise DataError(f"{dataset} has no usable sample of the split {split!r:.200}. Choose the other one.")
    distributions = [
        Distribution(title=one.title, unit=one.unit, edges=one.edges, by_source=profile.by_source(one, split))
        for one in MEASURES
    ]
    write_stats_page(distributions, samples, out, dataset=dataset.name, split=split, stage=name)
    print(f"{out}: {sum(samples.values())} samples of {len(samples)} sources")
