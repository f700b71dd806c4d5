"""`vl3 eval`: the paper's benchmarks, their data without a network, a model's scores, and two runs compared."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl3.cli.eval_compare import compare
from vl3.cli.output import AsJson, print_json
from vl3.cli.tables import aligned
from vl3.errors import ConfigError

if TYPE_CHECKING:
    from vl3.evaluation.catalogue.entry import Benchmark
    from vl3.evaluation.harness.run import BenchmarkScore
    from vl3.evaluation.judges import JudgeClient

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
        str | None, typer.Option(help="Judge: http://.../v1 of an OpenAI-compatible API, or a folder.")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="Model at the judge's address.")] = "",
    judge_requests: Annotated[int, typer.Option(help="Most requests to the judge; 0 for no limit.", min=0)] = 0,
    judge_rate: Annotated[int, typer.Option(help="Most requests a minute; 0 for no limit.", min=0)] = 0,
    judge_tokens: Annotated[int, typer.Option(help="Most tokens of the judge; 0 for no limit.", min=0)] = 0,
    max_items: Annotated[int | None, typer.Option(help="Questions of each task, for a trial.", min=1)] = None,
    max_failed: Annotated[float, typer.Option(help="Share of items that may fail.", min=0, max=1)] = 0.01,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: a GPU if there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default: bf16 on a GPU.")] = None,
) -> None:
    """Evaluate a model on benchmarks, through lmms-eval's tasks. Needs the environment of `make eval-env`."""
    from vl3.evaluation.catalogue.entry import choose_benchmarks
    from vl3.evaluation.judge_gateway import JudgeGateway

    entries = choose_benchmarks(benchmark or ["quick"])
    _check_harness()
    client = _judge(judge, judge_model, judge_requests, judge_rate, judge_tokens, out, device)
    copies = {entry.name: _copy(data, entry) for entry in entries}
    with JudgeGateway(client) as gateway:
        # lmms-eval, its tasks and the hub's client read these when they are imported.
        os.environ.update(gateway.environment | _offline(out))
        _quiet()
        from vl3.evaluation.catalogue.copies import show_media
        from vl3.evaluation.harness.model import Vl3
        from vl3.evaluation.harness.run import RESULT_FILE, RunLimits, run_benchmark, write_scores

        answering = Vl3(checkpoint=str(model), device=device, dtype=dtype, max_failed_share=max_failed).answer
        limits = RunLimits(max_failed_share=max_failed, max_items=max_items)
        for entry in entries:
            show_media(out / "hf", entry, copies[entry.name])
            gateway.expect(entry.judge_reply)
            score = run_benchmark(
                entry, copies[entry.name], answering, model=name, out=out, limits=limits, watch=gateway.watch
            )
            write_scores(out / RESULT_FILE, name, [score], {entry.name: entry})
            print(_score_line(entry, score))


def _row(entry: "Benchmark") -> tuple[str, ...]:
    from vl3.evaluation.published import published

    cells = []
    for rows in published().values():
        peer = rows[entry.name].best_peer
        cells += [f"{rows[entry.name].paper:g}", f"{peer[1]:g} {peer[0]}" if peer else "-"]
    return (entry.name, entry.title, entry.kind, str(entry.items), *cells, ", ".join(entry.needs) or "-")


def _check_harness() -> None:
    """Refuse before a model is loaded; and set what lmms-eval reads from the environment."""
    from importlib.util import find_spec

    if find_spec("lmms_eval") is None:
        raise ConfigError(
            "lmms-eval is not installed in this environment, and benchmarks are its tasks. Make its environment (`make "
            "eval-env`) and run .venv-eval/bin/vl3 eval run, or use the image vl3-harness."
        )


def _quiet() -> None:
    """lmms-eval's messages go to the log: it prints those for its developers too."""
    from loguru import logger

    logger.remove()
    logger.add(lambda message: logging.getLogger("lmms_eval").info(message.rstrip()), level="INFO", format="{message}")


def _judge(
    address: str | None, model: str, requests: int, rate: int, tokens: int, out: Path, device: str | None
) -> "JudgeClient | None":
    if address is None:
        return None
    from vl3.evaluation.judges import JudgeClient, JudgeConfig, openai_endpoint

    limits = {"max_requests": requests, "requests_per_minute": rate, "max_tokens_total": tokens}
    if "://" in address:
        config = JudgeConfig(url=address, model=model, **limits)
        endpoint = openai_endpoint(config, os.environ.get("VL3_JUDGE_API_KEY"))
    else:
        from vl3.evaluation.local_judge import local_endpoint

        config = JudgeConfig(url="http://localhost", model=str(Path(address).resolve()), tries=1, **limits)
        endpoint = local_endpoint(Path(address), device=device)
    return JudgeClient(config, out / "judge.jsonl", endpoint)


def _copy(data: str, entry: "Benchmark") -> Path:
    from vl3.cli.addresses import as_folder_uri
    from vl3.store.artifacts import fetch, find
    from vl3.store.uris import join_uri

    uri = join_uri(as_folder_uri(data, "--data"), entry.name)
    reference = find(uri)
    if reference is None:
        raise ConfigError(
            f"{uri} has no copy of {entry.title}. Make one: vl3 eval data {entry.name} --root DIR --out {uri}."
        )
    return fetch(reference)


def _offline(out: Path) -> dict[str, str]:
    """What keeps lmms-eval and the hub's client off the network, and has them look for media below `out`."""
    home = (out / "hf").resolve()
    home.mkdir(parents=True, exist_ok=True)
    return {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "LMMS_EVAL_DATASETS_CACHE": str(home / "datasets-cache"),
    }


def _score_line(entry: "Benchmark", score: "BenchmarkScore") -> str:
    from vl3.evaluation.published import published

    if score.score is None:
        return f"{entry.name}: no score: {score.why_no_score}"
    paper = ", ".join(f"{size} {rows[entry.name].paper:g}" for size, rows in published().items())
    part = "" if score.is_complete else f" (of a part: {'; '.join(score.copy_problems)})"
    return f"{entry.name}: {score.score:.2f}{part}; the paper: {paper}; {score.scored} of {score.items} items scored"
