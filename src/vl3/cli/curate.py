"""`vl3 curate`: samples that models behind endpoints write, and what training data must not contain."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl3.cli.output import print_table
from vl3.cli.progress import shown_progress
from vl3.errors import ConfigError

if TYPE_CHECKING:
    from vl3.data.derive.output import MadeCard

app = typer.Typer(
    help="Captions and questions by models behind endpoints; the index of benchmarks.", no_args_is_help=True
)

Root = Annotated[Path, typer.Option(help="Data folder with the media; paths in samples are relative to it.")]
Out = Annotated[Path, typer.Option(help="Annotation file to write: .jsonl, .jsonl.gz or .jsonl.zst.")]
EndpointFile = Annotated[
    Path, typer.Option("--endpoint", help="YAML file of the endpoint: url, model, version, limits.")
]
Work = Annotated[Path, typer.Option(help="Folder of answers and of what is finished; the same one goes on with a run.")]
Source = Annotated[str, typer.Option(help="`source` of the samples.")]
BadFraction = Annotated[float, typer.Option(help="Share of the media that may be left out.", min=0, max=1)]


@app.command("captions")
def captions(
    root: Root,
    out: Out,
    endpoint: EndpointFile,
    work: Work,
    source: Source,
    style: Annotated[str, typer.Option(help="short or detailed.")] = "short",
    pictures: Annotated[str, typer.Option(help="Pictures below the folder, as `images/*.jpg`.")] = "",
    coco: Annotated[str, typer.Option(help="File of COCO or Objects365 below the folder, shown to the model.")] = "",
    sa1b: Annotated[str, typer.Option(help="Files of SA-1B below the folder, as `sa_*.json`.")] = "",
    images: Annotated[str, typer.Option(help="Folder before the names in such files, as `images/`.")] = "",
    rules: Annotated[Path | None, typer.Option(help="YAML file of prompts and limits instead of vl3's own.")] = None,
    max_bad_fraction: BadFraction = 0.05,
) -> None:
    """Captions of pictures, conditioned on their annotations where there are any."""
    from vl3.config.endpoint import read_endpoint
    from vl3.curation.captions.captioner import Captioner
    from vl3.curation.captions.flow import RecaptionSettings, recaption
    from vl3.curation.captions.rules import DEFAULT_RULES, CaptionStyle, read_caption_rules

    if style not in tuple(CaptionStyle):
        raise ConfigError(f"--style {style!r} is unknown. Use one of {', '.join(CaptionStyle)}.")
    found = _pictures(root, pictures, coco, sa1b, images)
    captioner = Captioner(
        f"{style}_caption",
        CaptionStyle(style),
        read_endpoint(endpoint),
        work / "answers.sqlite",
        rules=read_caption_rules(rules or DEFAULT_RULES),
    )
    settings = RecaptionSettings(source=source, max_bad_fraction=max_bad_fraction)
    try:
        with shown_progress("captions") as report:
            card = recaption(found, root, out, captioner, settings, report)
    finally:
        captioner.close()
    _print_card(card, out)


@app.command("video")
def video(
    root: Root,
    out: Out,
    endpoint: EndpointFile,
    work: Work,
    source: Source = "video-synthesis",
    videos: Annotated[str, typer.Option(help="Videos below the folder, as `videos/*.mp4`.")] = "videos/*",
    asker: Annotated[Path | None, typer.Option(help="YAML file of another endpoint for questions and checks.")] = None,
    rules: Annotated[
        Path | None, typer.Option(help="YAML file of thresholds and prompts instead of vl3's own.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Videos at once.", min=1, max=256)] = 2,
    max_bad_fraction: BadFraction = 0.05,
) -> None:
    """Dynamic clips of videos with dense captions and question-answer pairs that were checked."""
    from vl3.config.endpoint import read_endpoint
    from vl3.curation.video.flow import SynthesisSetup, synthesise
    from vl3.curation.video.rules import DEFAULT_RULES, read_video_rules
    from vl3.system.uris import file_uri

    captioner = read_endpoint(endpoint)
    setup = SynthesisSetup(
        rules=read_video_rules(rules or DEFAULT_RULES),
        captioner=captioner,
        asker=captioner if asker is None else read_endpoint(asker),
        answers=work / "answers.sqlite",
        work_uri=file_uri(work),
        source=source,
        workers=workers,
        max_bad_fraction=max_bad_fraction,
    )
    with shown_progress("videos") as report:
        card = synthesise(_below(root, videos), file_uri(root), out, setup, report)
    _print_card(card, out)


@app.command("benchmarks")
def benchmarks(
    copies: Annotated[str, typer.Option(help="Folder or s3://... with the copies, as `vl3 eval data` made them.")],
    out: Annotated[Path, typer.Option(help="Folder for benchmarks.parquet, the weights of a scorer of this kind.")],
    benchmark: Annotated[list[str] | None, typer.Option(help="Benchmark or group; repeatable. Default: all.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out media that cannot be decoded.")] = False,
) -> None:
    """Index pictures, frames and texts of the benchmarks, so that a curation keeps what stands in them out."""
    from vl3.cli.addresses import as_folder_uri
    from vl3.curation.benchmark_index import index_copies
    from vl3.evaluation.catalogue.entry import choose_benchmarks
    from vl3.store.artifacts import fetch, find
    from vl3.store.uris import join_uri

    names = [one.name for one in choose_benchmarks(benchmark or ["paper"])]
    root = as_folder_uri(copies, "--copies")
    found = {name: find(join_uri(root, name)) for name in names}
    if missing := [name for name, one in found.items() if one is None]:
        raise ConfigError(
            f"{root} has no copy of {', '.join(missing)}, so what stands in them would be trained on. Make each with "
            "`vl3 eval data`, or name the benchmarks that you have with --benchmark."
        )
    out.mkdir(parents=True, exist_ok=True)
    folders = {name: fetch(one) for name, one in found.items() if one is not None}
    content = index_copies(folders, out, partial=partial)
    print_table([{"benchmark": name, **counts} for name, counts in content.counts.items()], as_json=False)
    for problem in content.unreadable:
        print(f"left out: {problem}")
    print(f"written to {out}")


def _pictures(root: Path, pattern: str, coco: str, sa1b: str, images: str) -> Iterator[tuple[str, str | None]]:
    """The pictures that are named in one of three ways, with their annotations."""
    from vl3.curation.captions.annotations import coco_annotations, sa1b_annotations
    from vl3.data.catalogue.adapter import Folder

    if sum(map(bool, (pattern, coco, sa1b))) != 1:
        raise ConfigError("pictures are named in one way: set one of --pictures, --coco and --sa1b.")
    if pattern:
        return ((name, None) for name in _below(root, pattern))
    found = coco_annotations(Folder(root), coco) if coco else sa1b_annotations(Folder(root), sa1b)
    return ((f"{images}{name}", annotations) for name, annotations in found)


def _below(root: Path, pattern: str) -> list[str]:
    """Files of a folder, in the order of their names."""
    try:
        found = sorted(path.relative_to(root).as_posix() for path in root.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"{pattern!r} is no pattern of files below {root} ({error}). Write one as `a/*.mp4`."
        ) from error
    if not found:
        raise ConfigError(f"{root} has no file {pattern!r}. Check the folder and the pattern.")
    return found


def _print_card(card: "MadeCard", out: Path) -> None:
    funnel = card.settings.get("funnel") or {
        "pictures": card.lines,
        **card.settings.get("based_on", {}),
        **card.dropped,
    }
    counts = {**funnel, "samples": card.samples, "refused": card.refused}
    print_table([{"what": name, "count": value} for name, value in counts.items()], as_json=False)
    print(f"written to {out}")
