"""Why a step runs or is reused: the differences between two keys as text. Pure functions on their parts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from vl3.workflow.key import KeyParts
from vl3.workflow.record import StepRecord

_MAX_NAMES = 8
"""Number of changed modules that are listed, so that a change of many files stays one short line."""
_MAX_FIELDS = 12
_MAX_VALUE_CHARACTERS = 60
_DIGEST_SHOWN = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Differences:
    """The differences between two keys: name -> (then, now), None if missing."""

    config: dict[str, tuple[Any, Any]]
    """Fields of the configuration, by path."""
    inputs: dict[str, tuple[str | None, str | None]]
    """Digests of the inputs."""
    modules: dict[str, tuple[str | None, str | None]]
    """Digests of the modules."""
    libraries: dict[str, tuple[str | None, str | None]]
    """Versions of the libraries."""

    @property
    def is_code_alone(self) -> bool:
        """Whether only code or libraries differ, and configuration and inputs are the same."""
        return not (self.config or self.inputs) and bool(self.modules or self.libraries)

    def lines(self) -> list[str]:
        """One text for each group that differs."""
        lines = []
        if self.modules:
            names = [name + _came_or_went(pair) for name, pair in self.modules.items()]
            lines.append(f"code changed in {_some(names, _MAX_NAMES)}")
        if self.config:
            fields = [f"{name} {_shown(then)} -> {_shown(now)}" for name, (then, now) in self.config.items()]
            lines.append(f"config {_some(fields, _MAX_FIELDS)}")
        if self.inputs:
            inputs = [f"{name} {_digest(then)} -> {_digest(now)}" for name, (then, now) in self.inputs.items()]
            lines.append(f"input {_some(inputs, _MAX_FIELDS)}")
        if self.libraries:
            versions = [f"{name} {then or 'none'} -> {now or 'none'}" for name, (then, now) in self.libraries.items()]
            lines.append(f"library {_some(versions, _MAX_NAMES)}")
        return lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Why a step runs."""

    reason: str
    """In one line."""
    warning: str
    """What to consider before running it; empty if nothing."""
    differences: Differences | None
    """From the newest finished one; None if there is none."""


def differences(then: KeyParts, now: KeyParts) -> Differences:
    """The differences between an earlier key and this one."""
    return Differences(
        config=_changed(then.config, now.config),
        inputs=_changed(then.inputs, now.inputs),
        modules=_changed(then.modules, now.modules),
        libraries=_changed(then.libraries, now.libraries),
    )


def judge(now: KeyParts, finished: Iterable[StepRecord], *, cost: Callable[[StepRecord], str] | None = None) -> Verdict:
    """Why a step with this key runs, for which there is no finished result to reuse.

    Args:
        now: the parts of its key.
        finished: records of the same task, the newest first; read only as far as needed.
        cost: the cost of running a recorded step again; None if it is not worth a warning.
    """
    records = iter(finished)
    newest = next(records, None)
    if newest is None:
        return Verdict(reason="none is finished yet", warning="", differences=None)
    changed = differences(newest.parts, now)
    reason = "; ".join(changed.lines()) or "the outputs of the finished one are gone or damaged"
    warning = _warning(now, chain([newest], records), cost) if cost else ""
    return Verdict(reason=reason, warning=warning, differences=changed)


def _warning(now: KeyParts, records: Iterable[StepRecord], cost: Callable[[StepRecord], str]) -> str:
    for record in records:
        changed = differences(record.parts, now)
        if changed.is_code_alone:
            return (
                f"a finished one of {record.created_at[:16]} (commit {_commit(record.commit)}) differs in code "
                f"alone: {'; '.join(changed.lines())}. {cost(record)}. To keep it, run the code of that commit."
            )
    return ""


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = sorted({*then, *now})
    return {name: (then.get(name), now.get(name)) for name in names if _differ(then, now, name)}


def _differ(then: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    """Whether only one has the name, or the values differ: a field that is None differs from a missing one."""
    return (name in then) != (name in now) or then.get(name) != now.get(name)


def _came_or_went(pair: tuple[str | None, str | None]) -> str:
    return " (new)" if pair[0] is None else " (gone)" if pair[1] is None else ""


def _some(texts: list[str], most: int) -> str:
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= _MAX_VALUE_CHARACTERS else text[: _MAX_VALUE_CHARACTERS - 3] + "..."


def _commit(commit: str) -> str:
    """A shortened commit, with its mark of uncommitted files: `0123456789ab-dirty`."""
    name, dash, mark = commit.partition("-")
    return name[:_DIGEST_SHOWN] + dash + mark


def _digest(value: str | None) -> str:
    return "none" if value is None else value[:_DIGEST_SHOWN]
