"""What ran is said of this machine and this process, and secrets are not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.documents import VALUES
from vl3.system import provenance as module
from vl3.system.commit import code_commit
from vl3.system.provenance import command_line, in_words, machine, provenance, tree_of, versions


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has not been asked yet."""
    provenance.cache_clear()
    for name in (module.COMMAND_VARIABLE, module.IMAGE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    yield
    provenance.cache_clear()


def test_everything_that_is_asked_later_is_there() -> None:
    found = provenance()
    assert list(found) == ["commit", "tree", "command", "versions", "machine", "image"]
    commit = code_commit(os.environ)
    assert (found["commit"], found["tree"]) == (commit.removesuffix("-dirty"), tree_of(commit))
    assert {"python", "vl3", "torch", "transformers", "deepspeed", "mlflow", "kfp"} <= set(found["versions"])
    assert list(found["machine"]) == ["host", "os", "kernel", "cpu", "cores", "memory", "gpus"]
    assert found["machine"]["cores"] == str(len(os.sched_getaffinity(0)))
    assert found["image"] == ""


def test_the_processes_of_a_run_name_the_command_and_the_image_that_they_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VL3_COMMAND", "vl3 run start --recipe tiny")
    monkeypatch.setenv("VL3_IMAGE", "ghcr.io/vl3/data@sha256:ab")
    assert (provenance()["command"], provenance()["image"]) == (
        "vl3 run start --recipe tiny",
        "ghcr.io/vl3/data@sha256:ab",
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["/v/bin/python", "/v/bin/vl3", "run", "start", "--set", "a=b c"], "vl3 run start --set 'a=b c'"),
        (["/v/bin/python3", "-m", "benchmarks.chaos", "--seed", "1"], "python -m benchmarks.chaos --seed 1"),
        (["python", "/v/bin/vl3", "--tracking", "http://me:geheim@host/x"], "vl3 --tracking 'http://***@host/x'"),
        (["python"], "python"),
        ([], "python"),
    ],
)
def test_a_command_is_said_as_it_would_be_typed_without_its_secrets(arguments: list[str], line: str) -> None:
    assert command_line(arguments) == line


def test_the_command_of_this_process_is_the_one_that_started_it() -> None:
    program = 'from vl3.system.provenance import provenance; print(provenance()["command"])'
    done = subprocess.run([sys.executable, "-c", program, "x"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"python -c '{program}' x"


@pytest.mark.parametrize(("commit", "tree"), [("ab12", "clean"), ("ab12-dirty", "modified"), ("unknown", "unknown")])
def test_the_tree_follows_from_the_commit(commit: str, tree: str) -> None:
    assert tree_of(commit) == tree


def test_the_pins_of_another_image_take_precedence() -> None:
    found = versions({"torch": "9.9", "mlflow-skinny": "8.8"})
    assert found["torch"] == "9.9"
    assert found["kfp"] == versions()["kfp"]


def test_a_machine_is_read_from_the_kernel_without_a_program(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC 9354\nmodel name\t: AMD EPYC 9354\n")
    for number, name in enumerate(("NVIDIA H200", "NVIDIA H200", "NVIDIA A100")):
        (tmp_path / "gpus" / str(number)).mkdir(parents=True)
        (tmp_path / "gpus" / str(number) / "information").write_text(f"Model: \t\t {name}\nIRQ: 1\n")
    assert module._cpu_name(tmp_path / "cpuinfo") == "AMD EPYC 9354"
    assert module._cpu_name(tmp_path / "missing") == ""
    assert module._gpu_names(tmp_path / "gpus") == "2 x NVIDIA H200, 1 x NVIDIA A100"
    assert module._gpu_names(tmp_path / "missing") == ""


@pytest.mark.parametrize(
    ("file", "text", "gib"),
    [
        ("memory.max", "2147483648\n", 2),
        ("memory/memory.limit_in_bytes", "1073741824\n", 1),
        ("memory.max", "max\n", None),
        ("memory.max", "", None),
    ],
)
def test_a_containers_limit_is_its_memory(file: str, text: str, gib: int | None, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert module._memory_bytes(tmp_path) == (whole if gib is None else gib * 1024**3)


def test_what_ran_in_words() -> None:
    desk = machine() | {"host": "desk", "cpu": "AMD EPYC", "cores": "2", "memory": "24 GiB", "gpus": "1 x NVIDIA H200"}
    words = in_words(provenance() | {"machine": desk, "image": "x@sha256:ab"})
    assert words["machine"] == "desk: 2 cores (AMD EPYC), 24 GiB, 1 x NVIDIA H200"
    assert (words["commit"], words["image"]) == (provenance()["commit"], "x@sha256:ab")
    bare = in_words({"machine": desk | {"cpu": "", "gpus": ""}})
    assert bare == {"commit": "", "tree": "", "command": "", "image": "", "machine": "desk: 2 cores, 24 GiB"}


@given(found=st.dictionaries(st.sampled_from(["commit", "tree", "command", "machine", "image"]), VALUES))
def test_what_ran_may_have_any_content(found: dict[str, Any]) -> None:
    words = in_words(found)
    assert list(words) == ["commit", "tree", "command", "image", "machine"]
    assert all(isinstance(text, str) for text in words.values())
