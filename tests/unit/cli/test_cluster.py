"""`vl3 cluster`: what a person reads and which exit code a program gets."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from vl3.cli.cluster import age, seconds_of
from vl3.cli.main import run
from vl3.errors import ClusterError, ConfigError, Vl3Error
from vl3.launch import collect, listing
from vl3.launch.check import cluster as check
from vl3.launch.check import reach
from vl3.launch.check.cluster import CheckReport
from vl3.launch.check.findings import PlacementRow
from vl3.launch.listing import ListedJob


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the check find what a test says; returns what was asked."""
    asked: list[Any] = []

    def arrange(problems: Sequence[Vl3Error] = (), notes: Sequence[str] = ()) -> list[Any]:
        def inspect(placements: Any, namespace: str | None, context: str | None, *, step_pods: Any) -> CheckReport:
            asked.append((placements, namespace, context, {kind: size.cpus for kind, size in step_pods.items()}))
            rows = [
                PlacementRow(
                    stage=stage,
                    pool=placement.pool,
                    pods="2 x 8 GPUs",
                    queue=placement.queue,
                    quota="16 of 32 GPUs",
                    nodes="4",
                )
                for stage, placement in placements.items()
            ]
            return CheckReport(
                server="https://10.0.0.1:6443",
                version="v1.36.3",
                namespace="vl3",
                rows=rows,
                problems=problems,
                notes=notes,
            )

        monkeypatch.setattr(check, "inspect_cluster", inspect)
        return asked

    return arrange


def test_a_good_cluster_is_a_table_and_ok(inspected: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked = inspected(notes=["something to know"])
    arguments = ["--set", "placements.video.queue=night", "--namespace", "team", "--context", "prod"]
    arguments += ["--set", "step_pods.evaluator.cpus=0.5"]
    assert run(["cluster", "check", *arguments]) == 0
    assert capsys.readouterr().out == (
        "https://10.0.0.1:6443 (Kubernetes v1.36.3), namespace vl3\n"
        "stage              pool  pods        queue  quota          nodes\n"
        "vision_adaptation  cpu   2 x 8 GPUs  cpu    16 of 32 GPUs  4\n"
        "alignment          cpu   2 x 8 GPUs  cpu    16 of 32 GPUs  4\n"
        "multitask          cpu   2 x 8 GPUs  cpu    16 of 32 GPUs  4\n"
        "video              cpu   2 x 8 GPUs  night  16 of 32 GPUs  4\n"
        "note: something to know\n"
        "ok\n"
    )
    assert asked[0][1:] == ("team", "prod", {"launcher": 0.1, "data": 1.0, "evaluator": 0.5})


def test_a_curation_is_checked_by_its_own_placement_and_pods(inspected: Any) -> None:
    asked = inspected()
    assert run(["cluster", "check", "--recipe", "curate_tiny"]) == 0
    placements, _, _, cpus = asked[0]
    assert list(placements) == ["curate"]
    assert cpus == {"launcher": 0.1, "data": 1.0, "curator": 1.0}


def test_a_check_as_json_has_the_problems_too(inspected: Any, capsys: pytest.CaptureFixture[str]) -> None:
    inspected([ConfigError("no such queue.")], notes=["something to know"])
    assert run(["cluster", "check", "--json"]) == 2
    out, err = capsys.readouterr()
    shown = json.loads(out)
    assert shown["problems"] == ["ConfigError: no such queue."]
    assert shown["notes"] == ["something to know"]
    assert [row["stage"] for row in shown["rows"]] == ["vision_adaptation", "alignment", "multitask", "video"]
    assert err == "ConfigError: no such queue.\n"


@pytest.mark.parametrize(
    ("problems", "code", "last"),
    [
        ([ConfigError("no such queue.")], 2, "ConfigError: no such queue."),
        ([ClusterError("the queue is stopped.")], 4, "ClusterError: the queue is stopped."),
        (
            [ClusterError("the queue is stopped."), ConfigError("no such pool.")],
            2,
            "ConfigError: 2 problems of the cluster, listed above, prevent the run. Fix all of them.",
        ),
    ],
)
def test_problems_come_after_the_table_with_the_familys_code(
    inspected: Any, capsys: pytest.CaptureFixture[str], problems: list[Vl3Error], code: int, last: str
) -> None:
    inspected(problems)
    assert run(["cluster", "check"]) == code
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("video ")
    assert err.splitlines()[-1] == last
    if len(problems) > 1:
        assert err.splitlines()[:-1] == [
            "  1. ClusterError: the queue is stopped.",
            "  2. ConfigError: no such pool.",
        ]


def kubeconfig_at(path: Path, monkeypatch: pytest.MonkeyPatch, server: str | None) -> Path:
    from kubernetes import config

    if server is not None:
        path.write_text(
            f"""
apiVersion: v1
kind: Config
current-context: here
clusters: [{{name: c, cluster: {{server: "{server}"}}}}]
contexts: [{{name: here, context: {{cluster: c, user: u}}}}]
users: [{{name: u, user: {{token: abc}}}}]
"""
        )
    monkeypatch.setattr(config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))  # read from KUBECONFIG at import
    return path


