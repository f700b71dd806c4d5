"""What the template needs in addition to the numbers: labels, number formats, charts, and pictures as data URIs."""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vl3.report.charts import ScorePoint, Series, accuracy_chart, line_chart
from vl3.report.stage_numbers import PARTS
from vl3.report.text import duration_text, label, number_text, p_text, points_text, short_number, value_text

NOT_AVAILABLE = Markup('<span class="muted">n/a</span>')


class StageLabels:
    """The names of models on the page: the number of the stage in this run, with or without the stage's name."""

    def __init__(self, stages: Sequence[str]) -> None:
        """Number the stages, which are given in the order in which the run trained them."""
        self._numbers = {name: number for number, name in enumerate(stages, 1)}

    def model_label(self, name: str) -> str:
        """`before`, or number and name of the stage, such as `Stage 2 alignment`."""
        return f"Stage {self._numbers[name]} {label(name)}" if name in self._numbers else label(name)

    def short_label(self, name: str) -> str:
        """`S1`, `S2`, ... for a stage."""
        return f"S{self._numbers[name]}" if name in self._numbers else label(name)

    def is_stage(self, name: str) -> bool:
        """Whether the name is that of a stage of this run."""
        return name in self._numbers


def _stage_title(stage: dict[str, Any]) -> str:
    return f"Stage {stage['number']} {label(stage['stage'])}"


def _figure(value: Any, text: str) -> Markup:
    """A number as readable text, with its exact value in the markup for programs."""
    return Markup('<data value="{}">{}</data>').format(number_text(value), text)


def percent(value: Any, digits: int = 1) -> Markup:
    """0.957 as `95.7 %`."""
    return _figure(value, f"{value:.{digits}%}".replace("%", "\u2009%")) if _is_number(value) else plain(value)


def tenth(value: Any) -> Markup:
    """A score on a published scale: 79.84 as `79.8`, 1901.0 as `1901`."""
    return _figure(value, f"{value:.0f}" if value >= 200 else f"{value:.1f}") if _is_number(value) else plain(value)


def signed_percent(value: Any) -> Markup:
    """A change of accuracy in percentage points with its sign: -0.021 as `-2.1` (with a real minus sign)."""
    return _figure(value, points_text(value)) if _is_number(value) else plain(value)


def p_value(value: Any) -> Markup:
    """A p value, such as `0.031`, `0.50` or `< 0.001`."""
    return _figure(value, p_text(value)) if _is_number(value) else plain(value)


def duration(value: Any) -> Markup:
    """Seconds as `12.3 s`, `2 min 12 s` or `1 h 05 min`."""
    return _figure(value, duration_text(value)) if _is_number(value) else plain(value)


def plain(value: Any) -> Markup:
    """A number (four significant digits if not whole and below 10 000), a text, or `yes`, `no` and `n/a`."""
    if value is None or value == "":
        return NOT_AVAILABLE
    if isinstance(value, bool):
        return Markup("{}").format("yes" if value else "no")
    if not _is_number(value):
        return Markup("{}").format(value_text(value))
    if isinstance(value, int) or float(value).is_integer():
        return _figure(value, f"{int(value):,}".replace(",", "\u2009"))
    return _figure(value, short_number(value) if abs(value) < 10_000 else f"{value:,.0f}".replace(",", "\u2009"))


def setting(value: Any) -> Markup:
    """A setting with all its digits; `not set` where there is none."""
    return _figure(value, number_text(value)) if _is_number(value) else Markup("{}").format(value_text(value))


def exact(value: Any) -> Markup:
    """A number with all digits, as in report.json."""
    return _figure(value, number_text(value)) if _is_number(value) else plain(value)


def is_table(value: Any) -> bool:
    """Whether it is a table by column and row: {"train": {"chart": 9}, "heldout": {"chart": 1}}."""
    return isinstance(value, dict) and bool(value) and all(isinstance(column, dict) for column in value.values())


def row_names(columns: dict[str, dict[str, Any]]) -> list[str]:
    """The rows of such a table: those of all columns, each once."""
    return list(dict.fromkeys(row for column in columns.values() for row in column))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def stage_charts(stages: list[dict[str, Any]]) -> list[dict[str, Markup]]:
    """Charts of loss, learning rate and speed of each stage; the losses share one scale, so they can be compared."""
    losses = [loss for stage in stages for loss in stage["curve"].get("loss", []) if _is_number(loss) and loss > 0]
    y_range = (min(losses), max(losses)) if losses else None
    log_y = y_range is not None and y_range[1] / y_range[0] > 20
    return [
        {
            "loss": _loss_chart(stage, y_range, log_y),
            "rates": _rates_chart(stage),
            "speed": _curve_chart(stage, "tokens_per_second", "s-speed", "tokens/s", "Speed"),
        }
        for stage in stages
    ]


