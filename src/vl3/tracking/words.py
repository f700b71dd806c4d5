"""What MLflow's page of a run says in words, as Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass

from vl3.tracking.params import flatten

_MAX_SETTINGS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangedSetting:
    """A setting of a run that is not the recipe's."""

    setting: str
    """Its path, `stages.video.steps`."""
    recipe: str
    """Its value in the recipe."""
    run: str
    """Its value in the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """What a run has to show at its end."""

    state: str
    """`champion`, `refused`, or `none` of a run that only evaluates."""
    reason: str
    """Why."""
    model: str
    """Name of the registered model; of a run that only evaluates, the address of the model that it was given."""
    version: int | None
    """The model version of its last stage; None if nothing was trained."""
    before: float | None
    """Mean held-out accuracy before training."""
    after: Mapping[str, float | None]
    """Mean held-out accuracy after each stage, in order."""
    categories: Mapping[str, float | None]
    """Accuracy of the last stage by category."""
    report: str
    """Where the report page is."""

    @property
    def mean(self) -> float | None:
        """Mean held-out accuracy of the last stage, or of the model that was given."""
        return list(self.after.values())[-1] if self.after else self.before


def changes(recipe: Mapping[str, object], run: Mapping[str, object]) -> list[ChangedSetting]:
    """The settings in which a run differs from its recipe, in the order of the recipe.

    Recipe {"seed": 0, "data": {"max_frames": 8}} and run {"seed": 1, "data": {"max_frames": 8}}: seed, from 0 to 1.
    """
    former, now = flatten(recipe), flatten(run)
    names = [*now, *(name for name in former if name not in now)]
    return [
        ChangedSetting(setting=name, recipe=former.get(name, "-"), run=now.get(name, "-"))
        for name in names
        if former.get(name) != now.get(name)
    ]


def describe_start(recipe: str, data_uri: str, changed: list[ChangedSetting]) -> str:
    """The description while a run is under way, or after it failed."""
    return "\n\n".join([f"Recipe **{recipe}** on the data `{data_uri}`.", _settings(changed)])


def describe_failure(state: str, task: str, error: str) -> str:
    """The first paragraph of a run that did not come to its end."""
    if state == "KILLED" and not error:
        error = "it was cancelled, or a pod was killed before it could say why"
    word = "was stopped" if state == "KILLED" else "failed"
    where = f" in **{task}**" if task else ""
    return f"The run **{word}**{where}{f': {error}' if error else ''}"


def describe_end(start: str, results: Results) -> str:
    """The description of a run that came to its end: the verdict first."""
    where = f"The report is `report.html` among the artifacts, and at `{results.report}`."
    mean = f"Mean held-out accuracy **{_shown(results.mean)}** over {len(results.categories)} categories"
    if results.version is None:
        return "\n\n".join([f"Evaluates {_cell(results.model)}; nothing is trained.", f"{mean}.", where, start])
    version = f"[{results.model} version {results.version}](#/models/{results.model}/versions/{results.version})"
    verdict = "is the **champion**" if results.state == "champion" else "was **refused**"
    stages = ", ".join(f"{stage} {_shown(mean)}" for stage, mean in results.after.items())
    return "\n\n".join(
        [
            f"{version} {verdict}: {results.reason}.",
            f"{mean} (before training {_shown(results.before)}; after each stage: {stages}).",
            where,
            start,
        ]
    )


def _settings(changed: list[ChangedSetting]) -> str:
    if not changed:
        return "Every setting is the recipe's."
    rows = [f"| `{one.setting}` | {_cell(one.recipe)} | {_cell(one.run)} |" for one in changed[:_MAX_SETTINGS]]
    more = (
        f"\n\nand {len(changed) - _MAX_SETTINGS} more (parameters `changed...`)" if len(changed) > _MAX_SETTINGS else ""
    )
    return (
        "\n".join(["Settings that differ from the recipe:\n\n| setting | recipe | this run |", "|---|---|---|", *rows])
        + more
    )


def _cell(text: str) -> str:
    """Text that cannot break out of its cell."""
    return "`" + text.replace("`", "'").replace("|", "\\|").replace("\n", " ")[:120] + "`"


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
