"""The page of `vl3 eval compare`: scores of two evaluations, and the answers that changed with their media."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vl3.report.render import render
from vl3.report.text import label
from vl3.report.view import ItemPictures
from vl3.system.files import atomic_write_text


def write_item_comparison(comparison: dict[str, Any], path: Path, folders: Mapping[str, Path]) -> None:
    """Write the comparison as a page that needs no other file.

    Args:
        comparison: what vl3.evaluation.compare.compare_evaluations returns.
        path: the page.
        folders: folder of each evaluation by its name, for the pictures.

    Raises:
        StorageError: it cannot be written.
    """
    first, second = (f"{comparison[side]['name']} ({comparison[side]['model']})" for side in ("first", "second"))
    found = comparison["pictures"]
    page = render(
        "item_comparison.html.j2",
        title=f"{first} and {second} · vl3",
        filters={"short_label": label},
        c=comparison,
        first=first,
        second=second,
        item_pictures=ItemPictures(found["paths"], folders.get(found["name"])),
    )
    atomic_write_text(path, page)