def test_without_a_kubeconfig_the_way_to_one_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = kubeconfig_at(place / "none", monkeypatch, server=None)
    assert run(["cluster", "check"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"ConfigError: no cluster is configured: this is not a pod with a service account, and {path} cannot be used"
    )
    assert "Set KUBECONFIG to the cluster's file" in line


def test_an_unknown_context_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeconfig_at(place / "config", monkeypatch, server="https://127.0.0.1:1")
    assert run(["cluster", "check", "--context", "prod"]) == 2
    assert "prod" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["check"], ["jobs"], ["gc", "--older-than", "7d"]])
def test_a_cluster_that_is_down_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    path = kubeconfig_at(place / "config", monkeypatch, server="https://127.0.0.1:1")
    assert run(["cluster", *command]) == 4
    assert capsys.readouterr().err == (
        "ClusterError: the API server https://127.0.0.1:1 cannot be reached (Connection refused). Start the cluster "
        f"(`make kind-up` for the one of this repository), or correct the address in {path}.\n"
    )


@pytest.fixture
def connected(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig_at(place / "config", monkeypatch, server="https://10.0.0.1:6443")
    monkeypatch.setattr(reach, "server_version", lambda connection: "v1.36.3")


@pytest.mark.usefixtures("connected")
def test_jobs_are_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    job = ListedJob(
        name="vl3-0123456789-video-2",
        run_id="nightly",
        stage="video",
        attempt="2",
        state="queued",
        text="in queue h200: QuotaReserved",
        age_seconds=7300.0,
    )
    asked = []

    def list_jobs(client: Any, run_id: str | None) -> list[ListedJob]:
        asked.append((client.namespace, run_id))
        return [job] if run_id == "nightly" else []

    monkeypatch.setattr(listing, "list_jobs", list_jobs)
    assert run(["cluster", "jobs", "--run", "nightly"]) == 0
    assert capsys.readouterr().out == (
        "job                     run      stage  attempt  state   age\n"
        "vl3-0123456789-video-2  nightly  video  2        queued  2h   in queue h200: QuotaReserved\n"
    )
    assert run(["cluster", "jobs", "--run", "nightly", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [asdict(job)]
    assert run(["cluster", "jobs", "--namespace", "team"]) == 0
    assert capsys.readouterr().out == "no TrainJob of vl3 in namespace team\n"
    assert asked == [("vl3", "nightly"), ("vl3", "nightly"), ("team", None)]


@pytest.mark.usefixtures("connected")
def test_gc_deletes_or_only_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def clear(seconds: float, *, run_id: str | None, is_rehearsal: bool, client: Any) -> list[str]:
        asked.append((seconds, run_id, is_rehearsal, client.namespace))
        return ["vl3-a", "vl3-b"]

    monkeypatch.setattr(collect, "collect", clear)
    assert run(["cluster", "gc", "--older-than", "7d", "--dry-run"]) == 0
    assert capsys.readouterr().out == "vl3-a\nvl3-b\n2 TrainJobs would be deleted in namespace vl3\n"
    assert run(["cluster", "gc", "--older-than", "90m", "--run", "nightly"]) == 0
    assert capsys.readouterr().out.endswith("2 TrainJobs deleted in namespace vl3\n")
    assert asked == [(604800.0, None, True, "vl3"), (5400.0, "nightly", False, "vl3")]


@pytest.mark.parametrize("text", ["7", "d", "-1d", "1w", "1 d", ""])
def test_a_time_is_a_number_and_a_unit(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a time\. Write a number and s, m, h or d: 7d, 12h, 30m"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86400 * 3.5, "3d")]
)
def test_ages_are_shown_in_their_largest_unit(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


def test_the_commands_help_loads_no_client() -> None:
    code = """
import sys
from vl3.cli.main import run
code = run(["cluster", "check", "--help"])
print(code, [name for name in ("kubernetes", "urllib3", "torch", "mlflow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_check_refuses_a_stage_that_cannot_fit(inspected: Any, capsys: pytest.CaptureFixture[str]) -> None:
    inspected()
    small = ["--set", "placements.video.gpu=a100"]
    assert run(["cluster", "check", "--recipe", "vl3_7b", *small]) == 2
    assert "stage video does not fit where placements.video puts it: one a100 needs" in capsys.readouterr().err
    inspected()
    assert run(["cluster", "check", "--recipe", "vl3_7b", *small, "--set", "engine.fit_check=warn"]) == 0
    assert "note: stage video does not fit" in capsys.readouterr().out
