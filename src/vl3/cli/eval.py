"""`vl3 eval`: the paper's benchmarks, their data without a network, a model's scores, and two runs compared."""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl3.cli.eval_compare import compare
from vl3.cli.output import AsJson, print_json
from vl3.cli.tables import aligned
from vl3.errors import ConfigError

if TYPE_CHECKING:
    from vl3.evaluation.catalogue.entry import Benchmark
    from vl3.evaluation.harness.scores import BenchmarkScore
    from vl3.store.reference import Reference

app = typer.Typer(
    help="The paper's 26 benchmarks: data, scores, what was published, and two runs compared.", no_args_is_help=True
)
app.command("compare")(compare)


@app.command("list")
def list_(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks or groups. Default: all.")] = None,
    json_: AsJson = False,
) -> None:
    """List benchmarks: task of lmms-eval, the paper's numbers, the best other model's, what each needs."""
    from vl3.config.codec import to_dict
    from vl3.evaluation.catalogue.entry import choose_benchmarks

    chosen = choose_benchmarks(names or ["paper"])
    if json_:
        print_json([to_dict(one) for one in chosen])
        return
    head = ("NAME", "PAPER'S NAME", "KIND", "ITEMS", "2B", "BEST OTHER", "7B", "BEST OTHER", "NEEDS")
    print(aligned([head, *[_row(one) for one in chosen]]))


@app.command()
def show(name: Annotated[str, typer.Argument(help="A benchmark.")]) -> None:
    """All that is known of one benchmark: tasks, layout of its data, how it differs from the paper's evaluation."""
    from vl3.evaluation.catalogue.entry import choose_benchmarks

    entry = choose_benchmarks([name])[0]
    layout = entry.layout
    rows = [
        ("title", entry.title),
        *[
            ("task", f"{part.task}: {part.config or 'default'}, {part.split}, {part.items} items")
            for part in entry.parts
        ],
        ("metric", f"{entry.metric}, x{entry.scale:g} on the paper's scale"),
        ("data", layout.repository),
        ("columns", ", ".join(layout.columns)),
        ("media", f"HF_HOME/{layout.media}/{layout.media_folder}" if layout.media else "in the data files"),
        ("needs", ", ".join(entry.needs) or "nothing"),
        *[("differs", text) for text in entry.differences],
    ]
    print(aligned(rows))


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="A benchmark (`vl3 eval list`).")],
    root: Annotated[str, typer.Option(help="Its published files: a folder or s3://bucket/key.")],
    out: Annotated[str, typer.Option(help="Where the copy is published: a folder or s3://bucket/key.")],
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept a copy that is not the whole benchmark; its scores are marked.")
    ] = False,
) -> None:
    """Make a benchmark usable without a network: check its published files, unpack its media, publish the copy."""
    from vl3.cli.addresses import as_folder_uri
    from vl3.evaluation.catalogue.copies import make_copy
    from vl3.evaluation.catalogue.entry import choose_benchmarks
    from vl3.store.artifacts import publish
    from vl3.store.folders import fetch_folder
    from vl3.system.folders import scratch_folder
    from vl3.system.uris import file_path

    entry = choose_benchmarks([name])[0]
    uri = as_folder_uri(out, "--out")
    near = file_path(uri).parent if uri.startswith("file:") else None
    source = fetch_folder(as_folder_uri(root, "--root"))
    with scratch_folder(near, f"benchmark-{entry.name}") as folder:
        copy = make_copy(entry, source, folder / "copy", partial=partial)
        reference = publish(folder / "copy", uri, kind="benchmark", created_by={"benchmark": entry.name})
    for problem in copy.problems:
        print(f"partial: {problem}")
    print(f"{reference.uri}: {entry.title}, {copy.items} of {copy.expected} items")
    print(f"sha256 {reference.sha256}")


@app.command()
def run(
    model: Annotated[Path, typer.Option(help="Folder of the model.")],
    data: Annotated[
        str, typer.Option(help="Folder or s3://... with a copy per benchmark, as `vl3 eval data` made them.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the evaluation; the same one again goes on where it ended.")],
    benchmark: Annotated[list[str] | None, typer.Option(help="Benchmark or group; repeatable.")] = None,
    name: Annotated[str, typer.Option(help="The model's name in the results.")] = "model",
    judge: Annotated[
        Path | None, typer.Option(help="YAML file of an endpoint (docs/evaluation.md), or folder of a model.")
    ] = None,
    max_items: Annotated[int | None, typer.Option(help="Questions of each task, for a trial.", min=1)] = None,
    max_failed: Annotated[float, typer.Option(help="Share of items that may fail.", min=0, max=1)] = 0.01,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: a GPU if there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default: bf16 on a GPU.")] = None,
) -> None:
    """Evaluate a model on benchmarks, through lmms-eval's tasks. Needs the environment of `make eval-env`."""
    from vl3.evaluation.catalogue.entry import choose_benchmarks
    from vl3.evaluation.harness.offline import require_harness
    from vl3.evaluation.open_judge import JUDGE_RECORDS, open_judge

    entries = choose_benchmarks(benchmark or ["quick"])
    require_harness()
    copies = {entry.name: _copy(data, entry) for entry in entries}
    with ExitStack() as opened:
        judging = None if judge is None else opened.enter_context(closing(open_judge(judge, out / JUDGE_RECORDS)))
        from vl3.evaluation.harness.alone import evaluate_alone

        scores = evaluate_alone(
            model, entries, copies, name=name, out=out, judge=judging, max_items=max_items, max_failed_share=max_failed,
            device=device, dtype=dtype,
        )  # fmt: skip
        for entry, score in zip(entries, scores, strict=True):
            print(_score_line(entry, score))


def _row(entry: "Benchmark") -> tuple[str, ...]:
    from vl3.evaluation.published import published

    cells = []
    for rows in published().values():
        peer = rows[entry.name].best_peer
        cells += [f"{rows[entry.name].paper:g}", f"{peer[1]:g} {peer[0]}" if peer else "-"]
    return (entry.name, entry.title, entry.kind, str(entry.items), *cells, ", ".join(entry.needs) or "-")


def _copy(data: str, entry: "Benchmark") -> "Reference":
    from vl3.cli.addresses import as_folder_uri
    from vl3.store.artifacts import find
    from vl3.store.uris import join_uri

    uri = join_uri(as_folder_uri(data, "--data"), entry.name)
    reference = find(uri)
    if reference is None:
        raise ConfigError(
            f"{uri} has no copy of {entry.title}. Make one: vl3 eval data {entry.name} --root DIR --out {uri}."
        )
    return reference


def _score_line(entry: "Benchmark", score: "BenchmarkScore") -> str:
    from vl3.evaluation.published import published

    if score.score is None:
        return f"{entry.name}: no score: {score.why_no_score}"
    paper = ", ".join(f"{size} {rows[entry.name].paper:g}" for size, rows in published().items())
    part = "" if score.is_complete else f" (of a part: {'; '.join(score.copy_problems)})"
    return f"{entry.name}: {score.score:.2f}{part}; the paper: {paper}; {score.scored} of {score.items} items scored"
