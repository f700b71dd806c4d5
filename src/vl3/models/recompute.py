"""What a block recomputes in backward instead of keeping it: nothing, its cheap operations, or everything.

none       fastest, most memory
selective  outputs of matrix products and attention are kept; norms, rotations and activations are computed again,
           which costs a few percent of the time and saves about a third of the memory
full       only a block's input is kept; each block runs twice, which costs a quarter to a third of the time
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

KINDS = ("none", "selective", "full")
_ATEN = torch.ops.aten
_KEPT = frozenset({_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.baddbmm.default})
_KEPT_WORDS = ("attention", "attn")
"""Attention kernels by a word of their name: torch has one for each device, flash-attn brings its own."""

Result = TypeVar("Result")


def is_kept(operation: Any) -> bool:
    """Whether the output of an operation is kept by `selective`."""
    return operation in _KEPT or any(word in str(operation) for word in _KEPT_WORDS)


def run_block(block: Callable[..., Result], kind: str, *arguments: Any) -> Result:
    """Call a block so that its backward recomputes what `kind` says; without gradients all kinds are the same."""
    if kind == "none" or not torch.is_grad_enabled():
        return block(*arguments)
    from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

    options: dict[str, Any] = {}
    if kind == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    # Random numbers (of an adapter's dropout) must be the same the second time; saving their state takes a while.
    draws = isinstance(block, nn.Module) and any(isinstance(part, nn.Dropout) for part in block.modules())
    return checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=draws, **options)


def _policy(_context: Any, operation: Any, *_: Any, **__: Any) -> Any:
    from torch.utils.checkpoint import CheckpointPolicy

    return CheckpointPolicy.MUST_SAVE if is_kept(operation) else CheckpointPolicy.PREFER_RECOMPUTE
