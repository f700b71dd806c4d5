"""`vl3 data`: make a sample corpus, check annotations, build a dataset, plan the stages on it."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl3.cli import data_make, data_pages
from vl3.cli.output import AsJson, print_json, print_table
from vl3.cli.progress import shown_progress
from vl3.cli.recipe import Overrides
from vl3.cli.tables import aligned
from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.errors import DataError
from vl3.recipes.catalog import get_recipe
from vl3.system.uris import file_uri

if TYPE_CHECKING:
    from vl3.data.build.dataset import BuildSummary
    from vl3.data.plan.facts import PlanFacts

app = typer.Typer(help="Datasets: sample corpus, checks, building, planning.", no_args_is_help=True)
app.add_typer(data_make.app, name="make")
app.command()(data_pages.show)
app.command()(data_pages.stats)

Recipe = Annotated[str, typer.Option(help="Recipe whose limits apply.")]
BuiltData = Annotated[
    Path, typer.Option(help="Dataset that `vl3 data build` wrote, or a corpus file (.yaml) that lists several.")
]
DataFolder = Annotated[Path, typer.Option("--data", help="Folder with annotations/train.jsonl and the media.")]


@app.command()
def sample(
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    seed: Annotated[int, typer.Option(help="Seed of every scene.")] = 0,
    heldout: Annotated[int, typer.Option(help="Held-out scenes of each category.")] = 100,
    scale: Annotated[float, typer.Option(help="Factor on the number of training scenes.")] = 1.0,
    workers: Annotated[int, typer.Option(help="Processes that draw and encode.")] = 2,
) -> None:
    """Write a corpus of image and video files with annotations; an existing one with the same options is kept."""
    from vl3.toy.corpus import write_corpus

    with shown_progress("scenes") as report:
        samples = write_corpus(out, seed=seed, heldout_scenes=heldout, scale=scale, workers=workers, progress=report)
    print(f"{out}: {samples} samples of ten categories")


@app.command()
def build(
    data: Annotated[str, typer.Option(help="Folder or s3:// URI with annotations/train.jsonl and the media.")],
    out: Annotated[Path, typer.Option(help="Folder to create: tar shards with a Parquet index.")],
    recipe: Recipe = "tiny",
    ray: Annotated[
        str | None, typer.Option(help="`local`, or the address of a Ray cluster: its actors instead of processes.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Build a dataset from annotations and media. Refused lines are printed and left out.

    A build that was ended goes on where it was when the same command is given again.
    """
    from vl3.data.build.of_run import build_for_run

    config = apply_overrides(get_recipe(recipe), overrides or [])
    uri = data if "://" in data else file_uri(Path(data).resolve())
    with shown_progress("samples") as report:
        summary = build_for_run(uri, out, config, ray=ray, identity=_identity(uri, config), progress=report)
    _print_findings(out, out, summary)
    _print_split(summary, config)
    print(f"{out}: {summary.samples} of {summary.lines} lines in {summary.shards} shards")


@app.command()
def validate(
    data: DataFolder,
    annotations: Annotated[Path | None, typer.Option(help="Check only the lines of this file.")] = None,
    docs: Annotated[Path, typer.Option(help="Folder for the Data Docs.")] = Path("build/validation"),
    against: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Former dataset, as folder or URI: tell how mix and lengths differ."),
    ] = None,
    recipe: Recipe = "tiny",
    overrides: Overrides = None,
) -> None:
    """Check a dataset as the workflow does: print each refused line with its reason; exit code 3 if it is refused."""
    from vl3.data.build.of_run import build_for_run

    config = apply_overrides(get_recipe(recipe), overrides or [])
    with tempfile.TemporaryDirectory(prefix="vl3-validate-") as folder:
        dataset = Path(folder, "dataset")
        with shown_progress("samples") as report:
            summary = build_for_run(data, dataset, config, annotations=annotations, progress=report)
        _print_findings(dataset, docs, summary)
        if annotations is None:
            _print_split(summary, config)
            _judge(dataset, config, docs, _former(against, Path(folder, "former")) if against else None)
    refused = summary.lines - summary.samples
    if annotations is not None and refused > config.data.max_bad_fraction * summary.lines:
        raise DataError(
            f"{annotations}: {refused} of {summary.lines} lines are refused, more than the share that "
            f"data.max_bad_fraction={config.data.max_bad_fraction:g} tolerates. Correct or remove them."
        )
    print(f"{annotations or data}: {summary.samples} of {summary.lines} lines are good")


