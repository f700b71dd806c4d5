"""The folders that become the layers of an image: installed on this machine by uv, trimmed, and compiled.

An image is never given a package index, a cache or a compiler: what it needs is laid out here as it will lie below /
in the image, and copied. uv links files from its cache, so a tree costs seconds and no disk.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from images.lock import PLATFORM, PYTHON_VERSION, read_pins
from images.roles import ROLES, ROOT, Role

TREES = ROOT / "build" / "images"
PREFIX = Path("opt/vl3")
SITE_PACKAGES = PREFIX / "lib" / f"python{PYTHON_VERSION}" / "site-packages"

_TRIMMED = (
    # Where a package came from: a path or an address of the machine that built the image.
    "*.dist-info/direct_url.json",
    "*.dist-info/uv_cache.json",
    # Programs of the libraries; they name this machine's Python in their first line. Ours are written below.
    "bin",
    # Headers and static libraries: no image has a compiler.
    "torch/include",
    "torch/share",
    "nvidia/*/include",
    "nvidia/*/*/include",
    "pyarrow/include",
    "pyarrow/src",
    "numpy/_core/include",
    "**/*.a",
    # Sources of extensions that would be compiled at first use.
    "deepspeed/ops/csrc",
    # Tests and samples of the libraries.
    "*/tests",
    "*/*/tests",
    "torch/test",
    "pyarrow/tests",
    "scipy/*/tests",
)


def libraries_tree(role: Role) -> Path:
    """The tree of a role's libraries, less what its parent has; made anew where its pins or the rules changed.

    Raises:
        ImageBuildError: uv is missing or cannot install.
    """
    assert role.requirements is not None
    parent = ROLES[role.parent].requirements if role.parent else None
    inherited = read_pins(parent) if parent else {}
    pins = {name: version for name, version in read_pins(role.requirements).items() if name not in inherited}
    tree = TREES / f"{role.name}-libraries"
    content = content_digest(*(f"{name}=={version}" for name, version in sorted(pins.items())), rules_digest())
    if _has_mark(tree, content):
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    (tree / SITE_PACKAGES).mkdir(parents=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={version}\n" for name, version in pins.items()))
        file.flush()
        _install(tree, "--no-deps", "--requirements", file.name, reason=f"the libraries of {role.name}")
    _finish(tree, content)
    return tree


def vl3_tree() -> Path:
    """The tree of the project's own code, made anew where a source file changed."""
    sources = source_files()
    tree = TREES / "vl3"
    content = content_digest(*(f"{path.relative_to(ROOT)} {_sha256(path)}" for path in sources), rules_digest())
    if _has_mark(tree, content):
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    (tree / SITE_PACKAGES).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:  # building inside the checkout would keep files that are deleted
        for path in sources:
            copy = Path(folder) / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        _install(tree, "--no-deps", "--no-build-isolation", "--no-cache", folder, reason="vl3 itself")
    _write_program(tree / PREFIX / "bin" / "vl3", "vl3.cli.main:main")
    _finish(tree, content)
    return tree


def source_files() -> list[Path]:
    """What the package vl3 is built from: the package itself and what its metadata name."""
    own = [path for path in (ROOT / "src" / "vl3").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted([*own, ROOT / "pyproject.toml", ROOT / "README.md"])


def rules_digest() -> str:
    """Digest of this module: other rules give another tree."""
    return _sha256(Path(__file__))


def content_digest(*parts: str) -> str:
    """One digest for several texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class ImageBuildError(Exception):
    """An image could not be built; the message says what to do."""


def _install(tree: Path, *arguments: str, reason: str) -> None:
    """Install into a tree with the machine's own settings of uv; nothing of them stays in it."""
    command = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", str(tree / SITE_PACKAGES)]
    if "--no-build-isolation" not in arguments:
        command += ["--python-version", PYTHON_VERSION, "--python-platform", PLATFORM]
    environment = os.environ | {"UV_SYSTEM_CERTS": os.environ.get("UV_SYSTEM_CERTS", "1")}
    try:
        subprocess.run([*command, *arguments], check=True, env=environment, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise ImageBuildError("uv is missing. Install it (pip install uv) and start again.") from error
    except subprocess.CalledProcessError as error:
        raise ImageBuildError(f"{reason} could not be installed: see uv's message above.") from error


def _finish(tree: Path, content: str) -> None:
    site_packages = tree / SITE_PACKAGES
    for pattern in _TRIMMED:
        for path in list(site_packages.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _compile(tree)
    (TREES / f"{tree.name}.content").write_text(content, encoding="utf-8")


def _compile(tree: Path) -> None:
    """Write bytecode that needs no look at its source's time, with the paths that the image will have."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON_VERSION:
        raise ImageBuildError(f"the images hold bytecode of Python {PYTHON_VERSION}. Make .venv with that version.")
    options = ["-q", "-q", "-j", str(os.cpu_count() or 1), "--invalidation-mode", "unchecked-hash"]
    options += ["-s", str(tree), "-p", "/", str(tree / SITE_PACKAGES)]
    # Files that no Python 3 can compile (templates, tests of syntax) lie in some libraries; they count as an error.
    subprocess.run([sys.executable, "-m", "compileall", *options], check=False, stdout=subprocess.DEVNULL)


def _write_program(path: Path, entry: str) -> None:
    module, _, function = entry.partition(":")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/{PREFIX}/bin/python\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n")
    path.chmod(0o755)


def _has_mark(tree: Path, content: str) -> bool:
    mark = TREES / f"{tree.name}.content"
    return tree.is_dir() and mark.exists() and mark.read_text(encoding="utf-8") == content


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
