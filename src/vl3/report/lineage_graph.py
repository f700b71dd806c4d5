"""The lineage as a drawing: what was made from what, from top to bottom."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vl3.report.text import label

WIDTH_PX, ROW_PX, BOX_PX, MARGIN_PX, GAP_PX = 340, 58, 36, 14, 10
_MAX_LETTERS_A_PX = 1 / 6.4
"""Letters of a name that fit into a pixel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Box:
    """Where a node is drawn."""

    left: float
    top: float
    width: float

    @property
    def middle(self) -> float:
        return self.left + self.width / 2


def lineage_graph(nodes: list[dict[str, Any]]) -> Markup:
    """A node below all that it was made from; data in a lane of their own at the right, because all steps read them.

    Two bases and data, a stage of all three, a model of the stage: the bases and the data are in the first row, the
    stage is in the second one below the bases, the model is in the third one.

    Args:
        nodes: each with `key`, `kind`, `name` and `parents` (keys of other nodes); unknown parents are left out.
    """
    by_key = {node["key"]: node for node in nodes}
    parents = {key: [one for one in node["parents"] if one in by_key] for key, node in by_key.items()}
    rows = _rows(parents)
    boxes = _boxes(by_key, rows)
    height = (max(rows.values(), default=0) + 1) * ROW_PX
    edges = [_edge(boxes[parent], boxes[key]) for key, found in parents.items() for parent in found]
    drawn = [_node(node, boxes[key]) for key, node in by_key.items()]
    names = {key: node["name"] for key, node in by_key.items()}
    made = [f"{names[key]} from {' and '.join(names[one] for one in found)}" for key, found in parents.items() if found]
    story = "; ".join(made) or "nothing was made"
    return Markup(
        '<svg class="chart tree" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>Lineage</title><desc>{}</desc>'
        "{}</svg>"
    ).format(WIDTH_PX, height, f"Lineage: {story}", story, Markup("").join([*edges, *drawn]))


def _rows(parents: dict[str, list[str]]) -> dict[str, int]:
    """Row of each node: one below its lowest parent. A circle, which no run makes, ends after one round each."""
    rows = dict.fromkeys(parents, 0)
    for _ in parents:
        rows = {key: max((rows[one] + 1 for one in found), default=0) for key, found in parents.items()}
    return {key: min(row, len(parents)) for key, row in rows.items()}


def _boxes(nodes: dict[str, dict[str, Any]], rows: dict[str, int]) -> dict[str, _Box]:
    data = [key for key in nodes if nodes[key]["kind"] == "data"]
    lane_px = 100 if data else 0
    boxes = {}
    for row in sorted(set(rows.values())):
        others = [key for key in nodes if rows[key] == row and key not in data]
        space = WIDTH_PX - 2 * MARGIN_PX - lane_px
        width = min((space - GAP_PX * (len(others) - 1)) / max(len(others), 1), 160)
        left = MARGIN_PX + (space - width * len(others) - GAP_PX * (len(others) - 1)) / 2
        for place, key in enumerate(others):
            boxes[key] = _Box(left=left + place * (width + GAP_PX), top=row * ROW_PX + 4, width=width)
        own = [key for key in data if rows[key] == row]
        for place, key in enumerate(own):
            part = (lane_px - GAP_PX) / len(own)
            boxes[key] = _Box(
                left=WIDTH_PX - lane_px + GAP_PX + place * part, top=row * ROW_PX + 4, width=part - GAP_PX / 2
            )
    return boxes


def _edge(parent: _Box, child: _Box) -> Markup:
    start, end = parent.top + BOX_PX, child.top
    middle = child.top + BOX_PX / 2
    if parent.left > child.left + child.width:  # from the lane of data: down, then into the side
        side = child.left + child.width
        path, head = f"M{parent.middle:.1f} {start:.1f}V{middle:.1f}H{side:.1f}", f"M{side:.1f} {middle:.1f}l6-3.5v7z"
    elif child.top - parent.top <= ROW_PX:
        bend = (start + end) / 2
        path = f"M{parent.middle:.1f} {start:.1f}C{parent.middle:.1f} {bend:.1f} {child.middle:.1f} {bend:.1f} "
        path += f"{child.middle:.1f} {end:.1f}"
        head = f"M{child.middle:.1f} {end:.1f}l-3.5-6h7z"
    else:  # past the nodes between: out to the left and back
        out = min(parent.left, child.left) - 12
        path = f"M{parent.left:.1f} {parent.top + BOX_PX / 2:.1f}H{out:.1f}V{middle:.1f}H{child.left:.1f}"
        head = f"M{child.left:.1f} {middle:.1f}l-6-3.5v7z"
    return Markup('<path class="edge" d="{}"/><path class="head" d="{}"/>').format(path, head)


def _node(node: dict[str, Any], box: _Box) -> Markup:
    name = node["name"] if node["kind"] == "model" else label(node["name"])
    most = int(box.width * _MAX_LETTERS_A_PX)
    shown = name if len(name) <= most else name[: most - 1] + "…"
    return Markup(
        '<g><title>{}</title><rect class="node k-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" rx="7"/>'
        '<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text></g>'
    ).format(
        f"{label(node['kind'])}: {name}",
        node["kind"] if node["kind"].isalpha() else "other",
        box.left,
        box.top,
        box.width,
        BOX_PX,
        box.middle,
        box.top + BOX_PX / 2 + 4,
        shown,
    )
