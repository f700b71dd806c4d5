"""A step's code version follows what the step imports, and nothing else."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from vl3.errors import ConfigError
from vl3.workflow.code import STARTED_BY_NAME, WALLS, closure, code_version, library_versions, module_digests, read_pins
from vl3.workflow.step import entries_of

ROOT = Path(__file__).parents[3]
STEPS = sorted(path.stem for path in (ROOT / "src/vl3/steps").glob("*.py") if "\nSTEP = " in path.read_text())
ENTRIES = {step: entries_of(importlib.import_module(f"vl3.steps.{step}").STEP) for step in STEPS}
REACHED = {step: closure(entries) for step, entries in ENTRIES.items()}

FILES = {
    "__init__.py": "",
    "steps/__init__.py": "",
    "steps/one.py": "from sample.data import read\nfrom sample.store.files import copy\n",
    "steps/two.py": "def run():\n    import sample.data.write\n",
    "data/__init__.py": "from sample import shared\n",
    "data/read.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sample.data import hints\n",
    "data/write.py": "x = 1\n",
    "data/hints.py": "",
    "data/templates/page.html": "page",
    "data/templates/helper.py": "",
    "data/notes.txt": "notes",
    "shared.py": "",
    "store/__init__.py": "",
    "store/files.py": "from sample.store import local\nfrom sample.data import write\n",
    "store/local.py": "",
    "store/remote.py": "",
}


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package with a wall (store) and an import of each kind."""
    for name, text in FILES.items():
        path = tmp_path / "sample" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "sample"


def reached(*entries: str) -> list[str]:
    return [name.removeprefix("sample.") for name in closure(entries, package="sample")]


def test_closure_holds_imports_and_packages_and_ends_at_walls(sample: Path) -> None:
    assert reached("sample.steps.one") == ["sample", "data", "data.read", "shared", "steps", "steps.one"]


def test_closure_holds_what_a_function_imports(sample: Path) -> None:
    assert reached("sample.steps.two") == ["sample", "data", "data.write", "shared", "steps", "steps.two"]


def test_entry_behind_a_wall_counts_with_what_it_imports_in_its_room_and_outside(sample: Path) -> None:
    found = reached("sample.steps.one", "sample.store.files")
    assert [name for name in found if name.startswith("store")] == ["store", "store.files", "store.local"]
    assert "data.write" in found


def test_closure_holds_what_the_table_says_is_started(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STARTED_BY_NAME, "sample.data.read", ("sample.steps.two", "sample.store.remote"))
    found = reached("sample.steps.one")
    assert {"steps.two", "data.write"} <= set(found)
    assert "store.remote" not in found, "the wall holds for what is started, too"


def test_entry_that_does_not_exist_is_named(sample: Path) -> None:
    with pytest.raises(ConfigError, match=r"'sample\.steps\.three' should be part .* Correct the entries"):
        closure(["sample.steps.one", "sample.steps.three"], package="sample")


def test_file_that_cannot_be_parsed_is_named(sample: Path) -> None:
    (sample / "data/stray.py").write_text("x = 1\ny = =\n")
    with pytest.raises(ConfigError, match=r"stray\.py:2: not valid Python \('y = ='\).*Correct the file"):
        closure(["sample.steps.one"], package="sample")


def test_grimp_leaves_no_cache_where_the_process_stands(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    closure(["sample.steps.one"], package="sample")
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_digests_follow_modules_and_templates(sample: Path) -> None:
    def digests() -> dict[str, str]:
        return module_digests(["sample.steps.one"], package="sample")

    before = digests()
    assert set(before) == {*closure(["sample.steps.one"], package="sample"), "sample.data/templates/page.html"}
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in before.values())

    def changed() -> set[str]:
        return {name for name, digest in digests().items() if digest != before.get(name)}

    (sample / "data/notes.txt").write_text("other notes")
    (sample / "data/write.py").write_text("x = 2\n")
    assert changed() == set()
    (sample / "data/templates/page.html").write_text("other page")
    assert changed() == {"sample.data/templates/page.html"}
    (sample / "data/read.py").write_text("x = 2\n")
    assert changed() == {"sample.data/templates/page.html", "sample.data.read"}


