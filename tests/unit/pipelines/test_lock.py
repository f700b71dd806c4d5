"""One runner at a time in a run folder; a forged lock file does no harm."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vl3.errors import ConfigError, StorageError
from vl3.lifeline import RUNNER_VARIABLE, runner_mark
from vl3.pipelines.local.lock import RUN_FOLDER_VARIABLE, _prefix, clean_up_after, run_lock
from vl3.system.locks import Holder, read_holder

HOLDER = """
import sys
from pathlib import Path
from vl3.pipelines.local.lock import run_lock
with run_lock(Path(sys.argv[1])) as temporary:
    temporary.mkdir()
    print(temporary, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's temporary folder."""
    root = tmp_path / "tmp"
    root.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def holder(run: Path, temporary_root: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary_root)},
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    assert Path(process.stdout.readline().strip()).parent == temporary_root
    yield process
    process.kill()
    process.communicate()


def test_a_second_runner_is_refused_with_who_has_it(holder: "subprocess.Popen[str]", run: Path) -> None:
    with (
        pytest.raises(ConfigError, match=rf"{run} is in use by process {holder.pid} on \S+ since .*Z\..*use another"),
        run_lock(run),
    ):
        pass


def test_a_killed_holder_leaves_its_name_and_its_temporary_folder_is_removed(
    holder: "subprocess.Popen[str]", run: Path, temporary_root: Path
) -> None:
    mark = runner_mark(holder.pid)
    holder.kill()
    holder.wait()
    former = read_holder(run / "run.lock")
    assert (former.pid, former.facts["mark"]) == (holder.pid, mark)
    assert len(list(temporary_root.iterdir())) == 1
    with run_lock(run) as temporary:
        assert list(temporary_root.iterdir()) == []
        assert temporary.parent == temporary_root
        assert read_holder(run / "run.lock").pid == os.getpid()


def test_a_lock_that_was_given_back_names_nobody(run: Path) -> None:
    for _ in range(2):
        with run_lock(run):
            pass
        assert (run / "run.lock").read_bytes() == b""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_explained(run: Path) -> None:
    run.chmod(0o500)
    with pytest.raises(StorageError, match=r"run\.lock: no permission to write"), run_lock(run):
        pass


