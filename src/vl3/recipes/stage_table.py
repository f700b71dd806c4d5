"""The page docs/stages.md, made from the recipes, so that the table cannot drift from what runs."""

from collections.abc import Callable
from dataclasses import asdict

from vl3.config.data import Category
from vl3.config.mixture import MixtureKey, MixtureValue, draw_of
from vl3.config.run import RunConfig
from vl3.config.stages import StageConfig
from vl3.recipes.catalog import get_recipe, recipe_names

_HEAD = """# The stages

<!-- Made from the recipes by `make stages-table`; do not edit. -->

Which values does each stage of each recipe train with? To change one, edit the recipe in `src/vl3/recipes/`; for one
run, use `--set stages.STAGE.FIELD=VALUE`. `vl3 recipe show NAME --stage STAGE` prints everything that a stage uses.

Each stage starts from the weights of the previous one, without its optimizer state. The recipes of the method have
four:

1. `vision_adaptation` teaches the encoder to accept any resolution and trains the projector from scratch; the language
   model is frozen.
2. `alignment` trains all parts on detailed image data and text.
3. `multitask` is instruction tuning on images, text and general video.
4. `video` adds streaming and temporal grounding.

Those of the [encoder ablation](ablation.md) have three, the same for each of its encoders, which stay frozen:
`projector` trains the projector alone, `alignment` and `instruction` also the language model.

What a mixture draws are proportions in a stage of steps, and numbers of samples in an epoch in one of epochs. The large
recipes name the paper's datasets with its amounts; how a row of its tables is split among them is not published, and a
choice of ours that `src/vl3/recipes/mixtures/vl3/` explains. [What a mixture may
say](data-formats.md#6-corpora-and-mixtures).
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
        f"All stages: rows of at most {config.data.max_length_tokens} tokens and {config.data.max_row_visual_tokens} "
        "vision tokens; per sample at most "
        f"{config.data.visual_budget_tokens} vision tokens and {config.data.max_frames} frames at "
        f"{config.data.video_fps:g} fps; cosine schedule with warm-up {config.optimizer.warmup_ratio:g}; ZeRO "
        f"{config.engine.zero_stage}, {config.engine.precision}; {config.launch.processes_per_node} processes when run "
        "on one machine."
    )
    return "\n".join([*lines, "", shared, ""])


def _placed(config: RunConfig) -> list[str]:
    """The row that says where each stage runs on a cluster."""
    placements = [config.placements[name] for name in config.stages]
    cells = (f"{row.nodes} x {row.processes_per_node}, pool {row.pool}" for row in placements)
    return ["nodes x processes on a cluster", *cells]


def _rows(stages: list[StageConfig]) -> list[list[str]]:
    settings: list[tuple[str, Callable[[StageConfig], str]]] = [
        ("steps", _steps),
        ("batch of a step", _batch),
        ("learning rate, vision encoder", lambda row: _rate(row.learning_rates.vision)),
        ("learning rate, projector", lambda row: _rate(row.learning_rates.projector)),
        ("learning rate, language model", lambda row: _rate(row.learning_rates.language)),
        ("image merge", lambda row: f"{row.image_merge_size}"),
        ("video merge", lambda row: f"{row.video_merge_size}"),
        ("DiffFP", lambda row: "on" if row.difffp else "off"),
    ]
    kinds = sorted(dict.fromkeys(kind for row in stages for kind in row.mixture), key=_category_order)
    table = [[title, *(show(row) for row in stages)] for title, show in settings]
    return table + [[f"mixture, {kind}", *(_amount(row.mixture.get(kind)) for row in stages)] for kind in kinds]


def _steps(row: StageConfig) -> str:
    return f"{row.steps}" if row.epochs is None else f"as the plan counts: {row.epochs:g} epoch(s)"


def _batch(row: StageConfig) -> str:
    if row.samples_per_step is None:
        return f"{row.packs_per_step} packed rows"
    return f"about {row.samples_per_step} samples, in a multiple of {row.packs_divisible_by} packed rows"


def _category_order(kind: str) -> tuple[int, str]:
    """Categories in their order with their sources; then datasets, as the mixtures have them."""
    key = MixtureKey.parse(kind)
    if key.dataset is not None or key.category is None:
        return len(Category), ""
    return list(Category).index(key.category), kind


def _rate(rate: float | None) -> str:
    return "frozen" if rate is None else f"{rate:g}"


def _amount(value: MixtureValue | None) -> str:
    """`1,000,000`, or `1,000,000, max_epochs 2`."""
    if value is None:
        return ""
    fields = {name: number for name, number in asdict(draw_of(value)).items() if number is not None}
    return ", ".join(
        f"{number:,.10g}" if name == "amount" else f"{name} {number:,.10g}" for name, number in fields.items()
    )


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
