"""What could not be sent comes back from its file as it was; any other content is dropped and touches nothing."""

import json
from pathlib import Path

import pytest

from vl3.tracking import leftovers
from vl3.tracking.outbox import Call

HEAD = {"run_id": "r", "task": "train-video", "key": "k" * 32}
TAGS = {"target": "step", "name": "set_tags", "arguments": {"tags": {"a": "b"}}}


def _write(tmp_path: Path, *lines: object, name: str = "train-video-k.jsonl") -> str:
    folder = tmp_path / "untracked"
    folder.mkdir(exist_ok=True)
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    (folder / name).write_text(text)
    return folder.as_uri()


def _metrics(step: int) -> Call:
    return Call("step", "log_metrics", {"rows": [[step, {"loss": float("inf")}]], "times_seconds": [1.5]})


def test_calls_come_back_with_neighbouring_metrics_in_one(tmp_path: Path) -> None:
    uri = (tmp_path / "untracked").as_uri()
    tags = Call("workflow", "set_tags", {"tags": {"vl3.error": "a\nb \u2028 c"}})
    register = Call("step", "register", {"model": "m"})
    leftovers.keep(uri, run_id="r", task="train-video", key="k", calls=[_metrics(1), _metrics(2), tags, register])
    (found,) = leftovers.read_all(uri, "r")
    rows = [[1, {"loss": float("inf")}], [2, {"loss": float("inf")}]]
    assert found.calls == [Call("step", "log_metrics", {"rows": rows, "times_seconds": [1.5, 1.5]}), tags]
    assert (found.run_id, found.task, found.key) == ("r", "train-video", "k")
    leftovers.drop(uri, found)
    assert list(leftovers.read_all(uri, "r")) == []


@pytest.mark.parametrize(
    "lines",
    [
        ["", ""],
        ["[1]"],
        ["not JSON"],
        [{"run_id": "r"}],
        [{**HEAD, "key": 3}],
        [HEAD, "{"],
        [HEAD, {**TAGS, "name": "__class__"}],
        [HEAD, {**TAGS, "name": ["set_tags"]}],
        [HEAD, {**TAGS, "target": "other"}],
        [HEAD, {**TAGS, "arguments": {"tags": {"a": 1}}}],
        [HEAD, {**TAGS, "arguments": {}}],
        [HEAD, {"target": "step", "name": "log_text", "arguments": {"text": "x", "file_name": "../x.html"}}],
        [
            HEAD,
            {"target": "step", "name": "log_metrics", "arguments": {"rows": [[1, {"a": "b"}]], "times_seconds": None}},
        ],
        [HEAD, {"target": "step", "name": "log_metrics", "arguments": {"rows": [[1, {}]], "times_seconds": [1, 2]}}],
        [HEAD, {"target": "step", "name": "finish", "arguments": {"status": "GREAT"}}],
        [HEAD, {"target": "workflow", "name": "finish_steps", "arguments": {"status": "RUNNING"}}],
    ],
)
def test_a_file_with_other_content_is_dropped(lines: list[object], tmp_path: Path) -> None:
    uri = _write(tmp_path, *lines)
    assert list(leftovers.read_all(uri, "r")) == []
    assert list((tmp_path / "untracked").iterdir()) == []


def test_another_runs_file_is_dropped_and_other_files_stay(tmp_path: Path) -> None:
    uri = _write(tmp_path, HEAD, TAGS)
    _write(tmp_path, "mine", name="notes.txt")
    assert list(leftovers.read_all(uri, "another")) == []
    assert [path.name for path in (tmp_path / "untracked").iterdir()] == ["notes.txt"]
