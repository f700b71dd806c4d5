"""Charts as inline SVG, coloured by the report's style sheet so that they follow light and dark mode.

Every chart is about as wide as a phone, so that its labels stay readable on any screen; wide pages place several side
by side. Each chart has a title and a description for screen readers, and each point has a tooltip. Texts are escaped
here; the functions return markup.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vl3.report.text import number_text, short_number

WIDTH, HEIGHT = 340, 196
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 12, 28
SCORE_WIDTH, SCORE_HEIGHT, SCORE_LEFT = 210, 136, 36
_LEAST_BARS = 6
"""Bins that a histogram shows at least: a single bar over the whole width would look like an area."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line of a chart."""

    name: str
    css_class: str
    """CSS class that gives the line its colour."""
    points: Sequence[tuple[float, float]]
    """x and y of each point; points that are not finite are left out."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps a range of values to a range of pixels, linear or logarithmic.

    Scale(0, 10, 44, 330) maps 5 to 187 and 12 to 330; Scale(1, 100, 0, 200, log=True) maps 10 to 100.
    """

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The position of a value in pixels; values outside the range are put at its end."""
        low, high, at = (math.log10(max(v, 1e-12)) if self.log else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.start_px + min(max(share, 0.0), 1.0) * (self.end_px - self.start_px), 2)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values within the range, for the labels of the axis."""
        return log_ticks(self.low, self.high, count) if self.log else linear_ticks(self.low, self.high, count)


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` multiples of 1, 2, 2.5 or 5 times a power of ten, from low to high.

    From 0 to 47 with count=5: the raw step 11.75 is rounded up to 20, so 0 20 40. From 0.93 to 1.1: 0.95 1 1.05 1.1.
    """
    if high <= low:
        return [low]
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """1, 2 and 5 times powers of ten from low to high, or 1 and 3 times, or only powers, if that gives too many.

    With count=5: from 0.3 to 8 it gives 0.5 1 2 5, from 0.01 to 2 it gives 0.01 0.03 0.1 0.3 1.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(inside) <= count + 1:
            return inside
    return inside


def tick_text(value: float) -> str:
    """A short label for an axis: 0.05, 3, 1.5k, 2e-5."""
    if value and abs(value) < 1e-3:
        return number_text(float(f"{value:.0e}"))
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    x_label: str,
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
) -> Markup:
    """Lines over one x axis.

    Args:
        series: the lines; if none has a finite point, the result is empty.
        title: what the chart shows, for screen readers and as the tooltip of the chart.
        description: the message of the chart in one sentence.
        x_label: name of the x axis.
        log_y: logarithmic y axis; points that are not positive are left out.
        y_range: values that the y axis must include; None for only those of the points.
    """
    lines = [(one, [p for p in one.points if _drawable(p, log_y)]) for one in series]
    points = [point for _, line in lines for point in line]
    if not points:
        return Markup("")
    x_scale, y_scale = _scales(points, log_y, y_range)
    body = [_axes(x_scale, y_scale, x_label)]
    body += [_line(one, line, x_scale, y_scale, x_label) for one, line in lines if line]
    return svg(title, description, Markup("").join(body))


def _drawable(point: tuple[float, float], log_y: bool) -> bool:
    return math.isfinite(point[1]) and (point[1] > 0 or not log_y)


def _scales(points: list[tuple[float, float]], log_y: bool, y_range: tuple[float, float] | None) -> tuple[Scale, Scale]:
    xs, ys = [x for x, _ in points], [*(y for _, y in points), *(y_range or ())]
    low, high = min(ys), max(ys)
    margin = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
    if log_y:
        low, high = low / 1.15, high * 1.15
    else:
        low, high = (low if low == 0 else low - margin), high + margin
    return Scale(min(0.0, *xs), max(xs), LEFT, WIDTH - RIGHT), Scale(low, high, HEIGHT - BOTTOM, TOP, log_y)


def _axes(x_scale: Scale, y_scale: Scale, x_label: str) -> Markup:
    parts = [_y_axis(y_scale), _x_axis(x_label)]
    for tick in x_scale.ticks(4):
        text = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
        parts.append(text.format(x_scale(tick), HEIGHT - BOTTOM + 15, tick_text(tick)))
    return Markup("").join(parts)


def _y_axis(y_scale: Scale, *, percent: bool = False) -> Markup:
    parts = []
    for tick in y_scale.ticks():
        y = y_scale(tick)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, y, y))
        text = Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>')
        parts.append(text.format(LEFT - 6, y + 4, f"{tick * 100:g} %" if percent else tick_text(tick)))
    return Markup("").join(parts)


def _x_axis(x_label: str) -> Markup:
    """The line and its name, without ticks."""
    axis = Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    label = Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>')
    line = axis.format(LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM, HEIGHT - BOTTOM)
    return line + label.format(WIDTH - RIGHT, HEIGHT - 1, x_label)


def _line(series: Series, points: list[tuple[float, float]], x_scale: Scale, y_scale: Scale, x_label: str) -> Markup:
    path = " ".join(f"{x_scale(x)},{y_scale(y)}" for x, y in points)
    line = Markup('<polyline class="line {}" points="{}"/>').format(series.css_class, path)
    dot = Markup('<circle class="dot {}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>')
    radius = 3.5 if len(points) == 1 else 2.25
    dots = [
        dot.format(
            series.css_class,
            x_scale(x),
            y_scale(y),
            radius,
            f"{series.name}: {short_number(y)} at {x_label} {number_text(x)}",
        )
        for x, y in points
    ]
    return line + Markup("").join(dots)


def svg(title: str, description: str, body: Markup, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    """The frame of a chart, which says title and description to screen readers."""
    frame = Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><desc>{}</desc>{}</svg>'
    )
    return frame.format(width, height, f"{title}. {description}", title, description, body)


def histogram(edges: Sequence[float], counts: Sequence[int], *, title: str, description: str, x_label: str) -> Markup:
    """Bars of equal width, one for each bin from the first to the last that has samples, and at least some.

    Args:
        edges: lower edge of each bin but the first, which has everything below.
        counts: samples in each bin; if there are none, the result is empty.
        title: what the chart shows, for screen readers and as the tooltip of the chart.
        description: the message of the chart in one sentence.
        x_label: unit of the edges.
    """
    filled = [place for place, count in enumerate(counts) if count]
    if not filled:
        return Markup("")
    first, total = filled[0], sum(counts)
    last = min(max(filled[-1], first + _LEAST_BARS - 1), len(counts) - 1)
    y_scale = Scale(0.0, max(counts) / total, HEIGHT - BOTTOM, TOP)
    width = (WIDTH - RIGHT - LEFT) / (last - first + 1)
    parts = [_y_axis(y_scale, percent=True), _x_axis(x_label)]
    for place in range(first, last + 1):
        y = y_scale(counts[place] / total)
        bar = Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
        span = f"{_bin_text(edges, place)} {x_label}: {counts[place]:,} samples ({counts[place] / total:.1%})"
        x = round(LEFT + (place - first) * width, 2)
        parts.append(bar.format(x, y, round(max(width - 1, 0.5), 2), round(HEIGHT - BOTTOM - y, 2), span))
    every = math.ceil((last - first + 1) / 6)
    for place in range(first, last + 1, every):
        x = round(LEFT + (place - first) * width, 2)
        text = Markup('<text class="tick" x="{}" y="{}">{}</text>')
        parts.append(text.format(x, HEIGHT - BOTTOM + 15, tick_text(float(f"{edges[place - 1]:.2g}") if place else 0)))
    return svg(title, description, Markup("").join(parts))


def _bin_text(edges: Sequence[float], place: int) -> str:
    """The values of a bin: `below 1`, `1 to 1.41`, `2.83 and more`."""
    if place == 0:
        return f"below {short_number(edges[0])}"
    if place == len(edges):
        return f"{short_number(edges[-1])} and more"
    return f"{short_number(edges[place - 1])} to {short_number(edges[place])}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorePoint:
    """Accuracy of one model in an accuracy chart."""

    label: str
    """Short name under the axis."""
    accuracy: float
    low: float
    high: float
    css_class: str = ""
    hollow: bool = False
    """Drawn as a ring: the stage's mixture does not contain this category."""


def accuracy_chart(points: Sequence[ScorePoint], *, chance: float | None, title: str, description: str) -> Markup:
    """Accuracy of each model from 0 to 1 with its interval, and chance as a dashed line."""
    y_scale = Scale(0.0, 1.0, SCORE_HEIGHT - 24, 10)
    gap = (SCORE_WIDTH - SCORE_LEFT - RIGHT / 2) / len(points)
    xs = [round(SCORE_LEFT + gap * (index + 0.5), 2) for index in range(len(points))]
    body = [_score_axis(y_scale, tick) for tick in (0.0, 0.25, 0.5, 0.75, 1.0)]
    if chance is not None:
        body.append(_across("chance", y_scale(chance)))
    path = " ".join(f"{x},{y_scale(point.accuracy)}" for x, point in zip(xs, points, strict=True))
    body.append(Markup('<polyline class="line s-model" points="{}"/>').format(path))
    body += [_score(x, point, y_scale) for x, point in zip(xs, points, strict=True)]
    return svg(title, description, Markup("").join(body), SCORE_WIDTH, SCORE_HEIGHT)


def _across(css_class: str, y: float) -> Markup:
    line = Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    return line.format(css_class, SCORE_LEFT, SCORE_WIDTH, y, y)


def _score_axis(y_scale: Scale, tick: float) -> Markup:
    y = y_scale(tick)
    line = _across("axis" if tick == 0 else "grid", y)
    if tick not in (0.0, 0.5, 1.0):
        return line
    text = Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>')
    return line + text.format(SCORE_LEFT - 5, y + 4, f"{tick:.0%}")


def _score(x: float, point: ScorePoint, y_scale: Scale) -> Markup:
    tip = f"{point.label}: {point.accuracy:.1%} (95 % interval {point.low:.1%} to {point.high:.1%})"
    classes = " ".join(filter(None, ("score", "hollow" if point.hollow else "", point.css_class)))
    return Markup(
        '<g><title>{}</title><line class="interval" x1="{x}" x2="{x}" y1="{}" y2="{}"/>'
        '<circle class="{}" cx="{x}" cy="{}" r="4.5"/>'
        '<text class="tick" x="{x}" y="{}" text-anchor="middle">{}</text></g>'
    ).format(
        tip,
        y_scale(point.low),
        y_scale(point.high),
        classes,
        y_scale(point.accuracy),
        SCORE_HEIGHT - 5,
        point.label,
        x=x,
    )