def _points(curve: dict[str, Any], name: str) -> list[tuple[float, float]]:
    pairs = zip(curve["step"], curve.get(name, []), strict=False)
    return [(float(x), float(y)) for x, y in pairs if _is_number(y)]


def _loss_chart(stage: dict[str, Any], y_range: tuple[float, float] | None, log_y: bool) -> Markup:
    series = Series(name="loss", css_class="s-loss", points=_points(stage["curve"], "loss"))
    progress = stage["progress"]
    ends = [value for value in (progress["first_loss"], progress["last_loss"]) if _is_number(value)]
    story = f"The loss goes from {short_number(ends[0])} to {short_number(ends[-1])}" if ends else "No loss was logged"
    title = f"Loss, {_stage_title(stage)}"
    return line_chart([series], title=title, description=story, x_label="step", log_y=log_y, y_range=y_range)


def _rates_chart(stage: dict[str, Any]) -> Markup:
    series = [
        Series(name=f"{part} learning rate", css_class=f"s-{part}", points=_points(stage["curve"], f"lr/{part}"))
        for part in PARTS
        if any(stage["curve"].get(f"lr/{part}", []))  # a frozen part logs 0
    ]
    rates = stage["settings"]["learning_rates"]
    story = "Peak rates: " + ", ".join(
        f"{part} {number_text(rates[part]) if rates[part] else 'frozen'}" for part in PARTS
    )
    title = f"Learning rate, {_stage_title(stage)}"
    return line_chart(series, title=title, description=story, x_label="step", y_range=_from_zero(series))


def _from_zero(series: list[Series]) -> tuple[float, float] | None:
    values = [y for one in series for _, y in one.points]
    return (0.0, max(values) or 1.0) if values else None


def _curve_chart(stage: dict[str, Any], column: str, css_class: str, name: str, title: str) -> Markup:
    series = [Series(name=name, css_class=css_class, points=_points(stage["curve"], column))]
    story = f"{name} over the steps of the stage"
    where = f"{title}, {_stage_title(stage)}"
    return line_chart(series, title=where, description=story, x_label="step", y_range=_from_zero(series))


def accuracy_charts(accuracy: dict[str, Any] | None, labels: StageLabels) -> list[dict[str, Any]]:
    """One chart per category: accuracy before training and after each stage."""
    if accuracy is None:
        return []
    return [_accuracy_chart(row, accuracy["models"], labels) for row in accuracy["categories"]]


def _accuracy_chart(row: dict[str, Any], models: list[str], labels: StageLabels) -> dict[str, Any]:
    points = [
        ScorePoint(
            label=labels.short_label(name),
            accuracy=score["accuracy"],
            low=score["low"],
            high=score["high"],
            hollow=name in row["left_out_by"],
            css_class="" if labels.is_stage(name) else "s-before",
        )
        for name in models
        if (score := row["scores"].get(name))
    ]
    story = "; ".join(f"{point.label} {point.accuracy:.1%}" for point in points)
    title = f"Accuracy, {label(row['category'])}"
    chart = accuracy_chart(points, chance=row["chance"], title=title, description=story)
    return {"category": row["category"], "chart": chart, "row": row}


def pictures(prediction: dict[str, Any], folder: Path | None) -> list[str | None]:
    """The media of a prediction as data URIs; None for a picture that is not in the evaluation's folder."""
    return [_data_uri(folder, name) for name in prediction.get("media", [])]


class ItemPictures:
    """The pictures of single items as data URIs, read when a page asks for them."""

    def __init__(self, paths: Mapping[str, Mapping[str, Sequence[str]]], folder: Path | None) -> None:
        """Take the paths by benchmark and item, within the evaluation's folder."""
        self._paths, self._folder = paths, folder

    def __call__(self, benchmark: str, item_id: str) -> list[str | None]:
        """One for each picture; None for one that is not there."""
        return [_data_uri(self._folder, name) for name in self._paths.get(benchmark, {}).get(item_id, ())]


def _data_uri(folder: Path | None, name: str) -> str | None:
    if folder is None:
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or path.suffix != ".png" or not path.is_file():
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
