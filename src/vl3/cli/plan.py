"""`vl3 plan`: what a recipe's stages take on some GPUs: memory, time, cost, and what fits."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vl3.cli.output import AsJson, print_json
from vl3.cli.recipe import Overrides
from vl3.cli.tables import aligned
from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.errors import ConfigError
from vl3.recipes.catalog import get_recipe

if TYPE_CHECKING:
    from vl3.planning.stage import Place, StageForecast

_SHOWN = 8


def plan(
    recipe: Annotated[str, typer.Argument(help="Name of the recipe.")],
    stage: Annotated[str | None, typer.Option(help="Only this stage, with all shardings that fit.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs over all nodes. Default: the placement's.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Kind of GPU, such as h200. Default: the placement's.")] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="GPUs of a node, with --gpus.")] = 8,
    price: Annotated[float | None, typer.Option(min=0, help="Price of a GPU-hour. Default: the placement's.")] = None,
    plan_folder: Annotated[
        Path | None, typer.Option("--plan", help="Plan artifact of the stage (a folder with plan.json); with --stage.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Built dataset or corpus file: the stages are planned on it first.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Plan a recipe before a GPU is asked for: parameters, memory, FLOPs, time and cost, and what fits."""
    from vl3.planning.sizes import model_sizes
    from vl3.recipes.effective import require_stage

    config = apply_overrides(get_recipe(recipe), overrides or [])
    if stage is not None:
        require_stage(config, stage)
    if plan_folder is not None and stage is None:
        raise ConfigError("--plan is the plan of one stage. Name the stage with --stage.")
    model, notes = model_sizes(config.model)
    stages = [stage] if stage else list(config.stages)
    places = {name: _place(config, name, gpus, gpu, gpus_per_node, price) for name in stages}
    rows = _rows(config, places, plan_folder, dataset)
    if as_json:
        print_json(_as_json(config, model, places, rows, notes))
    else:
        print(_as_text(config, model, places, rows, notes))


def _place(
    config: RunConfig, stage: str, gpus: int | None, gpu: str | None, gpus_per_node: int, price: float | None
) -> "Place":
    from dataclasses import replace

    from vl3.planning.stage import Place, place_of

    placement = config.placements[stage]
    if gpus is None and gpu is None and placement.gpus_per_node:
        place = place_of(config, stage)
    else:
        count = gpus or placement.nodes * placement.gpus_per_node
        if not count or not (gpu or placement.gpu):
            raise ConfigError(
                f"placements.{stage} has no GPUs, so there is nothing to plan. Name some with --gpus and --gpu."
            )
        place = Place(
            gpu=gpu or placement.gpu,
            gpus=count,
            gpus_per_node=min(count, gpus_per_node),
            price_per_gpu_hour=placement.price_per_gpu_hour if gpu in (None, placement.gpu) else None,
            currency=placement.currency,
        )
    return place if price is None else replace(place, price_per_gpu_hour=price)


def _rows(
    config: RunConfig, places: "dict[str, Place]", plan_folder: Path | None, dataset: Path | None
) -> dict[str, Any]:
    """The rows of each stage: of a given plan, of plans made now, or those that the mixture lets expect."""
    import tempfile

    from vl3.planning.stage import stage_rows

    if dataset is None:
        return {name: stage_rows(config, name, place.gpus, plan_folder) for name, place in places.items()}
    from vl3.cli.data import built_datasets
    from vl3.data.plan.of_run import plan_request
    from vl3.data.plan.planner import plan_stage

    datasets, found = built_datasets(dataset), {}
    for name, place in places.items():
        with tempfile.TemporaryDirectory(prefix="vl3-plan-") as folder:
            plan_stage([*datasets.values()], Path(folder), plan_request(config, name, [*datasets]))
            found[name] = stage_rows(config, name, place.gpus, Path(folder))
    return found


def _configured(
    config: RunConfig, model: Any, places: "dict[str, Place]", rows: dict[str, Any]
) -> "list[StageForecast]":
    from vl3.planning.stage import plan_stage_on

    return [plan_stage_on(config, name, place, model, rows[name]) for name, place in places.items()]


def _as_json(
    config: RunConfig, model: Any, places: "dict[str, Place]", rows: dict[str, Any], notes: list[str]
) -> dict[str, Any]:
    from dataclasses import asdict

    from vl3.planning.fit import all_shardings
    from vl3.planning.parameters import count_parameters
    from vl3.planning.report import assumptions
    from vl3.planning.stage import to_json

    plans = _configured(config, model, places, rows)
    return {
        "recipe": config.name,
        "parameters": asdict(count_parameters(model)),
        "stages": [to_json(one) for one in plans],
        "shardings": {
            name: [to_json(one) for one in all_shardings(config, name, place, model, rows[name])]
            for name, place in places.items()
        },
        "assumptions": assumptions(plans, notes),
    }


def _as_text(config: RunConfig, model: Any, places: "dict[str, Place]", rows: dict[str, Any], notes: list[str]) -> str:
    from vl3.planning.fit import all_shardings
    from vl3.planning.parameters import TrainedParts
    from vl3.planning.report import (
        assumptions,
        flops_table,
        host_table,
        memory_table,
        parameter_table,
        step_line,
        time_table,
    )

    plans = _configured(config, model, places, rows)
    trained = {name: TrainedParts.of(config.stages[name]) for name in places}
    blocks = [_table(parameter_table(model, trained)), _table(time_table(plans))]
    for one in plans:
        place = places[one.stage]
        shardings = all_shardings(config, one.stage, place, model, rows[one.stage])
        if len(places) > 1:
            shardings = [one, *(other for other in shardings if other.sharding != one.sharding)][:_SHOWN]
        title = f"{one.stage} on {place.gpus} {place.gpu}, GiB; rows of {one.rows.mean.length_tokens:,.0f} tokens and "
        title += f"{one.rows.mean.patches:,.0f} patches on average"
        blocks.append(f"{title}\n{_table(memory_table(shardings))}")
        if len(places) == 1:
            blocks += [_table(host_table(one)), f"{_table(flops_table(one))}\n{step_line(one)}"]
        blocks += [f"{one.stage} does not fit as configured: {problem}" for problem in one.problems]
    lines = "\n".join(f"- {line}" for line in assumptions(plans, notes))
    return "\n\n".join([*blocks, f"assumed:\n{lines}"])


def _table(table: tuple[tuple[str, ...], list[tuple[str, ...]]]) -> str:
    head, rows = table
    return aligned([head, *rows])
