"""Finds the newest usable checkpoint and gives each rank its share of it, whatever ranks have written it.

Every rank reads only the files that have values it holds, into host memory, and verifies them; only when all ranks have
succeeded does anybody write to its engine. Otherwise all turn to the checkpoint before, and the reason is said.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from vl3.errors import StorageError
from vl3.training.checkpoint import Checkpoints, OtherStageError, StoredCheckpoint, TrainerState
from vl3.training.collectives import gather_json
from vl3.training.fragment_files import read_pieces
from vl3.training.fragments import KINDS
from vl3.training.snapshot import EngineState

Note = Callable[[str], None]


def restore(
    checkpoints: Checkpoints, state: EngineState, *, note: Note, is_wanted: Callable[[TrainerState], bool]
) -> TrainerState | None:
    """Write the newest usable checkpoint into the engine. Every rank must call it.

    Args:
        checkpoints: those of the stage.
        state: the engine's.
        note: says which checkpoint is not used, and why.
        is_wanted: asked on rank 0 of a checkpoint that could be used; if not, the stage starts at step 0.

    Returns:
        Everything of the checkpoint except tensors; None without any.

    Raises:
        StorageError: there are checkpoints of this stage, and all of them are damaged.
    """
    damaged: list[str] = []
    for step in candidates(checkpoints, state.device):
        found, rows, reason, is_other = _read(checkpoints, step, state)
        reasons = [(text, other) for text, other in gather_json([reason, is_other], state.device) if text]
        if reasons:
            text, is_other = reasons[0]
            note(f"checkpoint of step {step} is not used: {text}")
            if not is_other and checkpoints.is_published(step):
                damaged.append(f"{checkpoints.uri(step)}: {text}")
            continue
        assert found is not None
        wanted = is_wanted(found.trainer) if dist.get_rank() == 0 else True
        if not all(gather_json(wanted, state.device)):
            return None
        _write(state, found, rows)
        return found.trainer
    _require_none(checkpoints, damaged, state.device)
    return None


def candidates(checkpoints: Checkpoints, device: torch.device) -> list[int]:
    """The steps of which something is stored, the newest first, as rank 0 sees them. Every rank must call it."""
    mine = checkpoints.steps() if dist.get_rank() == 0 else []
    return gather_json(mine, device)[0]


def _read(
    checkpoints: Checkpoints, step: int, state: EngineState
) -> tuple[StoredCheckpoint | None, dict[str, list[Tensor]], str, bool]:
    """A checkpoint with this rank's share of it in host memory, or why it cannot be used, and if that is by right."""
    rows: dict[str, list[Tensor]] = {}
    try:
        found = checkpoints.load(step)
        _require_same(found, state)
        for kind in found.kinds:
            rows[kind] = [torch.zeros(flat.numel(), dtype=torch.float32) for flat in state.flats]
            read_pieces(found, checkpoints.store(step), kind, state.pieces, rows[kind])
    except OtherStageError as error:
        return None, {}, str(error), True
    except StorageError as error:
        return None, {}, str(error), False
    return found, rows, "", False


def _require_same(found: StoredCheckpoint, state: EngineState) -> None:
    """Raise StorageError unless the checkpoint has this model's trained parameters, in their shapes."""
    for name in sorted(found.shapes.keys() | state.shapes.keys()):
        theirs, ours = found.shapes.get(name), state.shapes.get(name)
        if theirs != ours:
            raise StorageError(
                f"{found.uri}: is of another model: parameter {name!r} has the shape {theirs or 'of no parameter'} "
                f"there and {ours or 'of no parameter'} here."
            )


@torch.no_grad()
def _write(state: EngineState, found: StoredCheckpoint, rows: dict[str, list[Tensor]]) -> None:
    if set(KINDS) <= set(found.kinds):  # the last step's checkpoint has weights alone: no step follows
        state.make_moments(found.trainer.optimizer_step)
    for kind in found.kinds:
        for flat, row in enumerate(rows.pop(kind)):
            state.tensor(kind, flat).copy_(row)
    state.use_weights()


def _require_none(checkpoints: Checkpoints, damaged: list[str], device: torch.device) -> None:
    """Raise StorageError if checkpoints of this stage are there and none can be read: days of training may be in them.

    A folder without a manifest is what a killed save left, not a checkpoint.
    """
    on_zero = gather_json(damaged, device)[0]
    if on_zero:
        listed = "\n  ".join(on_zero)
        raise StorageError(
            f"none of the stage's {len(on_zero)} checkpoint(s) at {checkpoints.work_uri} can be read, and starting at "
            "step 0 would discard what was trained. Nothing was deleted. Bring the files back (from a backup, or "
            "older versions of the objects) and start the run again; to give them up, remove that folder first.\n  "
            f"{listed}"
        )
