"""What commands print: aligned text for people, or with --json the same facts as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from vl3.cli.tables import aligned

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(data: Any) -> None:
    """Print JSON data, indented."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str = "") -> None:
    """Print rows with the same keys: a JSON list of objects, or text columns under their keys.

    Args:
        rows: the rows; a value None is shown as an empty text.
        as_json: whether to print JSON.
        empty: text to print if there is no row.
    """
    if as_json:
        print_json([dict(row) for row in rows])
    elif rows:
        print(
            aligned_rows([{name: "" if value is None else str(value) for name, value in row.items()} for row in rows])
        )
    elif empty:
        print(empty)


def aligned_rows(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows with the same keys as aligned text columns under their keys."""
    return aligned([tuple(rows[0]), *(tuple(row.values()) for row in rows)])
