"""Make docs/benchmarks.md from benchmarks/results/*.json (`make benchmarks-page`).

A result file: {"title", "question", "command", "commit", "date", "machine", "versions": {name: version},
"columns": [...], "rows": [[...], ...], "notes": [...]}. Files are shown in the order of their names.
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
_HEAD = """# Benchmarks

<!-- Made from benchmarks/results/*.json by `make benchmarks-page`; do not edit. -->

How fast, how large and how accurate is vl3? Each section is one question, the numbers that answer it, and the command
that measures them again.
"""


def benchmarks_page() -> str:
    """The whole page as Markdown: one section per result file."""
    files = sorted(RESULTS.glob("*.json"))
    return "\n".join([_HEAD, *(_section(json.loads(file.read_text(encoding="utf-8"))) for file in files)])


def _section(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    rows = [result["columns"], ["---"] * len(result["columns"]), *result["rows"]]
    lines = [f"## {result['title']}", "", result["question"], ""]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    lines += ["", *(f"- {note}" for note in result["notes"])]
    lines += [f"- Measured {result['date']} at commit {result['commit']} on {result['machine']}; {versions}."]
    lines += [f"- To repeat: `{result['command']}`", ""]
    return "\n".join(lines)


def main() -> None:
    """Write the page."""
    PAGE.write_text(benchmarks_page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(list(RESULTS.glob('*.json')))} results")


if __name__ == "__main__":
    main()
