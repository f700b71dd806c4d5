"""How many tokens of a video DiffFP keeps at each threshold, on both scales, as a table and as a plot.

Shapes: F frames · H height px · W width px · C channels · M vision tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from vl3.config.data import DataConfig, DiffFPScale
from vl3.conventions import PATCH_SIZE_PX
from vl3.data.sample.difffp import change_limit, change_sums, force_min_tokens
from vl3.data.sample.geometry import fit_size
from vl3.data.sample.image import resize_image
from vl3.data.sample.video import open_video
from vl3.errors import DataError
from vl3.report.charts import Scale, tick_text

THRESHOLDS = {
    DiffFPScale.RELEASED: (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0),
    DiffFPScale.RLT: (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
}
"""The thresholds to study; 0 drops only identical tokens."""
UNITS = {
    DiffFPScale.RELEASED: "mean change x 255 of pixels in [-1, 1] (1 = half a grey level)",
    DiffFPScale.RLT: "mean change of ImageNet-normalised pixels (0.1 = about 5.8 grey levels)",
}
PANEL_WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 380, 260, 46, 34, 44, 24
COLOURS = ("#1f6feb", "#d1580c", "#2a8f4f", "#8a3ffc", "#c2185b", "#00838f", "#7a5c00", "#555555")


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptShares:
    """The shares of one video's tokens that DiffFP keeps."""

    name: str
    num_frames: int
    tokens_of_frame: int
    shares: dict[DiffFPScale, tuple[float, ...]]
    """Share of tokens kept, one for each of THRESHOLDS[scale]."""


def study_video(path: Path, data: DataConfig, merge_size: int) -> KeptShares:
    """Kept shares of a video, with frames sampled and resized as for training.

    Raises:
        DataError: the file does not exist or cannot be decoded.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file. Give the path of a video.")
    frames_FHWC = _read_frames(path, data, merge_size)
    side_px = PATCH_SIZE_PX * merge_size
    shares = {}
    for scale, thresholds in THRESHOLDS.items():
        sums_FM = change_sums(frames_FHWC, side_px, scale)
        limits = [change_limit(threshold, side_px * side_px * 3, scale) for threshold in thresholds]
        shares[scale] = tuple(_share(sums_FM > limit, data.difffp_min_tokens) for limit in limits)
    tokens = frames_FHWC.shape[1] * frames_FHWC.shape[2] // side_px**2
    return KeptShares(name=path.name, num_frames=len(frames_FHWC), tokens_of_frame=tokens, shares=shares)


def _read_frames(path: Path, data: DataConfig, merge_size: int) -> np.ndarray:
    with open_video(path, str(path)) as source:
        plan = source.plan(fps=data.video_fps, max_frames=data.max_frames)
        height_px, width_px = fit_size(
            source.facts.height_px,
            source.facts.width_px,
            num_items=len(plan.pts_F),
            merge_size=merge_size,
            min_tokens=data.min_item_tokens,
            max_tokens=data.visual_budget_tokens,
        )
        return np.stack([resize_image(frame, height_px, width_px) for frame in source.frames(plan)])


def _share(changed_FM: np.ndarray, min_tokens: int) -> float:
    keep_FM = np.concatenate([np.ones((1, changed_FM.shape[1]), dtype=bool), changed_FM])
    force_min_tokens(keep_FM, min_tokens)
    return float(keep_FM.mean())


def kept_table(studies: Sequence[KeptShares]) -> str:
    """A table for each scale with one line per threshold and one column per video."""
    names = [f"{study.name} ({study.num_frames} x {study.tokens_of_frame})" for study in studies]
    widths = [max(len(name), 7) for name in names]
    lines = []
    for scale, thresholds in THRESHOLDS.items():
        lines += [f"kept share by threshold, scale {scale.value}: {UNITS[scale]}"]
        lines += ["  ".join(["threshold", *(name.rjust(width) for name, width in zip(names, widths, strict=True))])]
        for index, threshold in enumerate(thresholds):
            shares = [f"{study.shares[scale][index]:.1%}" for study in studies]
            cells = (share.rjust(width) for share, width in zip(shares, widths, strict=True))
            lines.append("  ".join([f"{threshold:9g}", *cells]))
        lines.append("")
    return "\n".join(lines).rstrip()


def kept_plot(studies: Sequence[KeptShares]) -> Markup:
    """The shares as SVG: one panel per scale, one line per video. Threshold 0 is left out: the axis is logarithmic."""
    width = 2 * PANEL_WIDTH + GAP
    height = HEIGHT + 18 * len(studies) + 8
    panels = [_panel(scale, studies, index * (PANEL_WIDTH + GAP)) for index, scale in enumerate(THRESHOLDS)]
    legend = Markup("").join(_legend(study, index) for index, study in enumerate(studies))
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#333">'
        "<title>Share of vision tokens that DiffFP keeps, by threshold</title>"
        '<rect width="{w}" height="{h}" fill="#fff"/>{body}</svg>\n'
    ).format(w=width, h=height, body=Markup("").join(panels) + legend)


def _panel(scale: DiffFPScale, studies: Sequence[KeptShares], left: int) -> Markup:
    thresholds = THRESHOLDS[scale][1:]
    x = Scale(thresholds[0], thresholds[-1], left + LEFT, left + PANEL_WIDTH - 8, log=True)
    y = Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    parts = [_text(left + LEFT, TOP - 14, f"scale {scale.value}", "start", weight="600")]
    parts.append(_text(left + PANEL_WIDTH - 8, HEIGHT - 8, UNITS[scale], "end", size=10))
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        line = Markup('<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="#ddd"/>')
        parts.append(line.format(left + LEFT, left + PANEL_WIDTH - 8, y(tick), y(tick)))
        parts.append(_text(left + LEFT - 6, y(tick) + 4, f"{tick:.0%}", "end"))
    parts += [_text(x(tick), HEIGHT - BOTTOM + 16, tick_text(tick), "middle", size=10) for tick in thresholds]
    for index, study in enumerate(studies):
        points = " ".join(f"{x(t)},{y(s)}" for t, s in zip(thresholds, study.shares[scale][1:], strict=True))
        line = Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="2"><title>{}</title></polyline>')
        parts.append(line.format(points, COLOURS[index % len(COLOURS)], study.name))
    return Markup("").join(parts)


def _legend(study: KeptShares, index: int) -> Markup:
    y = HEIGHT + 14 + 18 * index
    line = Markup('<line x1="{}" x2="{}" y1="{}" y2="{}" stroke="{}" stroke-width="3"/>')
    text = f"{study.name}: {study.num_frames} frames of {study.tokens_of_frame} tokens"
    return line.format(LEFT, LEFT + 22, y - 4, y - 4, COLOURS[index % len(COLOURS)]) + _text(LEFT + 30, y, text)


def _text(x: float, y: float, text: str, anchor: str = "start", *, size: int = 12, weight: str = "400") -> Markup:
    element = Markup('<text x="{}" y="{}" text-anchor="{}" font-size="{}" font-weight="{}">{}</text>')
    return element.format(x, y, anchor, size, weight, text)
