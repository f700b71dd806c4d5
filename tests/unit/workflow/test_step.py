"""Steps are reused when nothing that matters has changed, and only then."""

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vl3.config.overrides import apply_overrides
from vl3.errors import DataError, StorageError
from vl3.store.reference import Reference
from vl3.system.uris import file_path
from vl3.workflow.record import record_of, record_uri, write_record
from vl3.workflow.step import Step, StepOutcome, StepRequest, StepWork, execute, key_parts

Runs = list[str]


def _ignore(done: int, total: int, text: str) -> None:
    """No progress display."""


@pytest.fixture
def runs() -> Runs:
    """Keys of the runs that were really made."""
    return []


@pytest.fixture
def step(runs: Runs) -> Step:
    """A step that writes its seed into a file."""

    def run(work: StepWork) -> StepOutcome:
        runs.append(work.key)
        with work.fresh_folder("out") as folder:
            (folder / "seed.txt").write_text(str(work.request.config.seed))
            reference = work.publish(folder, "out", kind="test")
        work.clear()
        return StepOutcome(outputs={"out": reference}, values={"seed": work.request.config.seed})

    return Step(entries=("vl3.errors",), run=run, key_parts=lambda request: {"seed": request.config.seed})


def test_a_finished_step_is_reused(step: Step, request_of_tiny: StepRequest, runs: Runs) -> None:
    first, was_reused = execute(step, request_of_tiny, _ignore)
    second, is_reused = execute(step, request_of_tiny, _ignore)
    assert (was_reused, is_reused, len(runs)) == (False, True, 1)
    assert second == first
    assert first.values == {"seed": 0}
    assert record_of(first.outputs["out"]) == first
    assert list(file_path(request_of_tiny.artifacts_uri).joinpath("work", "a-step").iterdir()) == []


def _with_seed(request: StepRequest) -> StepRequest:
    return dataclasses.replace(request, config=apply_overrides(request.config, ["seed=1"]))


def _with_input(request: StepRequest) -> StepRequest:
    return dataclasses.replace(
        request, inputs={"data": Reference(uri="file:///x", sha256="1", kind="x", created_by={})}
    )


def _with_other_uri(request: StepRequest) -> StepRequest:
    return dataclasses.replace(
        request, inputs={"data": Reference(uri="file:///y", sha256="1", kind="x", created_by={})}
    )


def step_key(step: Step, request: StepRequest) -> str:
    return key_parts(step, request).key(request.task)


CHANGES: dict[str, Callable[[StepRequest], StepRequest]] = {"configuration": _with_seed, "input": _with_input}


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_matters_changes_the_key(change: str, step: Step, request_of_tiny: StepRequest) -> None:
    assert step_key(step, CHANGES[change](request_of_tiny)) != step_key(step, request_of_tiny)


def test_code_changes_the_key(step: Step, request_of_tiny: StepRequest) -> None:
    other = dataclasses.replace(step, entries=("vl3.errors", "vl3.lifeline"))
    assert step_key(other, request_of_tiny) != step_key(step, request_of_tiny)


def test_place_and_run_do_not_change_the_key(step: Step, request_of_tiny: StepRequest) -> None:
    elsewhere = dataclasses.replace(request_of_tiny, artifacts_uri="file:///elsewhere", run_id="other")
    assert step_key(step, elsewhere) == step_key(step, request_of_tiny)
    assert step_key(step, _with_input(request_of_tiny)) == step_key(step, _with_other_uri(request_of_tiny))


def test_a_damaged_output_is_made_anew(step: Step, request_of_tiny: StepRequest, runs: Runs) -> None:
    record, _ = execute(step, request_of_tiny, _ignore)
    file_path(record.outputs["out"].uri).joinpath("seed.txt").write_text("7")
    again, is_reused = execute(step, request_of_tiny, _ignore)
    assert (is_reused, len(runs)) == (False, 2)
    assert file_path(again.outputs["out"].uri).joinpath("seed.txt").read_text() == "0"


def test_a_half_written_record_is_not_trusted(step: Step, request_of_tiny: StepRequest, runs: Runs) -> None:
    record, _ = execute(step, request_of_tiny, _ignore)
    path = file_path(request_of_tiny.artifacts_uri) / "steps" / "a-step" / f"{record.key}.json"
    path.write_text(path.read_text()[:-20])
    assert execute(step, request_of_tiny, _ignore)[1] is False


