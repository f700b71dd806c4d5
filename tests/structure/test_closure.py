"""Nothing that decides a step's result escapes its code version: neither a module nor a file of data."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from vl3.workflow.code import STARTED_BY_NAME, WALLS, closure
from vl3.workflow.step import entries_of

PACKAGE = Path(__file__).parents[2] / "src" / "vl3"
STARTERS = {"import_module", "__import__", "run_module", "run_path", "entry_points", "spec_from_file_location"}
"""Functions that bring in a module which the import graph does not show."""

READERS = {"__annotations__", "__doc__", "get_annotations", "get_type_hints", "getdoc", "singledispatch"}
"""Names by which code could read what the normal form leaves out."""


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
STEPS = [name for name, path in MODULES.items() if name.startswith("vl3.steps.") and "\nSTEP = " in path.read_text()]
ENTRIES = {step: entries_of(importlib.import_module(step).STEP) for step in STEPS}
COUNTING = sorted({module for entries in ENTRIES.values() for module in closure(entries)})


def last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def hidden_imports(source: str) -> Iterator[str]:
    """Modules that a source names in a text, and ways of starting modules that name none."""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    loggers = {id(argument) for call in calls if last_name(call.func) == "getLogger" for argument in call.args}
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=function) if last_name(function) in STARTERS:
                yield f"{last_name(function)}()"
            case ast.Constant(value="-m"):
                yield "-m"
            # A package is named for its data files, and has nothing to start.
            case ast.Constant(value=str(text)) if text in MODULES and MODULES[text].name != "__init__.py":
                if id(node) not in loggers:
                    yield text
            # `vl3.steps.` of f"vl3.steps.{name}"; f"vl3.{name}" is a tag of MLflow.
            case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]) if text.count(".") > 1:
                if text.endswith(".") and text[:-1] in MODULES:
                    yield f"{text}*"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("importlib.import_module(name)", {"import_module()"}),
        ("runpy.run_module(name)", {"run_module()"}),
        ("run([sys.executable, '-m', name])", {"-m"}),
        ("job(module='vl3.workflow.code')", {"vl3.workflow.code"}),
        ("job(module=f'vl3.workflow.{name}')", {"vl3.workflow.*"}),
        ("tags = {f'vl3.{name}': 1}", set()),
        ("logging.getLogger('vl3.workflow.code')", set()),
        ("resources.files('vl3.workflow')", set()),
        ("import vl3.workflow.code\ntext = 'as vl3.workflow.code says'", set()),
    ],
)
def test_hidden_imports_are_found(source: str, expected: set[str]) -> None:
    assert set(hidden_imports(source)) == expected


@pytest.mark.parametrize("module", COUNTING)
def test_module_starts_others_only_by_the_table(module: str) -> None:
    """A module that no step reaches decides no result, so what it starts need not be known."""
    found = set(hidden_imports(MODULES[module].read_text(encoding="utf-8")))
    missing = found - {*STARTED_BY_NAME.get(module, ()), *ENTRIES.get(module, ())}
    assert not missing, (
        f"{module} starts {', '.join(sorted(missing))} where no import shows it, so a change of that code would leave "
        "the key of the step as it is. Import the module; or, if it has to be started by name, write "
        f"{module!r} with the modules that it starts into STARTED_BY_NAME in vl3/workflow/code.py, and name each of "
        "them in one text."
    )


@pytest.mark.parametrize("starter", STARTED_BY_NAME)
def test_table_of_started_modules_is_true(starter: str) -> None:
    assert starter in MODULES, f"{starter} is gone: correct STARTED_BY_NAME in vl3/workflow/code.py"
    named = set(hidden_imports(MODULES[starter].read_text(encoding="utf-8")))
    assert named == set(STARTED_BY_NAME[starter]), f"{starter} starts others now: correct STARTED_BY_NAME"
    assert starter in COUNTING, f"no step reaches {starter}: take it out of STARTED_BY_NAME"


@pytest.mark.parametrize("room", WALLS)
def test_wall_names_a_room_that_exists(room: str) -> None:
    """A room that was renamed would leave its wall standing around nothing, and count itself from then on."""
    found = (PACKAGE / room / "__init__.py").exists() or (PACKAGE / f"{room}.py").exists()
    assert found, f"there is no vl3.{room}: correct WALLS in vl3/workflow/code.py"
    assert len(WALLS[room].split()) >= 4, f"say why vl3.{room} decides no result"


@pytest.mark.parametrize("step", STEPS)
def test_step_counts_its_own_module(step: str) -> None:
    assert step in ENTRIES[step], f"name {step} among the entries of its STEP, or a change of it changes no key"


def test_every_module_is_in_the_import_graph() -> None:
    """A folder without `__init__.py` would not be: Python imports from it, and the graph leaves it out."""
    assert closure(MODULES) == tuple(sorted(MODULES))


def test_every_file_of_data_counts_or_is_behind_a_wall() -> None:
    files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_file()]
    data = [path for path in files if path.suffix not in (".py", ".pyc")]
    stray = [str(path) for path in data if path.parts[0] not in WALLS and "templates" not in path.parts]
    assert data
    assert not stray, f"{stray} are in no step's code version: put them into the `templates` folder of their package"


@pytest.mark.parametrize("module", COUNTING)
def test_module_does_not_work_by_what_its_normal_form_leaves_out(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    found = {last_name(node) for node in ast.walk(tree)} & READERS
    assert not found, (
        f"{module} uses {', '.join(sorted(found))}: docstrings and the annotations of functions are in no key, so a "
        "change of one would leave a stale result. Decide by values, or let vl3/workflow/normal_form.py keep them."
    )
