"""Ways to damage a checkpoint, and what a resume makes of it."""

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.checkpoints import InventedState
from vl3.errors import StorageError
from vl3.store.manifest import MANIFEST_NAME, write_manifest
from vl3.training.checkpoint import Checkpoints
from vl3.training.fragment_files import read_pieces


def _pick(folder: Path, rng: random.Random, pattern: str = "*.safetensors") -> Path:
    return rng.choice(sorted(folder.glob(f"*/{pattern}")))


def _truncate(folder: Path, rng: random.Random) -> None:
    path = _pick(folder, rng)
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def _flip(folder: Path, rng: random.Random) -> None:
    path = _pick(folder, rng)
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def _lose(folder: Path, rng: random.Random) -> None:
    _pick(folder, rng).unlink()


def _lose_rank(folder: Path, rng: random.Random) -> None:
    rank = rng.choice(("r00000", "r00001"))
    for path in sorted(folder.glob(f"*/{rank}-*")):
        path.unlink()


def _forget_rank(folder: Path, rng: random.Random) -> None:
    """A manifest that vouches for a checkpoint without a rank's part."""
    _lose_rank(folder, rng)
    (path,) = folder.glob("*/index.json")
    index = json.loads(path.read_text())
    index["files"] = {name: rows for name, rows in index["files"].items() if (folder / name).exists()}
    path.write_text(json.dumps(index))
    write_manifest(folder, kind="training-state", created_by={})


def _no_manifest(folder: Path, _: random.Random) -> None:
    (folder / MANIFEST_NAME).unlink()


def _nonsense(folder: Path, rng: random.Random) -> None:
    (folder / MANIFEST_NAME).write_bytes(rng.randbytes(200))


def _swap(folder: Path, rng: random.Random) -> None:
    first, second = rng.sample(sorted(folder.glob("*/r0000?-weights-*")), 2)
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def _other_step(folder: Path, _: random.Random) -> None:
    before = sorted(folder.parent.iterdir())[-2]
    shutil.rmtree(folder)
    shutil.copytree(before, folder)


def _other_stage(folder: Path, _: random.Random) -> None:
    _change_state(folder, fingerprint="0" * 64)


def _change_state(folder: Path, **changes: Any) -> None:
    (path,) = folder.glob("*/trainer.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    write_manifest(folder, kind="training-state", created_by={})


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "a truncated file": _truncate,
    "a flipped bit": _flip,
    "a lost file": _lose,
    "a rank's files lost": _lose_rank,
    "a rank's part forgotten": _forget_rank,
    "no manifest": _no_manifest,
    "a manifest of noise": _nonsense,
    "two files swapped": _swap,
    "another step's": _other_step,
    "another stage's": _other_stage,
}


def verdict(work: Path) -> tuple[int, str]:
    """The step from which a stage would go on, and why not from the newest, without ranks and engines."""
    fingerprint = _fingerprint(sorted(work.iterdir())[0])
    checkpoints = Checkpoints(work.as_uri(), fingerprint=fingerprint, keep=2, created_by={})
    notes = []
    for step in checkpoints.steps():
        try:
            found = checkpoints.load(step)
            state = InventedState({name: math.prod(shape) for name, shape in found.shapes.items()})
            for kind in found.kinds:
                read_pieces(found, checkpoints.store(step), kind, state.pieces, state.values[kind])
        except StorageError as error:  # of another stage, too
            notes.append(f"step {step}: {error}")
        else:
            return step, "; ".join(notes)
    return 0, "; ".join(notes)


def _fingerprint(folder: Path) -> str:
    (path,) = folder.glob("*/trainer.json")
    return str(json.loads(path.read_text())["fingerprint"])
