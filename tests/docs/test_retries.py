"""The table of retries in docs/submission.md says what the compiled workflows and the launcher do."""

import json
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from vl3.config.parameters import WorkflowParameters
from vl3.config.placement import PlacementConfig
from vl3.errors import FAMILIES
from vl3.launch.check.findings import Findings
from vl3.launch.check.retries import WorkflowDefaults, judge_retries
from vl3.launch.diagnosis import causes
from vl3.pipelines.compile import compile_workflow
from vl3.pipelines.workflows import WORKFLOWS, get_workflow
from vl3.workflow.failures import note_failure, refuse_blind_retry

PAGE = Path(__file__).parents[2] / "docs" / "submission.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("\n## Retries\n")[2].partition("\n## ")[0]
HEADER, _, *ROWS = [
    [cell.strip() for cell in line.strip("| \n").split("|")] for line in SECTION.splitlines() if line.startswith("| ")
]
POD_LOST, EXIT_CODE, FINAL, STAGE = ROWS
NAME = re.compile(r"`([^`]+)`")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Retry policy of every task that runs a container, of all workflows, by the task's name."""
    found = {}
    models = {"evaluate": "s3://bucket/model"}
    for name in WORKFLOWS:
        path = tmp_path_factory.mktemp("ir") / f"{name}.yaml"
        compile_workflow(get_workflow(name), WorkflowParameters(model_uri=models.get(name, "")), path)
        ir = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        dags = [ir["root"]["dag"], *(part["dag"] for part in ir["components"].values() if "dag" in part)]
        for task in (task for dag in dags for task in dag["tasks"].values()):
            if "executorLabel" in ir["components"][task["componentRef"]["name"]]:
                found[task["taskInfo"]["name"]] = task["retryPolicy"]
    return found


def _column(task: str) -> int:
    """The one column whose head names the task."""
    (column,) = [index for index, head in enumerate(HEADER) if any(fnmatch(task, name) for name in NAME.findall(head))]
    return column


def test_the_numbers_are_those_of_every_compiled_task(tasks: dict[str, dict[str, Any]]) -> None:
    told = {task: {int(row[_column(task)]) for row in (POD_LOST, EXIT_CODE)} for task in tasks}
    assert told == {task: {policy.get("maxRetryCount", 0)} for task, policy in tasks.items()}
    assert len(tasks) > 10


def test_pauses_and_the_longest_time_are_the_compiled_ones(tasks: dict[str, dict[str, Any]]) -> None:
    pauses = re.findall(r"(\d+) s\b", SECTION.partition("come after")[2].partition("only within")[0])
    (days,) = re.findall(r"within (\d+) days of the first", SECTION)
    most = max(policy.get("maxRetryCount", 0) for policy in tasks.values())
    for policy in tasks.values():
        first, factor = int(policy["backoffDuration"].rstrip("s")), policy["backoffFactor"]
        assert list(map(int, pauses)) == [first * factor**number for number in range(most)]
        assert policy["backoffMaxDuration"] == f"{int(days) * 24 * 3600}s"


@pytest.mark.parametrize(("row", "failure"), [(POD_LOST, "pod is deleted"), (EXIT_CODE, "exit code")], ids=str)
def test_the_policies_are_those_that_the_check_accepts(row: list[str], failure: str) -> None:
    assert failure in row[0]
    for policy in ("Always", "OnError", "OnFailure"):
        findings = Findings()
        strategy = {"retryPolicy": policy, "limit": "0"}
        judge_retries(WorkflowDefaults(document={"spec": {"templateDefaults": {"retryStrategy": strategy}}}), findings)
        is_refused = any(failure in note for note in findings.notes)
        assert (policy in NAME.findall(row[1])) is not is_refused, policy


def test_the_families_that_end_at_once_are_those_of_the_step(tmp_path: Path) -> None:
    assert {FINAL[_column(task)] for task in ("check-prerequisites", "evaluate", "finish")} == {"0"}
    for family in FAMILIES:
        note_failure(tmp_path.as_uri(), "r", task="evaluate", family=family, message="m")
        try:
            refuse_blind_retry(tmp_path.as_uri(), "r", "evaluate")
        except FAMILIES[family]:
            assert family in FINAL[0]
        else:
            assert family not in FINAL[0]


def test_the_launchers_part_is_the_table_of_causes() -> None:
    retried = {cause.name for cause in vars(causes).values() if type(cause) is causes.Cause and cause.retry != "never"}
    assert {"node_lost", "evicted", "crash", "stalled"} <= retried, "the row names them"
    field = NAME.findall(STAGE[_column("train-video")])[0].rpartition(".")[2]
    assert field in PlacementConfig.__dataclass_fields__
    page, anchor = re.findall(r"\]\((\S+)#(\S+)\)", STAGE[1])[0]
    headings = re.findall(r"^## (.+)$", PAGE.with_name(page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor in [heading.lower().replace(" ", "-") for heading in headings]


def test_the_pages_patch_makes_every_failure_retried() -> None:
    (command,) = re.findall(r"^ *(kubectl .*patch configmap.*)$", SECTION, re.MULTILINE)
    patched = json.loads(shlex.split(command)[-1])["data"]["workflowDefaults"]
    (shown,) = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
    findings = Findings()
    judge_retries(WorkflowDefaults(namespace="kubeflow", document=yaml.safe_load(patched)), findings)
    assert findings.notes == []
    assert yaml.safe_load(patched) == yaml.safe_load(shown)