@app.command()
def catalogue(
    name: Annotated[str | None, typer.Argument(help="A dataset, to see its layout and how it is read.")] = None,
    stage: Annotated[int | None, typer.Option(help="Only datasets of this stage of the paper.", min=1, max=4)] = None,
    as_json: AsJson = False,
) -> None:
    """List the datasets of the paper's tables, and which of them can be imported; or show one."""
    from vl3.data.catalogue.entry import find_entry, read_catalogue
    from vl3.data.catalogue.listing import details, overview

    if name is not None:
        found = details(find_entry(name), read_catalogue())
        print_json(found) if as_json else print_table(
            [{"what": key, "value": value} for key, value in found.items()], as_json=False
        )
        return
    print_table(overview(read_catalogue(), stage), as_json=as_json)


@app.command(name="import")
def import_(
    name: Annotated[
        str, typer.Argument(help="A dataset of the catalogue, or a YAML file with a format and its options.")
    ],
    root: Annotated[Path, typer.Option(help="Folder with the dataset's files as they are published.")],
    out: Annotated[str, typer.Option(help="Data folder to make: a path, file:// or s3://; or the root itself.")],
    stage: Annotated[int | None, typer.Option(help="Stage whose options count, such as its caption.", min=1)] = None,
) -> None:
    """Turn a published dataset into a data folder: annotations, media and a card with what was refused and why."""
    from vl3.data.catalogue.entry import find_entry
    from vl3.data.catalogue.importer import REFUSED_NAME, import_dataset
    from vl3.system.uris import file_uri

    out_uri = out if "://" in out else file_uri(Path(out))
    with shown_progress("items") as report:
        card = import_dataset(find_entry(name), root, out_uri, stage=stage, progress=lambda done: report(done, 0))
    for kind, (count, (place, reason)) in card.reasons.items():
        print(f"{kind}: {count} refused, first {place}: {reason}")
    if card.refused:
        print(f"{out}/{REFUSED_NAME}: all {card.refused} refused with their reasons")
    print(f"{out}: {card.samples} samples of {card.items} items of {card.title}")


