"""A bar for each of a few models, with its interval and a published value, as inline SVG (see vl3.report.charts)."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vl3.report.charts import Scale, linear_ticks, svg, tick_text
from vl3.report.text import short_number

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 260, 150, 40, 6, 10, 22
_BAR_SHARE = 0.55
"""Width of a bar, of the space that it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One model in a bar chart."""

    label: str
    """Short name under the axis."""
    value: float | None
    """Height of the bar; None if it was not measured, and only the published value is drawn."""
    interval: tuple[float, float] | None = None
    """Lower and upper end of the value's interval."""
    published: float | None = None
    """A published value, drawn as a line across the bar's place."""


def bar_chart(bars: Sequence[Bar], *, percent: bool, title: str, description: str) -> Markup:
    """Bars from 0 to the largest value, or to 100 % of shares.

    Args:
        bars: one for each model; if none has a value of any kind, the result is empty.
        percent: whether values are shares from 0 to 1.
        title: what the chart shows, for screen readers and as the tooltip of the chart.
        description: the message of the chart in one sentence.
    """
    values = [one for bar in bars for one in (bar.value, bar.published) if one is not None]
    if not values:
        return Markup("")
    top = 1.0 if percent else max(values) or 1.0
    y_scale = Scale(0.0, top, _HEIGHT - _BOTTOM, _TOP)
    body = [_tick(y_scale, tick, percent=percent) for tick in linear_ticks(0.0, top, 4)]
    place = (_WIDTH - _RIGHT - _LEFT) / len(bars)
    for number, bar in enumerate(bars):
        body.append(_bar(bar, _LEFT + place * (number + 0.5), place * _BAR_SHARE, y_scale, percent=percent))
    return svg(title, description, Markup("").join(body), _WIDTH, _HEIGHT)


def _tick(y_scale: Scale, tick: float, *, percent: bool) -> Markup:
    y = y_scale(tick)
    line = Markup('<line class="{}" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
        "axis" if tick == 0 else "grid", _LEFT, _WIDTH, y=y
    )
    text = Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>')
    return line + text.format(_LEFT - 5, y + 4, f"{tick:.0%}" if percent else tick_text(tick))


def _bar(bar: Bar, centre: float, width: float, y_scale: Scale, *, percent: bool) -> Markup:
    shown = "{:.1%}".format if percent else short_number
    said = [bar.label]
    parts: list[Markup] = []
    left, right = round(centre - width / 2, 2), round(centre + width / 2, 2)
    if bar.value is not None:
        y = y_scale(bar.value)
        rect = Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"/>')
        parts.append(rect.format(left, y, round(width, 2), round(y_scale(0.0) - y, 2)))
        said.append(f"{shown(bar.value)}")
    if bar.value is not None and bar.interval is not None:
        low, high = bar.interval
        line = Markup('<line class="interval" x1="{x}" x2="{x}" y1="{}" y2="{}"/>')
        parts.append(line.format(y_scale(low), y_scale(high), x=round(centre, 2)))
        said.append(f"95 % interval {shown(low)} to {shown(high)}")
    if bar.published is not None:
        line = Markup('<line class="chance" x1="{}" x2="{}" y1="{y}" y2="{y}"/>')
        parts.append(line.format(left - 4, right + 4, y=y_scale(bar.published)))
        said.append(f"published {shown(bar.published)}")
    text = Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>')
    parts.append(text.format(round(centre, 2), _HEIGHT - 6, bar.label))
    return Markup("<g><title>{}</title>{}</g>").format(
        ": ".join([said[0], ", ".join(said[1:]) or "not measured"]), Markup("").join(parts)
    )