def test_version_follows_content_and_names(sample: Path) -> None:
    def now() -> str:
        return code_version(["sample.steps.two"], package="sample")

    first = now()
    assert re.fullmatch("[0-9a-f]{64}", first)
    (sample / "data/write.py").write_text("x = 1  # one\n")
    assert now() == first
    (sample / "data/write.py").write_text("x = 2\n")
    second = now()
    (sample / "data/write.py").rename(sample / "data/written.py")
    (sample / "steps/two.py").write_text("def run():\n    import sample.data.written\n")
    assert len({first, second, now()}) == 3


def test_library_versions_prefer_pins() -> None:
    assert library_versions(["numpy"]) == {"numpy": version("numpy")}
    assert library_versions(["numpy", "Not_There"], {"numpy": "0.1", "not-there": "1.0"}) == {
        "numpy": "0.1",
        "Not_There": "1.0",
    }


def test_library_of_unknown_version_is_named() -> None:
    with pytest.raises(ConfigError, match=r"the version of not-there .*VL3_TRAINER_REQUIREMENTS.*`not-there==VERSION`"):
        library_versions(["not-there"], {})


def test_pins_are_read_without_hashes_markers_and_extras(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(
        "# locked\nnumpy==2.1 \\\n    --hash=sha256:00\nPy_YAML[c]==6.0 ; sys_platform == 'linux'\nother>=1\n",
        encoding="utf-8",
    )
    assert read_pins(path) == {"numpy": "2.1", "py-yaml": "6.0"}


def test_pins_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"requirements\.txt: the pinned requirements .*VL3_TRAINER_REQUIREMENTS"):
        read_pins(tmp_path / "requirements.txt")


# Changes of the real sources, made one at a time on a copy.

COMPUTE = """
import functools, json, sys
from pathlib import Path
import grimp
import vl3
from vl3.workflow.code import code_version
folder, steps, changes = Path(sys.argv[1]), json.loads(sys.argv[2]), json.load(sys.stdin)
assert Path(vl3.__file__).is_relative_to(folder), vl3.__file__
grimp.build_graph = functools.cache(grimp.build_graph)  # once a change, not once a step
versions = {}
for name, files in changes.items():
    before = {}
    for file, text in files.items():
        path = folder / file
        before[path] = path.read_text(encoding="utf-8") if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    grimp.build_graph.cache_clear()
    versions[name] = {step: code_version(entries) for step, entries in steps.items()}
    for path, text in before.items():
        if text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")
print(json.dumps(versions))
"""


def file_of(module: str) -> str:
    path = Path("vl3", *module.split(".")[1:])
    return str(path / "__init__.py" if (ROOT / "src" / path).is_dir() else path.with_suffix(".py"))


def source_of(module: str) -> str:
    return (ROOT / "src" / file_of(module)).read_text(encoding="utf-8")


def modules_of(room: str) -> list[str]:
    files = sorted((ROOT / "src/vl3" / room).rglob("*.py"))
    return [".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__") for path in files]


def edit(modules: list[str], pattern: str, replacement: str) -> dict[str, str]:
    """The first of the modules in which the pattern is found, with the replacement there."""
    for module in modules:
        changed, count = re.subn(pattern, replacement, source_of(module), count=1, flags=re.MULTILINE)
        if count:
            return {file_of(module): changed}
    raise AssertionError(f"{pattern!r} is in none of {modules}: choose another place to change")


