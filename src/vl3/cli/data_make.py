"""`vl3 data make`: samples from what is known of pictures and videos, drawn pages, cleaned instruction sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl3.cli.output import print_table
from vl3.cli.progress import shown_progress

if TYPE_CHECKING:
    from vl3.data.derive.makers import Maker
    from vl3.data.derive.output import MadeCard

app = typer.Typer(help="Make samples: see docs/derived-data.md.", no_args_is_help=True)

From = Annotated[list[Path], typer.Option("--from", help="File with what is known, an object a line. Can be repeated.")]
Out = Annotated[Path, typer.Option(help="Annotation file to write: .jsonl, .jsonl.gz or .jsonl.zst.")]
Source = Annotated[str | None, typer.Option(help="`source` of the samples; without it each maker has its own.")]
Seed = Annotated[int, typer.Option(help="Seed of what is drawn.", min=0)]


@app.command("ocr-captions")
def ocr_captions(sources: From, out: Out, source: Source = None) -> None:
    """Captions of pictures, followed by all their texts with boxes."""
    _make_plain("ocr-captions", sources, out, source)


@app.command("scene-text")
def scene_text(sources: From, out: Out, source: Source = None) -> None:
    """The texts of scenes, from left to right and from top to bottom."""
    _make_plain("scene-text", sources, out, source)


@app.command("document-text")
def document_text(sources: From, out: Out, source: Source = None) -> None:
    """The text of documents in reading order, column by column."""
    _make_plain("document-text", sources, out, source)


@app.command("region-captions")
def region_captions(sources: From, out: Out, source: Source = None) -> None:
    """Regions of pictures, asked for by box and described."""
    _make_plain("region-captions", sources, out, source)


@app.command("grounded-captions")
def grounded_captions(sources: From, out: Out, source: Source = None) -> None:
    """Captions of pictures whose phrases have boxes."""
    _make_plain("grounded-captions", sources, out, source)


@app.command("moments")
def moments(sources: From, out: Out, source: Source = None) -> None:
    """When something happens in a video, answered with intervals."""
    _make_plain("moments", sources, out, source)


@app.command("ocr-tasks")
def ocr_tasks(sources: From, out: Out, source: Source = None, seed: Seed = 0) -> None:
    """Five tasks of each picture: is a text there, where, what is in a box, which of two pictures has it, and all."""
    from vl3.data.derive.makers import OcrTasks

    _make("ocr-tasks", OcrTasks(seed=seed), sources, out, source, settings={"seed": seed})


@app.command("streams")
def streams(
    sources: From,
    out: Out,
    source: Source = None,
    bounds: Annotated[Path | None, typer.Option(help="YAML file with bounds instead of vl3's own.")] = None,
) -> None:
    """Streams of at most two minutes, cut from long videos at the ends of their captions."""
    from vl3.config.codec import to_dict
    from vl3.data.derive.makers import Streams
    from vl3.data.derive.streams import DEFAULT_BOUNDS, read_bounds

    maker = Streams(bounds=read_bounds(bounds or DEFAULT_BOUNDS))
    _make("streams", maker, sources, out, source, settings=to_dict(maker.bounds), dropped=maker.dropped)


@app.command("pages")
def pages(
    sources: Annotated[list[Path], typer.Option("--from", help="Text file, a paragraph a line. Can be repeated.")],
    out: Annotated[Path, typer.Option(help="Data folder to make.")],
    count: Annotated[int, typer.Option("--pages", help="How many at most.", min=1)],
    fonts: Annotated[Path | None, typer.Option(help="Folder with fonts; without it those of the system.")] = None,
    source: Annotated[str, typer.Option(help="`source` of the samples.")] = "pages",
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(help="Processes that draw.", min=1)] = 2,
) -> None:
    """Pages drawn from a corpus of text, as SynthDoG draws them, with their text in reading order."""
    from vl3.data.derive.pages.make import ANNOTATIONS, make_pages

    with shown_progress("pages") as report:
        card = make_pages(
            sources,
            out,
            pages=count,
            seed=seed,
            fonts_folder=fonts,
            source_name=source,
            workers=workers,
            progress=report,
        )
    _print_card(out / ANNOTATIONS, card)


@app.command("clean")
def clean(
    sources: Annotated[list[Path], typer.Option("--from", help="Annotation file of a data folder. Can be repeated.")],
    out: Out,
    rules: Annotated[Path | None, typer.Option(help="YAML file with rules instead of vl3's own.")] = None,
) -> None:
    """Copy the lines of an instruction set that no rule drops, and say how many each rule dropped."""
    from vl3.data.derive.cleaning import clean as clean_files
    from vl3.data.derive.rules import DEFAULT_RULES

    with shown_progress("lines") as report:
        card = clean_files(sources, out, rules_path=rules or DEFAULT_RULES, progress=report)
    print_table([{key: row[key] for key in ("rule", "dropped", "left")} for row in card.funnel], as_json=False)
    _print_card(out, card)


def _make_plain(name: str, sources: list[Path], out: Path, source: str | None) -> None:
    from vl3.data.derive.makers import PLAIN_MAKERS

    _make(name, PLAIN_MAKERS[name], sources, out, source)


def _make(
    name: str,
    maker: "Maker",
    sources: list[Path],
    out: Path,
    source: str | None,
    *,
    settings: dict[str, object] | None = None,
    dropped: dict[str, int] | None = None,
) -> None:
    from vl3.data.derive.runner import make_samples

    with shown_progress("lines") as report:
        card = make_samples(
            name, maker, sources, out, source_name=source, settings=settings, dropped=dropped, progress=report
        )
    _print_card(out, card)


def _print_card(out: Path, card: "MadeCard") -> None:
    """Print what was left out and why, and what was made."""
    from vl3.data.derive.output import CARD_SUFFIX, REFUSED_SUFFIX, beside

    for kind, (count, place, reason) in card.reasons.items():
        print(f"{kind}: {count} refused, first {place}: {reason}")
    for what, count in card.dropped.items():
        if count:
            print(f"{what}: {count} dropped")
    if card.refused or card.funnel:
        print(f"{beside(out, REFUSED_SUFFIX)}: each line that was left out, with its reason")
    print(f"{beside(out, CARD_SUFFIX)}: the counts as JSON")
    print(f"{out}: {card.samples} samples of {card.lines} lines")
