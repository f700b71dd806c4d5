"""The page docs/stages.md, made from the recipes, so that the table cannot drift from what runs."""

from collections.abc import Callable

from vl3.config.data import Category
from vl3.config.run import RunConfig
from vl3.config.stages import StageConfig
from vl3.recipes.catalog import get_recipe, recipe_names

_HEAD = """# The stages

<!-- Made from the recipes by `make stages-table`; do not edit. -->

Each recipe trains four stages. A stage starts from the former one's weights alone; optimizer state is not handed on.
What a stage is meant to add: **1** teaches the encoder any resolution and gives birth to the projector, while the
language model is frozen; **2** aligns all parts on detailed image data and text; **3** tunes to instructions on
images, text and general video; **4** adds streaming and temporal grounding.

Values are those of `src/vl3/recipes/`; `vl3 recipe show NAME --stage STAGE` prints everything that a stage uses.
Weights of a mixture are relative; those of the big recipes are the paper's amounts in samples.
"""


def stage_page() -> str:
    """The whole page as Markdown: one section a recipe."""
    return "\n".join([_HEAD, *(_section(get_recipe(name)) for name in recipe_names())])


def _section(config: RunConfig) -> str:
    rows = list(config.stages.values())
    lines = [
        f"## {config.name}",
        "",
        *_table(
            ["", *(f"{number} {name}" for number, name in enumerate(config.stages, 1))], [*_rows(rows), _placed(config)]
        ),
    ]
    shared = (
        f"Shared: rows of at most {config.data.max_length_tokens} tokens, {config.data.visual_budget_tokens} visual "
        f"tokens a sample, {config.data.video_fps:g} fps, at most {config.data.max_frames} frames; warm-up "
        f"{config.optimizer.warmup_ratio:g}, cosine; ZeRO {config.engine.zero_stage}, {config.engine.precision}, "
        f"{config.launch.processes_per_node} processes on one machine."
    )
    return "\n".join([*lines, "", shared, ""])


def _placed(config: RunConfig) -> list[str]:
    """The row that says where each stage runs on a cluster."""
    placements = [config.placements[name] for name in config.stages]
    return ["on a cluster", *(f"{row.nodes} x {row.processes_per_node} on {row.pool}" for row in placements)]


def _rows(stages: list[StageConfig]) -> list[list[str]]:
    settings: list[tuple[str, Callable[[StageConfig], str]]] = [
        ("steps", lambda row: f"{row.steps}"),
        ("packed rows a step", lambda row: f"{row.packs_per_step}"),
        ("rate, vision encoder", lambda row: _rate(row.learning_rates.vision)),
        ("rate, projector", lambda row: _rate(row.learning_rates.projector)),
        ("rate, language model", lambda row: _rate(row.learning_rates.language)),
        ("image merge", lambda row: f"{row.image_merge_size}"),
        ("video merge", lambda row: f"{row.video_merge_size}"),
        ("DiffFP", lambda row: "on" if row.difffp else "off"),
    ]
    kinds = sorted({kind for row in stages for kind in row.mixture}, key=_category_order)
    table = [[title, *(show(row) for row in stages)] for title, show in settings]
    return table + [[f"weight, {kind}", *(_weight(row.mixture.get(kind)) for row in stages)] for kind in kinds]


def _category_order(kind: str) -> tuple[int, str]:
    return list(Category).index(Category(kind.partition(":")[0])), kind


def _rate(rate: float | None) -> str:
    return "frozen" if rate is None else f"{rate:g}"


def _weight(weight: float | None) -> str:
    return "" if weight is None else f"{weight:,.10g}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
