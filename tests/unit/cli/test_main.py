"""The command line from the outside: what it prints, what it answers to mistakes, what it does not import."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer.main

from vl3.cli.main import app, run
from vl3.config.codec import to_dict
from vl3.recipes.catalog import get_recipe
from vl3.recipes.effective import stage_view
from vl3.recipes.stage_table import stage_page
from vl3.system.commit import code_commit

HEAVY = (
    "torch",
    "transformers",
    "deepspeed",
    "mlflow",
    "great_expectations",
    "kfp",
    "pandas",
    "pyarrow",
    "numpy",
    "av",
)


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_help_names_every_noun(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.split("Commands:")[1].splitlines() if line.strip()] == [
        "plan",
        "convert",
        "chat",
        "data",
        "eval",
        "recipe",
        "stages",
        "base",
        "curate",
        "registry",
        "cluster",
        "run",
    ]


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from vl3.cli.main import run
code = run(["--help"])
print(code, [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def commands(app: Any, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command and group of the command line, as words."""
    below = getattr(app, "commands", {})
    return [words, *(found for name, one in below.items() for found in commands(one, (*words, name)))]


@pytest.mark.parametrize("words", commands(typer.main.get_command(app)), ids=" ".join)
def test_every_level_has_short_and_long_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for option in ("-h", "--help"):
        assert run([*words, option]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].startswith(f"Usage: {' '.join(('vl3', *words))}")


def test_version_names_the_commit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"vl3 {version('vl3')} ({code_commit(os.environ)})\n"


def test_completion_knows_the_commands() -> None:
    environment = {**os.environ, "_VL3_COMPLETE": "complete_bash", "COMP_WORDS": "vl3 run st", "COMP_CWORD": "2"}
    program = "from vl3.cli.main import app; app(prog_name='vl3')"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["start", "status"]


def test_recipe_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ["tiny", "vl3_2b", "vl3_7b", "ablation_tiny", "ablation"]


def test_recipe_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "list"]) == 0
    assert capsys.readouterr().out == "tiny\nvl3_2b\nvl3_7b\nablation_tiny\nablation\n"


def test_recipe_show_prints_the_effective_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "show", "tiny", "--set", "data.max_frames=8", "--set", "seed=3"]) == 0
    shown = json.loads(capsys.readouterr().out)
    expected = to_dict(get_recipe("tiny"))
    expected["data"]["max_frames"] = 8
    expected["seed"] = 3
    assert shown == expected


def test_recipe_show_of_one_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "show", "vl3_2b", "--stage", "video"]) == 0
    assert json.loads(capsys.readouterr().out) == stage_view(get_recipe("vl3_2b"), "video")


def test_stages_table_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stages", "table"]) == 0
    assert capsys.readouterr().out == stage_page()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("recipe show tinny", "ConfigError: recipe 'tinny' is unknown. The nearest is 'tiny'; all are tiny,"),
        (
            "recipe show tiny --set data.maxframes=3",
            "ConfigError: override names an unknown field 'data.maxframes'. The nearest is 'data.max_frames'.",
        ),
        ("recipe show tiny --set data.max_frames=x", "'x' is not an int @ RunConfig.data.max_frames"),
        (
            "recipe show tiny --stage vidoe",
            "recipe tiny has no stage 'vidoe'. Its stages: vision_adaptation",
        ),
        ("recipes", "No such command 'recipes'"),
        ("data sample", "Missing option '--out'"),
    ],
)
def test_mistake_gets_one_message_and_exit_code_2(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