@app.command()
def plan(
    dataset: BuiltData,
    recipe: Recipe = "tiny",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Plan every stage of a recipe on a dataset: steps, samples a step, epochs of each source, how full rows are."""
    from vl3.data.plan.of_run import plan_request
    from vl3.data.plan.planner import plan_stage

    config = apply_overrides(get_recipe(recipe), overrides or [])
    datasets, plans = built_datasets(dataset), {}
    for stage in config.stages:
        with tempfile.TemporaryDirectory(prefix="vl3-plan-") as folder:
            plans[stage] = plan_stage([*datasets.values()], Path(folder), plan_request(config, stage, [*datasets]))
    if as_json:
        print_json({stage: facts.summary() for stage, facts in plans.items()})
    else:
        print("\n\n".join([_plan_table(plans, config), *(_kind_table(stage, facts) for stage, facts in plans.items())]))


@app.command()
def mix(
    stage: Annotated[str, typer.Argument(help="Stage of the recipe.")],
    dataset: BuiltData,
    recipe: Recipe = "tiny",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show what a stage's mixture asks for, what the data have of it, and how much is drawn how often."""
    from vl3.data.plan.of_run import plan_request
    from vl3.data.plan.planner import plan_stage
    from vl3.recipes.effective import require_stage

    config = apply_overrides(get_recipe(recipe), overrides or [])
    require_stage(config, stage)
    datasets = built_datasets(dataset)
    with tempfile.TemporaryDirectory(prefix="vl3-mix-") as folder:
        request = replace(plan_request(config, stage, [*datasets]), missing="drop")  # what is missing is shown
        facts = plan_stage([*datasets.values()], Path(folder), request)
    if as_json:
        print_json(facts.summary())
        return
    print(_kind_table(stage, facts))
    missing = sum(not kind.available for kind in facts.kinds)
    if missing and config.stages[stage].missing == "refuse":
        print(f"{missing} of {len(facts.kinds)} are missing: a run refuses the stage, or drops them with missing=drop")


@app.command()
def difffp(
    files: Annotated[list[Path], typer.Argument(help="Videos to study.")],
    out: Annotated[Path, typer.Option(help="SVG file for the plot.")] = Path("build/difffp.svg"),
    merge_size: Annotated[int, typer.Option(help="Side of the square of patches of a token.", min=1)] = 2,
    recipe: Recipe = "vl3_2b",
    overrides: Overrides = None,
) -> None:
    """Show how many tokens of a video DiffFP keeps at each threshold, on the released scale and on RLT's."""
    from vl3.report.difffp_study import kept_plot, kept_table, study_video
    from vl3.system.files import atomic_write_text

    config = apply_overrides(get_recipe(recipe), overrides or [])
    studies = [study_video(path, config.data, merge_size) for path in files]
    print(kept_table(studies))
    atomic_write_text(out, str(kept_plot(studies)))
    print(f"{out}: plot")


def built_datasets(dataset: Path) -> dict[str, Path]:
    """Folders of built datasets of this machine by their names: the one of a folder, or those of a corpus file."""
    from vl3.data.corpus import read_corpus
    from vl3.system.uris import file_path, file_uri

    return {name: file_path(uri) for name, uri in read_corpus(file_uri(dataset)).items()}


def _plan_table(plans: "dict[str, PlanFacts]", config: RunConfig) -> str:
    """A row for each stage. Waiting is what ranks lose because the costliest of them is slower than their mean."""
    rows = [("stage", "steps", "rows a step", "rows a rank", "samples a step", "rows full", "waiting by ranks")]
    for stage, facts in plans.items():
        processes = config.num_processes(stage)
        waiting = (f"{one.ranks}: {one.mean:.1%}" for one in facts.balance)
        rows.append(
            (
                stage,
                f"{facts.steps:,}",
                f"{facts.packs_per_step:,}",
                f"{facts.packs_per_step / processes:g} of {processes}",
                f"{facts.samples_per_step:,.1f}",
                f"{facts.fill.binding:.1%}",
                ", ".join(waiting),
            )
        )
    return aligned(rows)


def _kind_table(stage: str, facts: "PlanFacts") -> str:
    """What a stage draws, and what it was asked for and does not have."""
    rows = [(stage, "asked", "available", "drawn", "share", "epochs")]
    rows += [
        (
            kind.key,
            f"{kind.asked:,.0f}",
            f"{kind.available:,}" if kind.available else "missing",
            f"{kind.drawn:,}",
            f"{kind.drawn / facts.samples:.1%}",
            f"{kind.epochs:.2f}",
        )
        for kind in facts.kinds
    ]
    return "\n".join([aligned(rows), *facts.notes])


def _identity(uri: str, config: RunConfig) -> str:
    """A digest of what decides the bytes of a dataset besides the settings: the data, the tokenizer and the code."""
    from vl3.config.codec import digest
    from vl3.data.build.dataset import LIBRARIES
    from vl3.data.build.source import source_digest
    from vl3.models.vocabulary import TOKENIZER_FILE
    from vl3.store.bases import base_folder
    from vl3.store.manifest import file_sha256
    from vl3.workflow.code import library_versions, module_digests

    return digest(
        {
            "source": source_digest(uri),
            "tokenizer": file_sha256(base_folder(config.model.language_base) / TOKENIZER_FILE),
            "modules": module_digests(("vl3.data.build.of_run",)),
            "libraries": library_versions(LIBRARIES),
        }
    )


def _former(address: str, folder: Path) -> Path:
    """A folder with what is compared of a dataset: its index and its summary.

    Raises:
        StorageError: the store has no such dataset or fails.
    """
    from vl3.data.build.index import INDEX_NAME, SUMMARY_NAME
    from vl3.store.objects import open_store

    if "://" not in address:
        return Path(address)
    folder.mkdir()
    for name in (INDEX_NAME, SUMMARY_NAME):
        open_store(address).get_file(name, folder / name)
    return folder


def _judge(dataset: Path, config: RunConfig, docs: Path, against: Path | None) -> None:
    """Run the validation suite on the index; print its warnings.

    Raises:
        DataError: a critical check failed.
    """
    from vl3.validation.suite import validate_dataset

    result = validate_dataset(dataset, config, docs, against=against)
    for finding in result.warnings:
        print(f"warning: {finding.check}: {finding.message}")
    result.require_passed()


def _print_findings(dataset: Path, keep_in: Path, summary: "BuildSummary") -> None:
    """Print what a build left out: refused lines (equal ones once), and keys that are not read.

    Args:
        dataset: the built dataset.
        keep_in: folder that keeps the list of all refused lines; the dataset itself, or another.
        summary: what the build found.
    """
    from vl3.data.build.index import REFUSED_NAME, DatasetIndex
    from vl3.data.sample.problems import list_refusals
    from vl3.system.files import atomic_write_bytes

    table = DatasetIndex.read(dataset).table.select(["where", "problem"]).to_pylist()
    for line in list_refusals((row["where"], row["problem"]) for row in table if row["problem"] is not None):
        print(line)
    if summary.problems:
        if keep_in != dataset:
            atomic_write_bytes(keep_in / REFUSED_NAME, (dataset / REFUSED_NAME).read_bytes())
        print(f"{keep_in / REFUSED_NAME}: all {sum(summary.problems.values())} refused lines with their reasons")
    if summary.unknown_keys:
        keys = ", ".join(f"{key} ({count} lines)" for key, count in summary.unknown_keys.items())
        print(f"keys that vl3 does not read: {keys}")


def _print_split(summary: "BuildSummary", config: RunConfig) -> None:
    """Say so if samples were to be held out and could not be."""
    if config.data.holdout_fraction and summary.heldout_from == "none" and summary.samples > 1:
        print(
            "no sample is held out for evaluation: all share a file or their text with each other, directly or through "
            "others"
        )
