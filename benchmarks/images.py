"""Size of each image: its layers, and which distributions take the space.

`python -m images.build` first; then `python -m benchmarks.images`.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.record import write_result
from images.build import main as build_all
from images.docker import inspect_image
from images.roles import ROLES
from images.trees import SITE_PACKAGES, libraries_tree

LAUNCHER_LIMIT_MB = 250
_TOP = 6
_REASONS = {
    "base": "Debian bookworm (minbase) with Python 3.11; documentation, translations and caches removed",
    "torch": "the CUDA libraries that torch's wheel requires; one layer, shared by the next two",
    "trainer": "torch's layer; pyarrow reads the dataset index, av decodes videos, transformers provides Qwen2",
    "evaluator": "torch's layer; like the trainer, with MLflow's client and kfp's executor instead of DeepSpeed",
    "launcher": "the clients of Kubernetes, MLflow and S3, and kfp's executor; no torch, no database",
    "data": "Great Expectations brings pandas and scipy; pyarrow writes the index, av decodes videos",
    "mlflow": "the whole server with its web UI, which imports pyarrow and pandas",
}


def main() -> int:
    """Measure the existing images, and write benchmarks/results/images.json."""
    rebuild_seconds = _seconds_of_build()
    rows = []
    for role in ROLES.values():
        facts = inspect_image(role.image)
        if facts is None:
            print(f"{role.image} does not exist: run `python -m images.build` first", file=sys.stderr)
            return 2
        layers = [size for size in layer_sizes(role.image) if size >= 0.05]
        top = biggest(role.name)
        rows.append([role.name, round(facts["Size"] / 1e6), " + ".join(_megabytes(size) for size in layers), top])
        print(*rows[-1], sep=" | ")
    notes = [f"{name}: {reason}." for name, reason in _REASONS.items()]
    launcher = next(row[1] for row in rows if row[0] == "launcher")
    notes += [
        f"The launcher's limit is {LAUNCHER_LIMIT_MB} MB; it is {launcher} MB.",
        "Layers from bottom to top: Debian, the user and the empty environment, libraries, vl3's own code (and, in the "
        "launcher, the trainer's requirements). On one machine, trainer and evaluator share torch's layer.",
        "Left out, because no image has a compiler: triton, ninja, headers, static libraries. So torch.compile is not "
        "available in the images; the project does not use it.",
        f"`python -m images.build` with everything up to date: {rebuild_seconds:.1f} s.",
    ]
    write_result(
        "images",
        title="Container images",
        question="How large is each image, and why?",
        command="make images && .venv/bin/python -m benchmarks.images",
        columns=["image", "MB", "layers, MB", f"largest {_TOP} distributions of its own libraries, MB"],
        rows=rows,
        notes=notes,
    )
    return 0


def layer_sizes(image: str) -> list[float]:
    """Megabytes of each layer, from the bottom."""
    command = ["docker", "history", "--human=false", "--format", "{{json .}}", image]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [int(entry["Size"]) / 1e6 for entry in reversed(entries) if int(entry["Size"])]


def biggest(role_name: str) -> str:
    """The largest distributions that a role adds to its parent, by the files in their records."""
    role = ROLES[role_name]
    if role.requirements is None:
        return "none"
    site_packages = libraries_tree(role) / SITE_PACKAGES
    owners = {
        line.split(",")[0]: record.parent.name.partition("-")[0]
        for record in site_packages.glob("*.dist-info/RECORD")
        for line in record.read_text(encoding="utf-8").splitlines()
    }
    sizes: Counter[str] = Counter()
    for path in site_packages.rglob("*"):
        if path.is_file():
            sizes[_owner(path.relative_to(site_packages), owners)] += path.stat().st_size
    return ", ".join(f"{name} {_megabytes(size / 1e6)}" for name, size in sizes.most_common(_TOP))


def _owner(path: Path, owners: dict[str, str]) -> str:
    """The distribution of a file; bytecode belongs to that of its source."""
    if path.suffix == ".pyc":
        path = path.parent.parent / f"{path.name.partition('.')[0]}.py"
    return owners.get(path.as_posix(), "others").replace("_", "-")


def _seconds_of_build() -> float:
    """Time of a build when all images are up to date."""
    sys.argv = ["images.build"]
    started = time.monotonic()
    if build_all():
        raise SystemExit(2)
    started = time.monotonic()
    build_all()
    return time.monotonic() - started


def _megabytes(size: float) -> str:
    return f"{size:,.0f}" if size >= 10 else f"{size:.1f}"


if __name__ == "__main__":
    sys.exit(main())
