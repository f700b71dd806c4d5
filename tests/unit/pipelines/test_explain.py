"""`vl3 run explain`: for a run of this machine by its run.json, for a submitted one by the server's word."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vl3.cli import main
from vl3.config.parameters import WorkflowParameters
from vl3.pipelines import explain
from vl3.pipelines.local.record import RunRecord
from vl3.steps import build_data, import_start
from vl3.workflow.step import Step, StepOutcome, StepWork, execute, make_request

Vl3 = Callable[..., tuple[int, list[str], str]]
WAITING = [
    "plan-vision-adaptation   would run: waits for the output of validate-data",
    "plan-alignment           would run: waits for the output of validate-data",
]


@pytest.fixture
def vl3(pipelines_server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vl3:
    """Runs `vl3 run explain ...` here: exit code, lines on stdout, last line on stderr."""
    monkeypatch.setenv("VL3_KFP_ENDPOINT", pipelines_server.endpoint)

    def run(*arguments: str) -> tuple[int, list[str], str]:
        code = main.run(["run", "explain", *arguments])
        out, err = capsys.readouterr()
        return code, out.splitlines(), (err.splitlines() or [""])[-1]

    return run


@pytest.fixture
def parameters(tmp_path: Path) -> WorkflowParameters:
    """Of a run whose data are one line of annotations."""
    data = tmp_path / "data"
    (data / "annotations").mkdir(parents=True)
    (data / "annotations" / "train.jsonl").write_text("{}\n")
    return WorkflowParameters(
        recipe="tiny",
        data_uri=data.as_uri(),
        artifacts_uri=(tmp_path / "artifacts").as_uri(),
        tracking_uri="sqlite:///none",
        run_id="one",
    )


def finish(parameters: WorkflowParameters) -> None:
    """The first two tasks as if they had been finished, with outputs of no content."""

    def run(*outputs: str) -> Callable[[StepWork[Any]], StepOutcome]:
        def make(work: StepWork[Any]) -> StepOutcome:
            made = {}
            for name in outputs:
                with work.fresh_folder(name) as folder:
                    (folder / "tokenizer.json").write_text("")
                    made[name] = work.publish(folder, name, kind=name)
            return StepOutcome(outputs=made)

        return make

    def do(step: Step[Any], task: str, inputs: Any, *outputs: str) -> Any:
        stand_in = Step(
            run=run(*outputs),
            key_parts=step.key_parts,
            decided_by=step.decided_by,
            entries=(step.run.__module__,),
            libraries=step.libraries,
            reusable=step.reusable,
        )
        return execute(stand_in, make_request(parameters, task=task, part="", inputs=inputs), lambda *_: None)[0]

    start = do(import_start.STEP, "import-start", {}, "start")
    do(build_data.STEP, "build-data", {"start": start.outputs["start"]}, "dataset")


def write_run(folder: Path, parameters: WorkflowParameters) -> None:
    RunRecord(folder / "run.json", workflow="train", parameters=parameters, tasks=[]).write()


def test_a_run_of_this_machine_is_explained_by_its_folder_or_its_name(
    vl3: Vl3, parameters: WorkflowParameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "runs" / "one", parameters)
    code, out, _ = vl3(str(tmp_path / "runs" / "one"))
    assert code == 0
    assert out[0] == "check-prerequisites      would run: it does so in every run"
    assert out[1] == "import-start             would run: none is finished yet"
    assert out[2] == "build-data               would run: waits for the output of import-start"
    assert out[3] == "validate-data            would run: waits for the output of build-data"
    assert out[4:6] == WAITING
    assert out[-1] == "finish                   would run: it does so in every run"
    monkeypatch.chdir(tmp_path)
    assert vl3("one")[1] == out


def test_what_is_finished_and_what_changed_since_is_said(
    vl3: Vl3, parameters: WorkflowParameters, tmp_path: Path
) -> None:
    finish(parameters)
    write_run(tmp_path / "one", parameters)
    _, out, _ = vl3(str(tmp_path / "one"), "build-data")
    assert len(out) == 1
    assert out[0].startswith("build-data  reused: finished 20")
    (tmp_path / "data" / "annotations" / "train.jsonl").write_text("{ }\n")
    _, (line,), _ = vl3(str(tmp_path / "one"), "build-data")
    assert line.startswith("build-data  would run: config source ")


def test_json_has_every_difference(vl3: Vl3, parameters: WorkflowParameters, tmp_path: Path) -> None:
    finish(parameters)
    changed = WorkflowParameters(**{**parameters.to_dict(), "overrides": ("data.max_frames=8",)})
    write_run(tmp_path / "one", changed)
    _, out, _ = vl3(str(tmp_path / "one"), "build-data", "--json")
    assert json.loads("\n".join(out)) == [
        {
            "task": "build-data",
            "reused": False,
            "reason": "config data.max_frames 16 -> 8",
            "warning": "",
            "differences": {"config": {"data.max_frames": [16, 8]}, "inputs": {}, "modules": {}, "libraries": {}},
        }
    ]


def test_a_submitted_run_is_explained_by_the_servers_word(
    vl3: Vl3, pipelines_server: Any, parameters: WorkflowParameters
) -> None:
    finish(parameters)
    spec = {"pipeline_spec": {"pipelineInfo": {"name": "vl3-train"}}}
    pipelines_server.add_run("one", parameters={"workflow": parameters.to_dict()}, pipeline_spec=spec)
    code, out, _ = vl3("one", "build-data")
    assert (code, len(out)) == (0, 1)
    assert out[0].startswith("build-data  reused: finished 20")


def test_a_submitted_run_needs_the_versions_of_its_image(
    vl3: Vl3, pipelines_server: Any, parameters: WorkflowParameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"pipeline_spec": {"pipelineInfo": {"name": "vl3-train"}}}
    pipelines_server.add_run("one", parameters={"workflow": parameters.to_dict()}, pipeline_spec=spec)
    monkeypatch.setattr(explain, "_TRAINER", tmp_path / "site-packages" / "requirements.txt")
    code, _, said = vl3("one")
    assert code == 2
    assert said.endswith("Set VL3_TRAINER_REQUIREMENTS to that image's images/trainer/requirements.txt.")
    (tmp_path / "pins.txt").write_text("torch==2.13.0\n")
    monkeypatch.setenv("VL3_TRAINER_REQUIREMENTS", str(tmp_path / "pins.txt"))
    assert vl3("one", "build-data")[0] == 0


def test_a_task_or_a_run_that_is_not_there_is_said(vl3: Vl3, parameters: WorkflowParameters, tmp_path: Path) -> None:
    write_run(tmp_path / "one", parameters)
    code, _, said = vl3(str(tmp_path / "one"), "train-everything")
    assert code == 2
    assert "has no task 'train-everything'. Its tasks: check-prerequisites, import-start, build-data, valid" in said
    code, _, said = vl3("nowhere")
    assert code == 2
    assert "run 'nowhere' is not known to" in said


def test_a_run_json_of_another_workflow_is_said(vl3: Vl3, parameters: WorkflowParameters, tmp_path: Path) -> None:
    write_run(tmp_path / "one", parameters)
    path = tmp_path / "one" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"workflow": "tune"}))
    code, _, said = vl3(str(tmp_path / "one"))
    assert code == 2
    assert "workflow 'tune' is unknown" in said
