"""Limits that keep the code readable, and the rule for what a component may import."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
COMPONENTS = sorted((ROOT / "src" / "vl3" / "components").glob("[!_]*.py"))
NAMED_ONCE = [*SOURCES, *(path for folder in ("images", "kind") for path in sorted((ROOT / folder).rglob("*.py")))]
MAX_FUNCTION_LINES = 60


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def imported_modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_file_keeps_the_limits(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    limit = 600 if "models" in path.parts else 400
    assert len(text.splitlines()) <= limit, f"more than {limit} lines: split it by concern"
    assert not text or ast.get_docstring(tree), "say in a module docstring what this file is for"
    assert not (path.name == "__init__.py" and text and path.parent.name != "vl3"), "__init__.py files are empty"
    long = {
        function.name: length
        for function in functions(tree)
        if (length := function.end_lineno - function.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert not long, f"functions over {MAX_FUNCTION_LINES} lines: {long}"


@pytest.mark.parametrize("path", COMPONENTS, ids=name_of)
def test_component_is_a_thin_face_of_a_step(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(node) for function in functions(tree) for node in ast.walk(function)}
    for node in ast.walk(tree):
        allowed = ("vl3.workflow.entry",) if id(node) in inside else ("kfp", "vl3.components.images", "typing")
        for module in imported_modules(node):
            assert any(module == name or module.startswith(f"{name}.") for name in allowed), (
                f"line {node.lineno} imports {module}; allowed here: {', '.join(allowed)}"
            )


def test_a_class_name_means_one_thing() -> None:
    """A search for a name finds one class."""
    places = defaultdict(list)
    for path in NAMED_ONCE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name_of(path))
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not twice, f"one name for several classes, so say in each what it is: {twice}"


def test_sources_are_found() -> None:
    assert len(SOURCES) > 50
    assert len(COMPONENTS) > 5
