"""Pages that are made from the sources say what the sources say."""

import subprocess
import sys
from pathlib import Path

from benchmarks.make_page import benchmarks_page
from vl3.recipes.stage_table import stage_page

ROOT = Path(__file__).parents[2]


def test_stages_page_is_made_from_the_recipes() -> None:
    page = (ROOT / "docs" / "stages.md").read_text(encoding="utf-8")
    assert page == stage_page(), "docs/stages.md is out of date: run `make stages-table`"


def test_benchmarks_page_is_made_from_the_results() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page == benchmarks_page(), "docs/benchmarks.md is out of date: run `make benchmarks-page`"


def test_commands_page_is_made_from_the_commands_help() -> None:
    command = [sys.executable, "-m", "typer", "vl3.cli.main", "utils", "docs", "--name", "vl3", "--title", "Commands"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page.rstrip() == made.rstrip(), "docs/commands.md is out of date: run `make commands-page`"
