"""The drawing of the lineage: rows, lanes, and names of any kind."""

import re
from typing import Any

from vl3.report.lineage_graph import lineage_graph


def node(key: str, kind: str = "checkpoint", parents: tuple[str, ...] = (), name: str = "") -> dict[str, Any]:
    return {"key": key, "kind": kind, "name": name or key, "parents": list(parents)}


def boxes(text: str) -> list[tuple[float, float]]:
    """Left and top of each box, in the order of the nodes."""
    return [(float(x), float(y)) for x, y in re.findall(r'<rect[^>]* x="([\d.]+)" y="([\d.]+)"', text)]


def test_two_bases_stand_side_by_side_above_the_stage_that_joins_them() -> None:
    nodes = [
        node("data", "data"),
        node("vision", "base"),
        node("language", "base"),
        node("one", parents=("vision", "language", "data")),
        node("two", parents=("one", "data")),
        node("model", "model", parents=("two", "one")),
    ]
    text = str(lineage_graph(nodes))
    (data, vision, language, one, two, model) = boxes(text)
    assert vision[1] == language[1] == data[1] < one[1] < two[1] < model[1]
    assert vision[0] < language[0] < data[0]
    assert text.count('class="edge"') == text.count('class="head"') == 7
    assert "one from vision and language and data; two from one and data; model from two and one" in text


def test_unknown_parents_and_circles_do_no_harm() -> None:
    text = str(lineage_graph([node("a", parents=("b", "gone")), node("b", parents=("a",))]))
    assert len(boxes(text)) == 2
    assert "nan" not in text
    assert str(lineage_graph([])).count("<rect") == 0


def test_names_are_escaped_and_shortened() -> None:
    hostile = "<script>alert('x')</script>" + "long" * 30
    text = str(lineage_graph([node("a", kind='"><script>', name=hostile)]))
    assert "<script" not in text
    assert "…</text>" in text
    assert "k-other" in text
