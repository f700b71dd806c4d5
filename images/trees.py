"""The folders that become the layers of an image: installed on this machine by uv, trimmed, and compiled.

A build of an image needs no package index, cache or compiler: its files are prepared here as they will be below / in
the image, and copied. uv links files from its cache, so a tree costs seconds and no disk.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from images.lock import PLATFORM, PYTHON_VERSION, uv_program
from images.roles import IMAGES, ROLES, ROOT, Role, rule_lines
from vl3.workflow.code import read_pins

TREES = ROOT / "build" / "images"
PREFIX = Path("opt/vl3")
SITE_PACKAGES = PREFIX / "lib" / f"python{PYTHON_VERSION}" / "site-packages"
_LAYOUT = "1"
"""Raise it when the code below changes the layout of a tree."""


def libraries_tree(role: Role) -> Path:
    """The tree of a role's libraries without those of its parent; made again if its pins or the rules changed.

    Raises:
        ImageBuildError: uv is missing or cannot install.
    """
    assert role.requirements is not None
    parent = ROLES[role.parent].requirements if role.parent else None
    inherited = read_pins(parent) if parent else {}
    pins = {name: version for name, version in read_pins(role.requirements).items() if name not in inherited}
    tree = TREES / f"{role.name}-libraries"
    globs = trimmed(role)
    made_from = content_digest(*(f"{name}=={version}" for name, version in sorted(pins.items())))
    key = content_digest(made_from, *globs, *(f"{name}={entry}" for name, entry in role.programs), _LAYOUT)
    if _is_finished(tree, key):
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    (tree / SITE_PACKAGES).mkdir(parents=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in pins.items()))
        file.flush()
        _install(tree, "--no-deps", "--requirements", file.name, reason=f"the libraries of {role.name}")
    for name, entry in role.programs:
        _write_program(tree / PREFIX / "bin" / name, entry)
    _finish(tree, globs, key, made_from)
    return tree


def vl3_tree() -> Path:
    """The tree of the project's own code, made again if a source file changed."""
    sources = source_files()
    tree = TREES / "vl3"
    globs = rule_lines(IMAGES / "trimmed.txt")
    made_from = content_digest(*(f"{path.relative_to(ROOT)} {_sha256(path)}" for path in sources))
    key = content_digest(made_from, *globs, _LAYOUT)
    if _is_finished(tree, key):
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    (tree / SITE_PACKAGES).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:  # a build inside the checkout would keep deleted files
        for path in sources:
            copy = Path(folder) / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        (Path(folder) / "README.md").touch()  # required by pyproject.toml; its text must not change the image
        _install(tree, "--no-deps", "--no-build-isolation", "--no-cache", folder, reason="vl3 itself")
    _write_program(tree / PREFIX / "bin" / "vl3", "vl3.cli.main:main")
    _finish(tree, globs, key, made_from)
    return tree


def source_files() -> list[Path]:
    """The files that the package vl3 is built from."""
    own = [path for path in (ROOT / "src" / "vl3").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted([*own, *(ROOT / name for name in ("LICENSE", "NOTICE", "pyproject.toml"))])


def trimmed(role: Role) -> list[str]:
    """Globs below site-packages of the files that a role does not need."""
    return [line for path in role.rule_files("trimmed.txt") for line in rule_lines(path)]


def tree_content(tree: Path) -> str:
    """Digest of the files in a finished tree."""
    return _mark(tree).read_text(encoding="utf-8").splitlines()[1]


def content_digest(*parts: str) -> str:
    """One digest for several texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class ImageBuildError(Exception):
    """An image could not be built; the message says what to do."""


def _install(tree: Path, *arguments: str, reason: str) -> None:
    """Install into a tree with the machine's own uv settings, which leave no trace in it."""
    command = [
        uv_program(),
        "pip",
        "install",
        "--quiet",
        "--python",
        sys.executable,
        "--target",
        str(tree / SITE_PACKAGES),
    ]
    if "--no-build-isolation" not in arguments:
        command += ["--python-version", PYTHON_VERSION, "--python-platform", PLATFORM]
    environment = os.environ | {"UV_SYSTEM_CERTS": os.environ.get("UV_SYSTEM_CERTS", "1")}
    try:
        subprocess.run([*command, *arguments], check=True, env=environment, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise ImageBuildError("uv is missing. Install it (pip install uv) and start again.") from error
    except subprocess.CalledProcessError as error:
        raise ImageBuildError(f"{reason} could not be installed: see uv's message above.") from error


def _finish(tree: Path, globs: list[str], key: str, made_from: str) -> None:
    site_packages = tree / SITE_PACKAGES
    for pattern in globs:
        for path in list(site_packages.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _compile(tree)
    # Pins and sources determine the content of the files, the listing which files there are. So a new glob that matches
    # nothing, or another way to make the same tree, does not change the images.
    files = sorted(path for path in tree.rglob("*") if not path.is_dir())
    listing = (f"{path.relative_to(tree)} {path.lstat().st_size}" for path in files)
    _mark(tree).write_text(f"{key}\n{content_digest(made_from, *listing)}\n", encoding="utf-8")


def _compile(tree: Path) -> None:
    """Write bytecode that Python does not compare with its source's time, with the paths in the image."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON_VERSION:
        raise ImageBuildError(f"the images need bytecode of Python {PYTHON_VERSION}. Make .venv with that version.")
    options = ["-q", "-q", "-j", str(os.cpu_count() or 1), "--invalidation-mode", "unchecked-hash"]
    options += ["-s", str(tree), "-p", "/", str(tree / SITE_PACKAGES)]
    # Some libraries have files that Python 3 cannot compile (templates, syntax tests), which count as an error.
    subprocess.run([sys.executable, "-m", "compileall", *options], check=False, stdout=subprocess.DEVNULL)


def _write_program(path: Path, entry: str) -> None:
    module, _, function = entry.partition(":")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!/{PREFIX}/bin/python\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
    )
    path.chmod(0o755)


def _is_finished(tree: Path, key: str) -> bool:
    mark = _mark(tree)
    return tree.is_dir() and mark.exists() and mark.read_text(encoding="utf-8").startswith(f"{key}\n")


def _mark(tree: Path) -> Path:
    """The file with the key for which a tree was finished, and the digest of its files."""
    return TREES / f"{tree.name}.content"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