COUNTING = sorted({module for modules in REACHED.values() for module in modules})
MODELS = [module for module in COUNTING if module.startswith("vl3.models.")]
# A module of the data room that some steps reach and others do not; the new subfolder is imported from there.
PARTLY = next(
    module
    for module in COUNTING
    if module.startswith("vl3.data.") and 0 < sum(module in modules for modules in REACHED.values()) < len(STEPS)
)
FRESH = {
    file_of(PARTLY): f"{source_of(PARTLY)}\n\ndef _fresh():\n    from vl3.data.fresh.thing import SIZE\n",
    "vl3/data/fresh/__init__.py": "",
    "vl3/data/fresh/thing.py": "SIZE = 1\n",
}
NO_EFFECT: dict[str, Callable[[], dict[str, str]]] = {
    "word of an error of the store": lambda: edit(modules_of("store"), r"^( +raise \w+\(\s*f?\")", r"\1Well: "),
    "number in the store": lambda: edit(modules_of("store"), r"^(\w+ = \d+)", r"\g<1>9"),
    "comment in config": lambda: edit(modules_of("config"), r"^import ", "# why\nimport "),
    "docstring in models": lambda: edit(MODELS, r"\A\"\"\"", '"""Well: '),
    "word of an error that counts otherwise": lambda: edit(MODELS, r"^( +raise \w+\(\s*f?\")", r"\1Well: "),
    "words of a log call": lambda: edit(COUNTING, r"^( +log\.\w+\(\s*\")", r"\1well: "),
    "annotation": lambda: edit(MODELS, r"\) -> (\w+):", r') -> "\1 | int":'),
    "module reformatted": lambda: {file_of(MODELS[-1]): ast.unparse(ast.parse(source_of(MODELS[-1])))},
    "new module that nobody imports": lambda: {"vl3/data/stray.py": "SIZE = 1\n"},
}
EFFECT: dict[str, Callable[[], dict[str, str]]] = {
    "constant in models": lambda: edit(MODELS, r"^(_?[A-Z]\w* = \d+)", r"\g<1>9"),
    "default in a class of models": lambda: edit(MODELS, r"^(    \w+: int = \d+)", r"\g<1>9"),
    "import of a new module": lambda: FRESH,
}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Code version of each step by change; one process computes them all."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "src/vl3", folder / "vl3", ignore=shutil.ignore_patterns("__pycache__"))
    changes = {name: make() for name, make in (NO_EFFECT | EFFECT).items()}
    changes |= {"none": {}, "change of the new module": FRESH | {"vl3/data/fresh/thing.py": "SIZE = 2\n"}}
    done = subprocess.run(
        [sys.executable, "-c", COMPUTE, str(folder), json.dumps(ENTRIES)],
        input=json.dumps(changes),
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def changed_steps(versions: dict[str, dict[str, str]], name: str, *, since: str = "none") -> set[str]:
    return {step for step in STEPS if versions[name][step] != versions[since][step]}


def test_steps_are_found() -> None:
    assert {"train_stage", "evaluate", "report"} <= set(STEPS)
    assert any(PARTLY in REACHED[step] for step in STEPS)


@pytest.mark.parametrize("name", NO_EFFECT)
def test_change_without_effect_keeps_every_key(versions: dict[str, dict[str, str]], name: str) -> None:
    assert changed_steps(versions, name) == set()


@pytest.mark.parametrize("name", EFFECT)
def test_change_with_effect_changes_the_keys_of_the_steps_that_import_it(
    versions: dict[str, dict[str, str]], name: str
) -> None:
    files = set(EFFECT[name]())
    expected = {step for step in STEPS if any(file_of(module) in files for module in REACHED[step])}
    assert 0 < len(expected) < len(STEPS)
    assert changed_steps(versions, name) == expected


def test_module_in_a_new_subfolder_counts_where_it_is_imported(versions: dict[str, dict[str, str]]) -> None:
    expected = {step for step in STEPS if PARTLY in REACHED[step]}
    assert changed_steps(versions, "change of the new module", since="import of a new module") == expected


# What Python loads, compared with what the closure says.

LOAD = """
import builtins, importlib, json, sys
real = builtins.__import__
imports = set()

def noting(name, globals=None, locals=None, fromlist=(), level=0):
    module = real(name, globals, locals, fromlist, level)
    if name.partition(".")[0] == "vl3" and globals:
        below = [f"{name}.{item}" for item in fromlist or () if f"{name}.{item}" in sys.modules]
        imports.update((globals["__name__"], target) for target in [name, *below])
    return module

builtins.__import__ = noting
for module in json.load(sys.stdin):
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:  # the harness has an environment of its own
        if error.name not in ("lmms_eval", "datasets"):
            raise
print(json.dumps(sorted(imports)))
"""


def is_behind_a_wall(module: str) -> bool:
    return any(f"{module}.".startswith(f"vl3.{room}.") for room in WALLS)


@pytest.mark.slow
def test_what_a_step_loads_is_in_its_closure() -> None:
    """Every module of every closure is imported by Python itself, which notes who imported whom."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps(COUNTING),
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imports = [tuple(pair) for pair in json.loads(done.stdout.splitlines()[-1])]  # libraries print too
    assert len({importer for importer, _ in imports} & set(COUNTING)) > len(COUNTING) / 2
    for step, modules in REACHED.items():
        loaded = {name for importer, name in imports if importer in modules and not is_behind_a_wall(name)}
        missing = loaded - set(modules)
        assert not missing, f"{step} loads {sorted(missing)}, which its code version does not follow"