@pytest.mark.parametrize("thing", ["folder", "link"])
def test_a_lock_that_cannot_be_opened_is_explained(thing: str, run: Path, tmp_path: Path) -> None:
    if thing == "folder":
        (run / "run.lock").mkdir()
    else:
        (tmp_path / "elsewhere").write_text("dear")
        (run / "run.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"run\.lock: cannot be written"), run_lock(run):
        pass
    assert thing == "folder" or (tmp_path / "elsewhere").read_text() == "dear"


def test_what_a_killed_runner_left_ends_before_the_next_one_goes_on(tmp_path: Path) -> None:
    runner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    mark = runner_mark(runner.pid)
    program = "import os, time; from vl3.lifeline import start_lifeline; start_lifeline(os.environ, kill_group=False); "
    worker = subprocess.Popen(
        [sys.executable, "-c", f"{program}print('up', flush=True); time.sleep(60)"],
        env={**os.environ, RUNNER_VARIABLE: mark, RUN_FOLDER_VARIABLE: str(tmp_path)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"up\n"
    runner.kill()
    runner.wait()
    clean_up_after(Holder(facts={"mark": mark}), tmp_path)
    assert worker.wait(5) == -9
    worker.communicate()


def test_the_mark_of_a_runner_that_runs_ends_nothing(run: Path) -> None:
    runner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    mark = runner_mark(runner.pid)
    worker = subprocess.Popen(["sleep", "60"], env={**os.environ, RUNNER_VARIABLE: mark})
    try:
        clean_up_after(Holder(facts={"mark": mark}), run)
        assert (runner.poll(), worker.poll()) == (None, None)
    finally:
        for process in (runner, worker):
            process.kill()
            process.wait()


def test_processes_of_another_folder_are_left_alone_whatever_the_lock_says(run: Path, tmp_path: Path) -> None:
    """A runner in a container seems to have ended, because its pid is another one there."""
    mark = f"{os.getpid()}:1"
    folders = {"another run": str(tmp_path / "other"), "no run": None}
    workers = [
        subprocess.Popen(
            ["sleep", "60"],
            env={**os.environ, RUNNER_VARIABLE: mark, **({RUN_FOLDER_VARIABLE: folder} if folder else {})},
        )
        for folder in folders.values()
    ]
    try:
        clean_up_after(Holder(facts={"mark": mark}), run)
        assert [worker.poll() for worker in workers] == [None, None]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def places(run: Path, root: Path) -> dict[str, Path]:
    """Where a lock's file may point that is not ours to remove."""
    name = f"{_prefix(run)}0123abcd"
    return {
        "the run": run,
        "outside": root.parent / "precious",
        "the temporary root": root,
        "another name": root / "vl3-run-precious",
        "another run's": root / f"{_prefix(run / 'other')}0123abcd",
        "deeper": root / "vl3-run-precious" / name,
        "by a detour": root / "vl3-run-precious" / ".." / name,
        "elsewhere": root.parent / name,
        "a link": root / name,
    }


@pytest.mark.parametrize("place", list(places(Path(), Path())))
def test_only_a_temporary_folder_of_this_run_is_removed(
    place: str, run: Path, temporary_root: Path, tmp_path: Path
) -> None:
    target = places(run, temporary_root)[place]
    if place == "a link":
        (tmp_path / "precious").mkdir()
        target.symlink_to(tmp_path / "precious")
    else:
        (temporary_root / "vl3-run-precious").mkdir()
        target.mkdir(parents=True, exist_ok=True)
    (target / "file").write_text("dear")
    (run / "run.lock").write_text(json.dumps({"pid": 1, "mark": "1:1", "temporary": str(target)}))
    with run_lock(run):
        pass
    assert (target / "file").read_text() == "dear"


def test_a_folder_of_somebody_else_is_left(run: Path, temporary_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = temporary_root / f"{_prefix(run)}0123abcd"
    folder.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    clean_up_after(Holder(facts={"temporary": str(folder)}), run)
    assert folder.is_dir()
    monkeypatch.undo()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
MARKS = st.from_regex(re.compile(r"[0-9]{1,12}:[0-9]{1,22}", re.ASCII), fullmatch=True) | ANYTHING
CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.just(b"[" * 60_000),
    st.just(b'{"pid": ' + b"9" * 60_000 + b"}"),
    ANYTHING.map(lambda data: json.dumps(data).encode()),
    st.fixed_dictionaries(
        {},
        optional={
            "pid": st.integers() | ANYTHING,
            "mark": MARKS,
            "host": ANYTHING,
            "temporary": st.sampled_from(["PRECIOUS", "PRECIOUS/..", ".", "/", "", "\0", "ROOT", "RUN"]) | ANYTHING,
        },
    ).map(lambda data: json.dumps(data).encode()),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENTS)
def test_a_lock_of_any_content_is_taken_and_harms_nothing(
    content: bytes, run: Path, temporary_root: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(exist_ok=True)
    (precious / "file").write_text("dear")
    for word, path in (("PRECIOUS", precious), ("ROOT", temporary_root), ("RUN", run)):
        content = content.replace(word.encode(), os.fsencode(path))
    (run / "run.lock").write_bytes(content)
    (run / "run.json").write_text("record")
    held: list[Any] = []
    with run_lock(run) as temporary:
        held.append(temporary)
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on"), run_lock(run):
            pass
    assert len(held) == 1
    assert (precious / "file").read_text() == "dear"
    assert (run / "run.json").read_text() == "record"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "run", "tmp"]
    shutil.rmtree(precious)
