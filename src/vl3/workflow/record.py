"""The record of a finished step. It includes its own digest and key, and is rejected if either does not match."""

import json
import logging
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from vl3.config.codec import digest
from vl3.errors import StorageError
from vl3.store.objects import open_store
from vl3.store.reference import Reference
from vl3.store.uris import join_uri
from vl3.system.clock import is_time
from vl3.system.documents import parse_object
from vl3.system.files import atomic_write_json
from vl3.workflow.key import KeyParts

log = logging.getLogger("vl3.step")

_DIGEST = "sha256"
_KEY = re.compile(r"[0-9a-f]{32}")
_OUTPUT = re.compile(r"[a-z][a-z0-9_-]*")
_PUBLISHED = re.compile(r"[A-Za-z0-9_-]+/[0-9a-f]{32}/[a-z][a-z0-9_-]*")
_REMEDY = "Run the workflow again: the step that writes it is run again by itself."
_MAX_READ = 16
"""Records that are read to find the newest valid ones; a root that many runs share may have thousands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What is kept of a finished step, at `<artifacts_uri>/steps/<task>/<key>.json`."""

    key: str
    """Digest of `parts`."""
    name: str
    """The task."""
    outputs: dict[str, Reference]
    """Published artifacts by output name, each at `<artifacts_uri>/steps/<task>/<key>/<output name>`, or an input that
    is passed on."""
    values: dict[str, Any]
    """Small results."""
    seconds: float
    """Time that the last attempt took."""
    created_at: str
    """When it finished, ISO 8601 in UTC."""
    commit: str
    """Commit of the code that finished it."""
    parts: KeyParts
    """What its key was made of."""

    def output(self, name: str) -> Reference:
        """An output by its name.

        Raises:
            StorageError: the record has no such output, so something else wrote it.
        """
        if name not in self.outputs:
            raise StorageError(
                f"the record {self.key} of {self.name} has no output {name!r}, only {sorted(self.outputs)}: "
                "something else wrote it. Delete the record; the step then runs again."
            )
        return self.outputs[name]


def record_uri(artifacts_uri: str, task: str, key: str) -> str:
    """The folder of a step's outputs; the record is next to it, with the same name and `.json`."""
    return join_uri(artifacts_uri, "steps", task, key)


def record_of(reference: Reference) -> StepRecord:
    """The record of the step that published an artifact.

    Raises:
        StorageError: there is no valid one, so it is not known which step made the artifact.
    """
    uri = reference.uri.rpartition("/")[0]
    try:
        record = _read(uri)
    except ValueError as error:
        raise StorageError(f"{uri}.json: the step's record cannot be trusted ({error}). {_REMEDY}") from error
    if record is None:
        raise StorageError(f"{uri}.json: the step's record is missing. {_REMEDY}")
    return record


def read_record(uri: str) -> StepRecord | None:
    """The record at `<uri>.json`; None if it is missing, or not valid, which is logged.

    Raises:
        StorageError: the store fails.
    """
    try:
        return _read(uri)
    except ValueError as error:
        log.warning("ignoring %s.json, which cannot be trusted (%s): the step counts as not finished", uri, error)
        return None


def finished_records(artifacts_uri: str, task: str) -> Iterator[StepRecord]:
    """The valid records among the last few of a task, newest first.

    Raises:
        StorageError: the store fails.
    """
    folder = join_uri(artifacts_uri, "steps", task)
    keys = [name.removesuffix(".json") for name in open_store(folder).newest() if name.endswith(".json")]
    for key in keys[:_MAX_READ]:
        record = read_record(join_uri(folder, key))
        if record is not None:
            yield record


def write_record(uri: str, record: StepRecord) -> None:
    """Write a record at `<uri>.json`.

    Raises:
        StorageError: the store refuses or fails.
    """
    parent, _, name = uri.rpartition("/")
    content = json.loads(json.dumps(asdict(record)))  # as it will be read: keys are strings, tuples are lists
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "record.json"
        atomic_write_json(path, {**content, _DIGEST: digest(content)})
        open_store(parent).put_file(path, f"{name}.json")


def _read(uri: str) -> StepRecord | None:
    """The record at `<uri>.json`; None if it is missing. ValueError says what is not valid."""
    parent, _, key = uri.rpartition("/")
    data = open_store(parent).read(f"{key}.json")
    return None if data is None else parse_record(data, uri)


def parse_record(data: bytes, uri: str) -> StepRecord:
    """Read a record's bytes and check everything that a reader relies on.

    Args:
        data: any bytes.
        uri: where it was read, without `.json`: `<artifacts_uri>/steps/<task>/<key>`.

    Raises:
        ValueError: it is not a record, or of another task or key, or was changed.
    """
    content = parse_object(data)
    found = content.pop(_DIGEST, None)
    if set(content) != {field.name for field in fields(StepRecord)}:
        raise ValueError("it does not have the fields of a record; an older version of vl3 may have written it")
    if found != digest(content):
        raise ValueError("its content does not match its sha256")
    *_, task, key = uri.split("/")
    parts = _parts(content["parts"])
    if not _KEY.fullmatch(key) or content["key"] != key or content["name"] != task or parts.key(task) != key:
        raise ValueError(f"it is the record of another step: task {content['name']!r:.80}, key {content['key']!r:.80}")
    seconds = content["seconds"]
    if not _is_number(seconds) or not is_time(content["created_at"]) or not isinstance(content["commit"], str):
        raise ValueError("its time or its commit is not valid")
    if not isinstance(content["values"], dict):
        raise ValueError("its values are not an object")
    outputs = _outputs(content["outputs"], uri, parts)
    return StepRecord(**{**content, "parts": parts, "outputs": outputs, "seconds": float(seconds)})


def _parts(data: Any) -> KeyParts:
    names = {field.name for field in fields(KeyParts)}
    if not isinstance(data, dict) or set(data) != names or not all(isinstance(table, dict) for table in data.values()):
        raise ValueError("the parts of its key are not valid")
    if not _are_texts(*(text for name in names - {"config"} for text in data[name].values())):
        raise ValueError("a digest in the parts of its key is not text")
    return KeyParts(**data)


def _outputs(data: Any, uri: str, parts: KeyParts) -> dict[str, Reference]:
    """The references, if a record may give access to what they name.

    That is what is in the step's own folder, and what the step was given and passes on:
    `validate-data` passes on the dataset at `<root>/steps/build-data/<key>/dataset`.
    """
    if not isinstance(data, dict):
        raise ValueError("its outputs are not an object")
    outputs = {}
    for name, item in data.items():
        try:
            outputs[name] = Reference.from_dict(item)
        except StorageError as error:
            raise ValueError(f"output {name!r:.80}: {error}") from error
        is_own = outputs[name].uri == join_uri(uri, name)
        if not _OUTPUT.fullmatch(name) or not (is_own or _is_passed_on(outputs[name], uri, parts)):
            raise ValueError(f"its output {name!r:.80} is at {outputs[name].uri!r:.200}, outside of the step's folder")
    return outputs


def _is_passed_on(reference: Reference, uri: str, parts: KeyParts) -> bool:
    """Whether it is an input of the step that a step below the same root has published."""
    root = uri.rsplit("/steps/", 1)[0]
    place = reference.uri.removeprefix(f"{root}/steps/")
    return reference.sha256 in parts.inputs.values() and _PUBLISHED.fullmatch(place) is not None


def _is_number(value: Any) -> bool:
    """Whether it is a duration that can be shown and added."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e10


def _are_texts(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)
