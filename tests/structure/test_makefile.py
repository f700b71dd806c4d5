"""The Makefile passes variables on as they are, runs no part of them, and refuses names that nobody reads."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
STUB = """#!/bin/sh
{ printf '%s\\0' "${0##*/}" "$@"; printf '\\n\\0'; } >> "$CALLS"
"""
HOSTILE = [
    "x' ; touch F ; echo '",
    '"; touch F; echo "',
    "$(touch F) $(shell touch F) $$(touch F) ${shell touch F} `touch F`",
    "a\ntouch F\n",
    "-x; touch F | touch F && touch F > F",
    "a\\' ; touch F ; '",
    "# * % $ ~ !touch F \\",
]


def listed(name: str) -> list[str]:
    """The words of a list in the Makefile."""
    found = re.search(rf"^{name} := ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert found is not None
    return found[1].replace("\\\n", " ").split()


TARGETS, VARIABLES = listed("TARGETS"), listed("VARIABLES")
PASSED = [name for name in VARIABLES if name != "OVERLAY"]
"""Variables of any text; an overlay is one of the folders of manifests/overlays."""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the Makefile, and programs that only write down how they were called."""
    for name in ("Makefile", "scripts/nearest_name.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("kind", "staging", "prod"):
        (tmp_path / "manifests" / "overlays" / name).mkdir(parents=True)
    (tmp_path / "build").mkdir()
    (tmp_path / "docs").mkdir()
    for name in ("vl3", "python", "ruff", "mypy", "lint-imports", "kubectl"):
        write_program(tmp_path / ".venv" / "bin" / name, STUB)
    write_program(tmp_path / "programs" / "docker", STUB)
    write_program(tmp_path / "scripts" / "setup.sh", "#!/bin/sh\n")
    for name in ("pyproject.toml", "constraints.txt", "scripts/install.py", "scripts/warm_bytecode.py"):
        (tmp_path / name).touch()
    (tmp_path / ".venv" / ".vl3-setup").touch()
    for name in (*VARIABLES, "MAKEFLAGS", "MAKELEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}/programs:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def make(checkout: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["make", *arguments], cwd=checkout, capture_output=True, text=True, timeout=60)


def calls(checkout: Path) -> list[list[str]]:
    path = checkout / "calls"
    words = path.read_text().split("\0")[:-1] if path.exists() else []
    found: list[list[str]] = [[]]
    for word in words:
        found[-1].append(word) if word != "\n" else found.append([])
    return found[:-1]


@pytest.mark.parametrize("value", HOSTILE)
def test_nothing_of_a_variable_is_run(value: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any target, from the command line and from the environment, which make expands alike."""
    make(checkout, "--keep-going", *TARGETS, *(f"{name}={value}" for name in PASSED))
    assert len(calls(checkout)) > len(TARGETS) // 2, "the targets' programs should have been called"
    make(checkout, "--keep-going", *TARGETS, f"OVERLAY={value}")
    for name in PASSED:
        monkeypatch.setenv(name, value)
    make(checkout, "--keep-going", *TARGETS)
    assert not list(checkout.rglob("F"))


@pytest.mark.parametrize("name", ["RUN", "DATA", "RECIPE", "WORKFLOW"])
def test_a_value_arrives_as_one_word_as_it_is(name: str, checkout: Path) -> None:
    for value in [*HOSTILE, "/my data/a#1/b%20c ü"]:
        (checkout / "calls").unlink(missing_ok=True)
        assert make(checkout, "run-pipeline", f"{name}={value}").returncode == 0
        assert calls(checkout) == [["vl3", "run", "start", f"--{name.lower()}={value}"]]


def test_every_override_is_an_option(checkout: Path) -> None:
    base = ["--set=model.vision_base=$(touch", "--set=F)"]
    make(checkout, "run-pipeline", 'SET=seed=1  data.x="*"\nmodel.vision_base=$(touch F)', "RUN=mine")
    assert calls(checkout) == [["vl3", "run", "start", "--run=mine", "--set=seed=1", '--set=data.x="*"', *base]]


def test_what_is_not_given_is_no_option(checkout: Path) -> None:
    make(checkout, "run-pipeline")
    make(checkout, "run-pipeline", "RUN=", "SET=")
    make(checkout, "submit", "DATA=s3://b/d", "RUN_ID=r", "ENDPOINT=http://k", "PIPELINE_VERSION=git")
    assert calls(checkout) == [
        ["vl3", "run", "start"],
        ["vl3", "run", "start"],
        ["vl3", "run", "submit", "--data=s3://b/d", "--endpoint=http://k", "--run-id=r", "--version=git"],
    ]


def test_report_names_the_run_or_the_recipe(checkout: Path) -> None:
    for given in ([], ["RECIPE=vl3_2b"], ["RECIPE=vl3_2b", "RUN=-x"]):
        make(checkout, "report", *given)
    assert calls(checkout) == [["vl3", "run", "report", "--", run] for run in ("tiny", "vl3_2b", "-x")]


def test_tests_are_paths_and_not_options(checkout: Path) -> None:
    make(checkout, "test", "TESTS=tests/unit -p", "JOBS=0")
    (call,) = calls(checkout)
    assert call[call.index("--") :] == ["--", "tests/unit", "-p"]
    assert "--numprocesses=0" in call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run-pipelin"], "target run-pipelin is unknown. The nearest is run-pipeline; all are help, run-pipeline,"),
        (["RUN-PIPELINE"], "target RUN-PIPELINE is unknown. The nearest is run-pipeline;"),
        (["run-pipeline", "tset"], "target tset is unknown. The nearest is test;"),
        (["run-pipeline", "DTA=x"], "variable DTA is unknown. The nearest is DATA; all are WORKFLOW, RECIPE,"),
        (["run-pipeline", "RECIPES=tiny"], "variable RECIPES is unknown. The nearest is RECIPE;"),
        (["run-pipeline", "data=x"], "variable data is unknown. The nearest is DATA;"),
        (["DTA=x"], "variable DTA is unknown."),
        (["run-pipeline", "SHELL=/bin/sh"], "variable SHELL is unknown."),
        (["run-pipeline", "DTA=$(shell touch F)"], "variable DTA is unknown."),
        (["run-pipeline", "D'; touch F; 'A=x"], "D'"),
        (["x'; touch F; '"], "target x'; is unknown."),
        (["$(shell touch F)"], "target $(shell is unknown."),
        (["render", "OVERLAY=knd"], "overlay knd is unknown. The nearest is kind;"),
        (["render", "OVERLAY=../base"], "overlay ../base is unknown."),
        (["render", "OVERLAY=kind prod"], "overlay kind prod is unknown."),
    ],
)
def test_an_unknown_name_is_refused_before_anything_starts(arguments: list[str], message: str, checkout: Path) -> None:
    (checkout / ".venv" / ".vl3-setup").unlink()
    done = make(checkout, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith(".  Stop.\n")
    assert not done.stderr.endswith("..  Stop.\n")
    assert done.stdout == ""
    assert calls(checkout) == []
    assert not (checkout / "F").exists()
    assert not (checkout / ".venv" / ".vl3-setup").exists()


def test_without_python_the_names_are_listed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(checkout / "programs" / "python3", "#!/bin/sh\nexit 127\n")
    done = make(checkout, "run-pipeline", "DTA=x")
    assert done.returncode == 2
    assert re.search(r"variable DTA is unknown; all are WORKFLOW RECIPE RUN DATA", done.stderr)


def test_every_target_has_a_rule_and_a_line_of_help(checkout: Path) -> None:
    rules = set(re.findall(r"^([a-z][a-z-]*):.* ## ", MAKEFILE, re.MULTILINE))
    assert rules == set(TARGETS)
    shown = make(checkout).stdout
    assert all(f"\n  {target} " in shown for target in TARGETS)


def test_no_recipe_contains_a_variable_of_the_user() -> None:
    """Only conditions may read one: its text would be run by the shell."""
    recipes = [line for line in MAKEFILE.splitlines() if line.startswith("\t")]
    for name in VARIABLES:
        used = [line for line in recipes if re.search(rf"\$[({{]{name}[)}}]", line)]
        assert all(re.fullmatch(rf".*\$\(if \$\({name}\),.*", line) for line in used), used
