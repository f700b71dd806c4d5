"""The commands of README and docs: each runs here or in CI, or is marked as needing a cluster, and every one parses.

A fenced block of commands says where it runs: `bash here` (in this test, in a folder with a finished run and media),
`bash ci` (by .ci/run), `bash cluster` or `bash data` (with a published data set). The commands in running text are
parsed: their options and targets exist.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from tests.docs.conftest import Desk
from vl3.cli.main import app

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("CHANGELOG.md", "benchmarks.md", "commands.md", "stages.md")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*/README.md"))]
PAGES = [page for page in PAGES if page.name not in LEFT_OUT]
PLACES = ("here", "ci", "cluster", "data")
RUN_BY_TESTS_OF_CLI = ("docs/fine-tuning.md",)  # test_run_part.py
_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:vl3|make) [^`\n]+)`")
_COMMAND = re.compile(r"(?:vl3|make|kubectl|docker|git|python|uv|pip) ")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    info: str
    text: str

    @property
    def place(self) -> str:
        """Where its commands run."""
        return self.info.removeprefix("bash").strip()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in _FENCE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(page.relative_to(ROOT).as_posix(), line, found[1].strip(), found[2])


def inline_commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        text = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), page.read_text(encoding="utf-8"))
        for number, line in enumerate(text.splitlines(), 1):
            for found in _INLINE.finditer(line):
                yield f"{page.relative_to(ROOT).as_posix()}:{number}", found[1]


def commands(text: str) -> list[str]:
    """The command lines of a block, continued lines joined, comments left out."""
    joined = text.replace("\\\n", " ")
    return [line for line in (line.partition(" #")[0].strip() for line in joined.splitlines()) if line]


BLOCKS = list(blocks())
OF_COMMANDS = [block for block in BLOCKS if block.info.startswith("bash")]


def test_a_block_of_commands_says_where_it_runs() -> None:
    silent = [str(block) for block in BLOCKS if any(map(_COMMAND.match, block.text.splitlines())) and not block.info]
    unknown = [str(block) for block in OF_COMMANDS if block.place not in PLACES]
    assert (silent, unknown) == ([], []), "write ```bash here, ```bash ci, ```bash cluster or ```bash data"
    assert OF_COMMANDS


@pytest.mark.parametrize("block", [block for block in OF_COMMANDS if block.place == "ci"], ids=str)
def test_ci_runs_what_is_said_to_run_there(block: Block) -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    missing = [line for line in commands(block.text) if line not in script]
    assert not missing, f"not in .ci/run: {missing}"


@pytest.mark.parametrize("block", OF_COMMANDS, ids=str)
def test_the_commands_of_a_block_parse(block: Block) -> None:
    for line in commands(block.text):
        assert problem_of(line) == "", f"{block}: {line}"


def test_the_commands_in_the_text_parse() -> None:
    problems = [f"{where}: `{text}`: {problem}" for where, text in inline_commands() if (problem := problem_of(text))]
    assert not problems, "\n".join(problems)


def test_the_check_finds_what_does_not_exist() -> None:
    assert problem_of("vl3 run list --json") == ""
    assert problem_of("vl3 run lsit") == "vl3 run has no command lsit"
    assert problem_of("vl3 recipe show tiny --sett seed=1") == "vl3 recipe show has no option --sett"
    assert problem_of("make run-pipeline RUN=a") == ""
    assert problem_of("make run-pipelin RUN=a") == "make has no target run-pipelin"
    assert problem_of("make report RUM=a") == "make has no variable RUM"


def problem_of(command: str) -> str:
    """What in a command line does not exist; empty if all of it does, or if it is none of ours."""
    words = [word.strip("[]") for word in shlex.split(command, comments=True)]
    words = words[: next((index for index, word in enumerate(words) if word in ("|", "&&", ";", ">")), len(words))]
    if words[:1] == ["vl3"]:
        return _problem_of_vl3(words[1:])
    return _problem_of_make(words[1:]) if words[:1] == ["make"] else ""


def _problem_of_vl3(words: list[str]) -> str:
    command, name = typer.main.get_command(app), "vl3"
    for word in words:
        if word.startswith("-"):
            option = word.partition("=")[0]
            known = {form for parameter in command.params for form in parameter.opts + parameter.secondary_opts}
            if option not in known | {"--help", "-h"}:
                return f"{name} has no option {option}"
        elif isinstance(command, TyperGroup):
            inner = [command.commands.get(one) for one in word.split("|")]  # `vl3 cluster check|jobs|gc`
            if None in inner:
                return "" if word in ("...", "<noun>") else f"{name} has no command {word}"
            command, name = inner[0] or command, f"{name} {word}"
    return ""


def _problem_of_make(words: list[str]) -> str:
    targets, variables = _of_makefile()
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and name not in variables:
            return f"make has no variable {name}"
        if not equals and not word.startswith("-") and word not in targets:
            return f"make has no target {word}"
    return ""


@cache
def _of_makefile() -> tuple[frozenset[str], frozenset[str]]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE)
    return frozenset(targets), frozenset(re.findall(r"\b[A-Z][A-Z_]+\b", text))


def _marked(block: Block) -> object:
    """A block that runs here. What tests/cli runs too, with its own recipes, waits for FULL=1: it takes minutes."""
    return pytest.param(block, marks=[pytest.mark.full] if block.page in RUN_BY_TESTS_OF_CLI else [])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", [_marked(block) for block in OF_COMMANDS if block.place == "here"], ids=str)
def test_a_block_runs(block: Block, desk: Desk) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=desk.folder,
        env=desk.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert "Traceback" not in done.stderr