def test_a_record_without_what_the_workflow_takes_is_not_reused(
    step: Step, request_of_tiny: StepRequest, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    """A whole record with its own digest, which somebody else wrote under the key."""
    first, _ = execute(step, request_of_tiny, _ignore)
    uri = record_uri(request_of_tiny.artifacts_uri, "a-step", first.key)
    write_record(uri, dataclasses.replace(first, outputs={}))
    again, is_reused = execute(step, request_of_tiny, _ignore, outputs=["out"])
    assert (is_reused, len(runs), again.outputs) == (False, 2, first.outputs)
    assert "lacks outputs of a-step" in caplog.text
    assert execute(step, request_of_tiny, _ignore, outputs=["out"])[1]


@pytest.mark.parametrize("name", ["work/a-step/KEY", "work/a-step/KEY/new-out"])
def test_a_link_in_the_place_of_a_working_folder_leads_nowhere(
    name: str, step: Step, request_of_tiny: StepRequest, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("dear")
    key = key_parts(step, request_of_tiny).work_key("a-step")
    link = tmp_path / "artifacts" / name.replace("KEY", key)
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "precious")
    record, _ = execute(step, request_of_tiny, _ignore)
    assert (file_path(record.outputs["out"].uri) / "seed.txt").read_text() == "0"
    assert [path.read_text() for path in (tmp_path / "precious").iterdir()] == ["dear"]


def test_a_failed_step_leaves_no_output(request_of_tiny: StepRequest, tmp_path: Path) -> None:
    def fail(work: StepWork) -> StepOutcome:
        with work.fresh_folder("out") as folder:
            (folder / "half").write_text("half")
            raise DataError("no")

    step = Step(entries=("vl3.errors",), run=fail, key_parts=lambda _: {})
    with pytest.raises(DataError, match="no"):
        execute(step, request_of_tiny, _ignore)
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


def test_reuse_does_what_is_due_in_the_outside_world(step: Step, request_of_tiny: StepRequest) -> None:
    told: list[str] = []
    step = dataclasses.replace(step, on_reuse=lambda request, record: told.append(record.key))
    record, _ = execute(step, request_of_tiny, _ignore)
    assert told == []
    execute(step, request_of_tiny, _ignore)
    assert told == [record.key]


def test_a_step_that_is_not_reusable_always_runs(step: Step, request_of_tiny: StepRequest, runs: Runs) -> None:
    step = dataclasses.replace(step, reusable=False)
    assert [execute(step, request_of_tiny, _ignore)[1] for _ in range(2)] == [False, False]
    assert len(runs) == 2


def test_why_a_step_runs_is_in_its_log(
    step: Step, request_of_tiny: StepRequest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        execute(step, request_of_tiny, _ignore)
        execute(step, _with_seed(request_of_tiny), _ignore)
        other = dataclasses.replace(step, entries=("vl3.errors", "vl3.lifeline"), cost=lambda _: "It costs a day")
        execute(other, _with_seed(request_of_tiny), _ignore)
    assert [entry.message for entry in caplog.records if entry.message.startswith("a-step runs")] == [
        "a-step runs: none is finished yet",
        "a-step runs: config seed 0 -> 1",
        "a-step runs: code changed in vl3.lifeline (new)",
    ]
    (warning,) = [entry.message for entry in caplog.records if entry.levelname == "WARNING"]
    assert "differs in code alone: code changed in vl3.lifeline (new). It costs a day." in warning


def test_unfinished_work_outlives_a_change_of_the_code(step: Step, request_of_tiny: StepRequest) -> None:
    def work(step: Step, request: StepRequest) -> StepWork:
        return StepWork(request=request, parts=key_parts(step, request), progress=_ignore)

    other = dataclasses.replace(step, entries=("vl3.errors", "vl3.lifeline"))
    before, after = work(step, request_of_tiny), work(other, request_of_tiny)
    assert before.work_uri == after.work_uri
    assert before.output_uri("out") != after.output_uri("out")
    assert before.code_version != after.code_version
    assert work(step, _with_seed(request_of_tiny)).work_uri != before.work_uri


def test_a_record_of_another_root_is_not_reused(
    step: Step, request_of_tiny: StepRequest, runs: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a run folder was copied: its records name outputs in the folder that it was copied from."""
    execute(step, request_of_tiny, _ignore)
    shutil.copytree(tmp_path / "artifacts", tmp_path / "copy")
    record, is_reused = execute(
        step, dataclasses.replace(request_of_tiny, artifacts_uri=(tmp_path / "copy").as_uri()), _ignore
    )
    assert (is_reused, len(runs)) == (False, 2)
    assert record.outputs["out"].uri.startswith((tmp_path / "copy").as_uri())
    assert "outside of the step's folder): the step counts as not finished" in caplog.text


def test_records_that_cannot_be_compared_fail_no_step(
    step: Step, request_of_tiny: StepRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the store is away")

    monkeypatch.setattr("vl3.workflow.step.finished_records", fail)
    assert execute(step, request_of_tiny, _ignore)[1] is False
    assert (
        "cannot determine why a-step runs, since its earlier records cannot be read: the store is away" in caplog.text
    )
