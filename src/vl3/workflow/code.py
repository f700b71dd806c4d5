"""The version of the code that determines a step's result: the modules that it imports, and the libraries that it uses.

Everything that a step imports counts, up to the walls. So a new file counts from its first import on, a file that is
not imported never does, and a change behind a wall keeps every finished result valid.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from vl3.errors import ConfigError
from vl3.workflow.normal_form import normal_form

WALLS: dict[str, str] = {
    "cli": "commands for people: a step is not started through them.",
    "config": "the values of the configuration are in the key themselves.",
    "errors": "families of errors: they say who acts, and a step that fails leaves no result.",
    "launch": "where and how processes are started: the same work on any machine.",
    "lifeline": "ends processes whose runner is gone: they leave no result.",
    "planning": "tells before a run what it will take, and counts what it took: it changes no weight.",
    "pod": "brings a job into a pod: the job itself is the same as without pods.",
    "recipes": "make the configuration, whose values are in the key themselves.",
    "report": "pages for people. Only the step that writes them names its modules as entries.",
    "store": "moves bytes and verifies their digests: what comes in and goes out is in the key, or is the result.",
    "system": "locks, processes, retries and files of the machine: they decide whether work is done, not which.",
    "toy": "makes data and bases, which reach a step as inputs with a digest.",
    "tracking": "talks to MLflow: it notes results and makes none. Only the step that promotes names its gates.",
    "workflow": "starts, keys and records steps: it is the same around any result.",
}
"""Rooms where the closure ends, each with the reason."""

STARTED_BY_NAME: dict[str, tuple[str, ...]] = {
    "vl3.steps.build_data": ("vl3.pod.build",),  # the driver of a RayJob
    "vl3.steps.curate_images": ("vl3.pod.curate",),
    "vl3.steps.train_stage": ("vl3.training.worker",),  # torchrun runs it as a program in each process of the stage
    "vl3.steps.evaluate": ("vl3.evaluation.worker", "vl3.evaluation.harness.worker"),  # as torchrun does here
}
"""Modules that a module starts by name, which no import shows; they count as if it imported them."""


def closure(entries: Iterable[str], *, package: str = "vl3") -> tuple[str, ...]:
    """Names of the modules that the entries reach, including themselves, sorted.

    An import counts wherever it is written (also inside a function) unless it is only for type checking. The package of
    a reached module is reached too, because Python runs its `__init__.py`. An entry may be behind a wall; then it
    counts, together with what it imports from its own room:

        vl3.steps.promote imports vl3.tracking.registry: `tracking` is a wall, so that is not reached
        the entry vl3.tracking.gates is reached, and so is vl3.tracking.evidence, which it imports

    Args:
        entries: modules to start from, by full name.
        package: their package.

    Raises:
        ConfigError: an entry, or a module named in STARTED_BY_NAME, does not exist; or a module of the package, which
            need not be reached, cannot be parsed.
    """
    from grimp import build_graph  # only needed to compute a key, so that a step's module is quick to import
    from grimp.exceptions import SourceSyntaxError

    try:
        # Without a cache folder, which grimp would create in the current directory.
        graph = build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    except SourceSyntaxError as error:
        raise ConfigError(
            f"{error.filename}:{error.lineno}: not valid Python ({str(error.text).strip()!r}), so the imports of the "
            "steps cannot be determined. Correct the file, or remove it from the package."
        ) from error
    reached: set[str] = set()
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        if module not in graph.modules:
            raise ConfigError(
                f"{module!r} should be part of a step's code version, but {package} has no such module, so a change of "
                "that code would go unnoticed. Correct the entries of the step, or STARTED_BY_NAME in "
                "vl3/workflow/code.py."
            )
        reached.add(module)
        needed = {*graph.find_modules_directly_imported_by(module), *STARTED_BY_NAME.get(module, ()), *_parents(module)}
        waiting += [name for name in needed if _room(name) == _room(module) or _room(name) not in WALLS]
    return tuple(sorted(reached))


def module_digests(entries: Iterable[str], *, package: str = "vl3") -> dict[str, str]:
    """Digest (16 hex digits) of each part of the closure: two of these tables show which file made a key change.

    A module counts by its normal form, a file in the `templates` folder of a package by its bytes, under a name such
    as `vl3.models/templates/official.jinja`.

    Raises:
        ConfigError: an entry does not exist.
    """
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0])
    digests: dict[str, str] = {}
    for module in closure(entries, package=package):
        path = root.joinpath(*module.split(".")[1:])
        if path.is_dir():
            digests |= {f"{module}/{name}": _digest(content) for name, content in _templates(path)}
            path = path / "__init__"
        digests[module] = _source_digest(path.with_suffix(".py").read_text(encoding="utf-8"))
    return digests


def code_version(entries: Iterable[str], *, package: str = "vl3") -> str:
    """Digest (SHA-256, hex) over the closure of a step's modules.

    Raises:
        ConfigError: an entry does not exist.
    """
    return version_of(module_digests(entries, package=package))


def version_of(modules: Mapping[str, str]) -> str:
    """The code version (SHA-256, hex) of modules with these digests."""
    lines = [f"{name} {digest}\n" for name, digest in sorted(modules.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def library_versions(libraries: Iterable[str], pins: Mapping[str, str] | None = None) -> dict[str, str]:
    """Versions of the distributions that may change a result.

    Args:
        libraries: names of distributions.
        pins: versions in the image where the result is made, if that is another one; they override what is installed.

    Raises:
        ConfigError: a library is neither pinned nor installed here.
    """
    return {library: _library_version(library, pins or {}) for library in sorted(libraries)}


def read_pins(path: Path) -> dict[str, str]:
    """Versions by distribution, from a requirements file of `name==version` lines; hashes and markers are ignored.

    `Torch_Vision[extra]==0.1 ; python_version > "3"  # why` gives {"torch-vision": "0.1"}, `loose>=1` gives nothing.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: the pinned requirements of the trainer image cannot be read ({error}). Correct "
            "VL3_TRAINER_REQUIREMENTS, which is set to this file."
        ) from error
    pins = {}
    for line in lines:
        name, equals, pinned = line.partition("#")[0].partition(";")[0].partition("==")
        if equals and pinned.split():
            pins[_normal_name(name.partition("[")[0])] = pinned.split()[0]
    return pins


def _room(module: str) -> str:
    """`data` of `vl3.data.shards`; empty for the package itself."""
    return module.split(".", 2)[1] if "." in module else ""


def _parents(module: str) -> Iterator[str]:
    """`vl3` and `vl3.data` of `vl3.data.shards`."""
    for position, character in enumerate(module):
        if character == ".":
            yield module[:position]


def _templates(package: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted((package / "templates").rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            yield path.relative_to(package).as_posix(), path.read_bytes()


@cache  # by content: steps that share modules parse them once, and a changed file is noticed
def _source_digest(source: str) -> str:
    return _digest(normal_form(source).encode("ascii"))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _library_version(library: str, pins: Mapping[str, str]) -> str:
    pinned = pins.get(_normal_name(library))
    if pinned is not None:
        return pinned
    try:
        return version(library)
    except PackageNotFoundError as error:
        raise ConfigError(
            f"the version of {library} is part of this step's key, but {library} is not installed here. If the work "
            "runs in another image, set VL3_TRAINER_REQUIREMENTS to that image's pinned requirements "
            f"(`{library}==VERSION`); otherwise install {library}."
        ) from error


def _normal_name(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")
