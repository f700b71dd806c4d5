"""Keeps torch's compiler, which is never used here, from being imported: two CPU seconds of every worker's start.

torch marks functions of its optimizers as not to be compiled, and on the first call of each imports the compiler (with
sympy, ONNX and its own tensors of several devices) in order to tell it so. A function that has its answer already
imports nothing. DeepSpeed compiles functions of an optimizer that we do not use when it looks at which one we do use.
"""

import inspect
import sys
from types import ModuleType
from typing import Any

import torch

_MODULES = ("torch.optim.optimizer", "torch.optim.adam")
_COMPILED = "deepspeed.runtime.zero.muon.original_muon"
_ANSWER = "__dynamo_disable"
"""Where torch keeps what it calls instead of a marked function (torch/_compile.py)."""


class AdamW(torch.optim.AdamW):
    """torch's AdamW, whose own `step` imports the compiler only to tell it not to follow."""

    _plain_step = staticmethod(inspect.unwrap(torch.optim.Adam.step))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update, without gradients of its own."""
        return self._plain_step(self, closure)


def leave_compiler_out() -> None:
    """Call before an optimizer is made.

    Every marked function of torch's optimizers gets its answer: itself. DeepSpeed's own optimizer is imported while
    compiling does nothing. Harmless if neither is so any more.
    """
    modules = [sys.modules[name] for name in _MODULES]  # torch.optim has not kept them as attributes
    owners: list[type | ModuleType] = [torch.optim.Optimizer, torch.optim.Adam, torch.optim.AdamW, *modules]
    for owner in owners:
        _answer(owner)
    if _COMPILED not in sys.modules and "torch._dynamo" not in sys.modules:
        compile_ = torch.compile
        torch.compile = _as_it_is  # type: ignore[assignment]
        try:
            import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
        except ImportError:
            pass  # another version of DeepSpeed
        finally:
            torch.compile = compile_


def _as_it_is(function: Any = None, **_: Any) -> Any:
    """In place of torch.compile, called with a function or as a decorator with options."""
    return function if function is not None else _as_it_is


def _answer(owner: type | ModuleType) -> None:
    for _, function in inspect.getmembers(owner, inspect.isfunction):
        marked = getattr(function, "__wrapped__", None)
        if marked is not None and function.__code__.co_filename.endswith("torch/_compile.py"):
            setattr(marked, _ANSWER, marked)
