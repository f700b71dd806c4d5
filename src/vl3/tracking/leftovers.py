"""What could not be sent to MLflow, kept in files until a later step of the run sends it.

Anybody may have written the files, so a file that is not as we write it is dropped: it only costs notes. A call names
no file of this machine, and its target is a run that the sender finds by itself.
"""

import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.errors import Vl3Error
from vl3.store.objects import open_store
from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_text
from vl3.tracking.outbox import Call

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9-]{1,80}\.jsonl")
_FILE = re.compile(r"([\w-]{1,60}/)?[\w-]{1,60}\.(json|html)")
_MAX_FILES = 100


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, int | float) for one in value)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list)
        and len(row) == 2
        and isinstance(row[0], int)
        and isinstance(row[1], dict)
        and _is_numbers(list(row[1].values()))
        for row in value
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_status(value: Any) -> bool:
    return value in ("FINISHED", "FAILED", "KILLED")


_ARGUMENTS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "log_params": {"values": _is_texts},
    "log_metrics": {"rows": _is_rows, "times_seconds": lambda value: value is None or _is_numbers(value)},
    "log_dataset": dict.fromkeys(("name", "digest", "uri", "context"), _is_text),
    "log_text": {"text": _is_text, "file_name": lambda value: _is_text(value) and _FILE.fullmatch(value) is not None},
    "set_tags": {"tags": _is_texts},
    "finish": {"status": _is_status},
    "finish_steps": {"status": _is_status},
}
"""The calls that are kept, with the check of each argument. A registration is not kept: the step that promotes
registers what is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """What one step could not send."""

    name: str
    """Name of its file."""
    run_id: str
    """The workflow run that it belongs to."""
    task: str
    """The step."""
    key: str
    """The step's key."""
    calls: list[Call]
    """The calls, in order."""


def keep(uri: str, *, run_id: str, task: str, key: str, calls: Sequence[Call]) -> None:
    """Write what a step could not send, with a warning that says where it is."""
    kept = [call for call in joined(calls) if call.name in _ARGUMENTS]
    lines: list[dict[str, Any]] = [{"run_id": run_id, "task": task, "key": key}]
    lines += [{"target": call.target, "name": call.name, "arguments": call.arguments} for call in kept]
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "calls.jsonl"
            atomic_write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
            open_store(uri).put_file(path, f"{task}-{key[:32]}.jsonl")
    except Vl3Error as error:
        log.warning("%d notes for MLflow could not be sent, and not be kept either: %s", len(calls), error)
        return
    log.warning(
        "%d notes of %s for MLflow could not be sent. They are kept at %s; the next step of the run sends them, or the "
        "same run started again.",
        len(calls),
        task,
        uri,
    )


def joined(calls: Sequence[Call]) -> list[Call]:
    """The calls with neighbouring rows of metrics in one call, so that a few requests send what hours have left.

    Metrics of steps 1 and 2, a tag, metrics of step 3: [metrics of 1 and 2, tag, metrics of 3].
    """
    result: list[Call] = []
    for call in calls:
        last = result[-1] if result else None
        if last is not None and last.name == call.name == "log_metrics" and last.target == call.target:
            times = [_times(last), _times(call)]
            rows = [*last.arguments["rows"], *call.arguments["rows"]]
            result[-1] = Call(call.target, call.name, {"rows": rows, "times_seconds": [*times[0], *times[1]]})
        else:
            result.append(call)
    return result


def _times(call: Call) -> list[float]:
    """The times of a call's rows; now for one that has none."""
    return list(call.arguments["times_seconds"] or [time.time()] * len(call.arguments["rows"]))


def read_all(uri: str, run_id: str) -> Iterator[Leftover]:
    """What earlier steps of the run could not send; what is not valid or of another run is dropped.

    Raises:
        Vl3Error: the store fails.
    """
    store = open_store(uri)
    for name in [name for name in store.list() if _NAME.fullmatch(name)][:_MAX_FILES]:
        try:
            leftover = _parse(name, store.read(name) or b"")
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s/%s is dropped, because it has no notes for MLflow (%s)", uri, name, error)
            store.delete(name)
            continue
        if leftover.run_id == run_id:
            yield leftover
        else:
            log.info("%s/%s is dropped: it belongs to run %.80s, which has ended", uri, name, leftover.run_id)
            store.delete(name)


def drop(uri: str, leftover: Leftover) -> None:
    """Remove what was sent.

    Raises:
        Vl3Error: the store fails.
    """
    open_store(uri).delete(leftover.name)


def _parse(name: str, data: bytes) -> Leftover:
    head, *lines = data.splitlines()
    facts = parse_object(head)
    texts = {field: facts[field] for field in ("run_id", "task", "key")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("its first line is not as it was written")
    return Leftover(name=name, **texts, calls=[_call(parse_object(line)) for line in lines])


def _call(data: Mapping[str, Any]) -> Call:
    target, name, arguments = data["target"], data["name"], data["arguments"]
    checks = _ARGUMENTS.get(name) if isinstance(name, str) else None
    if target not in ("step", "workflow") or checks is None or not isinstance(arguments, dict):
        raise ValueError("a line is not a call")
    if set(arguments) != set(checks) or not all(check(arguments[one]) for one, check in checks.items()):
        raise ValueError(f"{name} has other arguments than a step gives")
    if name == "log_metrics" and len(arguments["times_seconds"] or arguments["rows"]) != len(arguments["rows"]):
        raise ValueError("a row of numbers has no time")
    return Call(target, name, arguments)
