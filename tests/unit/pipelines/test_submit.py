"""Submitting, finding, following and cancelling runs, over HTTP against a server of the test's own."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.support.certificates import make_ca
from tests.support.workflows import compile_train
from vl3.config.parameters import WorkflowParameters
from vl3.errors import ClusterError, ConfigError
from vl3.pipelines import submit as submit_module
from vl3.pipelines.compile import ir_digest
from vl3.pipelines.server import Server
from vl3.pipelines.submission import make_submission
from vl3.pipelines.submit import archived_log, cancel, find_run, follow, is_ended, our_runs, submit
from vl3.pipelines.tasks import run_state

PARAMETERS = WorkflowParameters(
    recipe="tiny", overrides=("seed=3",), data_uri="s3://b/data", artifacts_uri="s3://b/artifacts", run_id="night-7"
)
SUBMISSION = make_submission("train", PARAMETERS)
RUNS = "/apis/v2beta1/runs"
RECORDED = Path(__file__).parents[2] / "kfp" / "recorded"
_NODE = 2555505217
"""Hash of `w.root.exit-handler-1.train-stage.executor`."""


def _server(known: Any, namespace: str = "", **environ: str) -> Server:
    return Server(known.endpoint, namespace, environ)


def test_a_run_is_submitted_as_the_compiled_workflow_with_its_parameters(pipelines_server, tmp_path, capsys) -> None:
    run, digest = submit(_server(pipelines_server), SUBMISSION, account="vl3-launcher")
    (kept,) = pipelines_server.runs
    assert kept["run_id"] == run.run_id
    assert kept["display_name"] == "night-7"
    assert kept["runtime_config"]["parameters"] == {"workflow": SUBMISSION.parameters.to_dict()}
    assert kept["service_account"] == "vl3-launcher"
    assert [item["display_name"] for item in pipelines_server.experiments] == ["vl3-tiny"]
    assert kept["experiment_id"] == pipelines_server.experiments[0]["experiment_id"]
    compile_train(tmp_path / "train.yaml")
    spec, platform = yaml.safe_load_all((tmp_path / "train.yaml").read_text(encoding="utf-8"))
    assert kept["pipeline_spec"] == {"pipeline_spec": spec, "platform_spec": platform}
    assert digest == ir_digest(tmp_path / "train.yaml")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELING", "PAUSED"])
def test_an_active_run_is_not_submitted_twice(pipelines_server, state: str) -> None:
    pipelines_server.add_run("night-7", "FAILED")
    active = pipelines_server.add_run("night-7", state)
    run, digest = submit(_server(pipelines_server), SUBMISSION)
    assert (run.run_id, digest) == (active["run_id"], "")
    assert len(pipelines_server.runs) == 2


@pytest.mark.parametrize("state", ["FAILED", "SUCCEEDED"])
def test_a_run_that_has_ended_is_submitted_anew_with_the_same_id(pipelines_server, state: str) -> None:
    pipelines_server.experiments.append({"experiment_id": "e7", "display_name": "vl3-tiny"})
    pipelines_server.add_run("night-7", state)
    run, _ = submit(_server(pipelines_server), SUBMISSION)
    assert run.runtime_config.parameters["workflow"]["run_id"] == "night-7"
    assert len(pipelines_server.runs) == 2
    assert pipelines_server.runs[1]["experiment_id"] == "e7"
    assert len(pipelines_server.experiments) == 1


def test_a_run_of_the_same_name_that_is_not_ours_does_not_count(pipelines_server) -> None:
    pipelines_server.add_run("night-7", "RUNNING", parameters={"workflow": {"run_id": "another"}})
    submit(_server(pipelines_server), SUBMISSION)
    assert len(pipelines_server.runs) == 2


def test_the_latest_run_of_an_id_is_found_and_also_by_the_servers_own_id(pipelines_server) -> None:
    first, second = pipelines_server.add_run("night-7", "FAILED"), pipelines_server.add_run("night-7")
    server = _server(pipelines_server)
    assert find_run(server, "night-7").run_id == second["run_id"]
    assert find_run(server, first["run_id"]).state == "FAILED"


def test_an_unknown_run_is_explained(pipelines_server) -> None:
    server = _server(pipelines_server)
    with pytest.raises(ConfigError, match=r"run 'day-1' is not known to http://.*`vl3 run list`"):
        find_run(server, "day-1")
    with pytest.raises(ConfigError, match="run 00000000-0000-0000-0000-000000000009 is not known to http://"):
        find_run(server, "00000000-0000-0000-0000-000000000009")


def test_runs_are_listed_newest_first_over_pages_without_those_of_others(pipelines_server) -> None:
    for number in range(5):
        pipelines_server.add_run(f"run-{number}", "SUCCEEDED")
    pipelines_server.add_run("theirs", parameters={"workflow": {"run_id": ""}})
    pipelines_server.page_size = 2
    found = our_runs(_server(pipelines_server), limit=5)
    assert [run.display_name for run in found] == ["run-4", "run-3", "run-2", "run-1"]


def test_following_ends_with_the_run(pipelines_server, monkeypatch) -> None:
    known = pipelines_server.add_run("night-7", "RUNNING")
    server, slept = _server(pipelines_server), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        known["state"] = "SUCCEEDED" if len(slept) == 2 else "RUNNING"

    monkeypatch.setattr(submit_module, "time", SimpleNamespace(sleep=sleep))
    states = [run.state for run in follow(server, find_run(server, "night-7"))]
    assert states == ["RUNNING", "RUNNING", "SUCCEEDED"]
    assert slept == [5.0, 5.0]


def test_cancelling_waits_for_the_runs_end(pipelines_server, monkeypatch) -> None:
    monkeypatch.setattr(submit_module, "_POLL_SECONDS", 0)
    pipelines_server.add_run("night-7")
    server = _server(pipelines_server)
    run, was_active = cancel(server, find_run(server, "night-7"), timeout_seconds=60)
    assert (run.state, run_state(run), was_active) == ("FAILED", "CANCELED", True)
    assert pipelines_server.paths("POST") == [f"{RUNS}/{run.run_id}:terminate"]


def test_a_run_that_has_ended_is_not_cancelled(pipelines_server) -> None:
    pipelines_server.add_run("night-7", "SUCCEEDED")
    server = _server(pipelines_server)
    assert cancel(server, find_run(server, "night-7"), timeout_seconds=60)[1] is False
    assert pipelines_server.paths("POST") == []


def test_a_run_that_does_not_end_is_told(pipelines_server, monkeypatch) -> None:
    monkeypatch.setattr(submit_module, "_POLL_SECONDS", 0)
    pipelines_server.add_run("night-7")
    pipelines_server.polls_until_end = 1000
    server = _server(pipelines_server)
    with pytest.raises(ClusterError, match="run night-7 is still CANCELING 0 s after it was cancelled"):
        cancel(server, find_run(server, "night-7"), timeout_seconds=0)


def _with_node(pipelines_server, tmp_path) -> str:
    """A run of which the server knows the pod of `train-vision-adaptation`; returns the pod's name."""
    compile_train(tmp_path / "train.yaml")
    spec, platform = yaml.safe_load_all((tmp_path / "train.yaml").read_text(encoding="utf-8"))
    details = [
        {"display_name": "train-stage", "state": "RUNNING"},
        {"display_name": "executor", "state": "RUNNING", "child_tasks": [{"pod_name": f"w-{_NODE}"}]},
    ]
    pipelines_server.add_run(
        "night-7",
        pipeline_spec={"pipeline_spec": spec, "platform_spec": platform},
        run_details={"task_details": details},
    )
    return f"w-metadata-1-5-retry-system-container-impl-{_NODE}"


def test_the_servers_own_log_of_a_task(pipelines_server, tmp_path) -> None:
    pod = _with_node(pipelines_server, tmp_path)
    pipelines_server.logs[pod] = 'step 1\n{"error_message": "of the step"}\nstep 2 caf\u00e9'
    server = _server(pipelines_server, VL3_KFP_TOKEN="abc")
    run = find_run(server, "night-7")
    lines = list(archived_log(server, run, "train-vision-adaptation"))
    assert lines == ["step 1", '{"error_message": "of the step"}', "step 2 caf\u00e9"]
    method, path, query = pipelines_server.requests[-1]
    assert (method, path) == ("GET", f"/apis/v1alpha1/runs/{run.run_id}/nodes/{pod}/log")
    assert query == {}
    assert pipelines_server.headers[-1]["authorization"] == "Bearer abc"


def test_the_recorded_answer_for_a_pod_that_is_gone_is_an_error(pipelines_server, tmp_path) -> None:
    pod = _with_node(pipelines_server, tmp_path)
    text = (RECORDED / "log-of-a-pod-that-is-gone.txt").read_text()
    pipelines_server.logs[pod] = text.partition("\n\n")[2]
    server = _server(pipelines_server)
    with pytest.raises(
        ClusterError, match=rf"has no log of pod {pod}: .*\(BadRequestError: Failed to read logs.*archive"
    ):
        list(archived_log(server, find_run(server, "night-7"), "train-vision-adaptation"))


def test_the_recorded_log_of_a_pod_is_taken_whole(pipelines_server, tmp_path) -> None:
    pod = _with_node(pipelines_server, tmp_path)
    text = (RECORDED / "log-of-a-pod.txt").read_text()
    pipelines_server.logs[pod] = text
    server = _server(pipelines_server)
    lines = list(archived_log(server, find_run(server, "night-7"), "train-vision-adaptation"))
    assert "\n".join(lines) == text.rstrip("\n")


@pytest.mark.parametrize(
    ("status", "body", "family", "said"),
    [
        (404, '{"code": 5, "message": "Not Found"}', ConfigError, r"refuses to read the log.*2\.17 or newer"),
        (403, "{}", ConfigError, "no permission to read the log"),
        (302, "", ClusterError, "does not answer like Kubeflow Pipelines .* it redirects to another address"),
        (500, "{}", ClusterError, "failed to read the log"),
    ],
)
def test_other_answers_for_a_log_have_one_sentence(
    pipelines_server, tmp_path, status: int, body: str, family: type[Exception], said: str
) -> None:
    _with_node(pipelines_server, tmp_path)
    pipelines_server.refusals["/apis/v1alpha1"] = (status, body)
    server = _server(pipelines_server)
    with pytest.raises(family, match=said):
        list(archived_log(server, find_run(server, "night-7"), "train-vision-adaptation"))


def test_a_task_without_a_log_is_told(pipelines_server, tmp_path) -> None:
    _with_node(pipelines_server, tmp_path)
    server = _server(pipelines_server)
    run = find_run(server, "night-7")
    with pytest.raises(ConfigError, match=r"task report of run night-7 has no log: it has not started \(WAITING\)"):
        archived_log(server, run, "report")
    with pytest.raises(
        ConfigError, match=r"has no task 'train'. Its tasks: check-prerequisites, import-start, build-data"
    ):
        archived_log(server, run, "train")
    assert not is_ended(run, "report")


def test_token_cookies_and_namespace_reach_the_server(pipelines_server) -> None:
    server = _server(pipelines_server, "team-a", VL3_KFP_TOKEN="abc", VL3_KFP_COOKIES="session=1")
    server.runs()
    _, _, query = pipelines_server.requests[-1]
    assert query["namespace"] == ["team-a"]
    headers = {name.lower(): value for name, value in pipelines_server.headers[-1].items()}
    assert headers["authorization"] == "Bearer abc"
    assert headers["cookie"] == "session=1"


def test_on_a_server_for_one_user_no_namespace_is_sent(pipelines_server) -> None:
    _server(pipelines_server).runs("night-7")
    _, _, query = pipelines_server.requests[-1]
    assert "namespace" not in query


@pytest.mark.parametrize(
    ("status", "body", "family", "message"),
    [
        (
            401,
            '{"error": "token expired"}',
            ConfigError,
            r"rejects our credentials \(401, .*token expired\).*VL3_KFP_T",
        ),
        (
            403,
            '{"message": "no role"}',
            ConfigError,
            r"namespace 'team-a' of http://.*: no permission to .*\(403: no role\)",
        ),
        (
            400,
            '{"error": "invalid spec"}',
            ConfigError,
            r"refuses to .*\(400: invalid spec\)\. .* leave out --namespace",
        ),
        (404, "<html>nothing</html>", ConfigError, r"refuses to .*\(404: <html>nothing</html>\)"),
        (500, '{"error": "database is away"}', ClusterError, r"failed to .*\(500: database is away\)\. Try again"),
        (503, "", ClusterError, r"failed to .*\(503: Service Unavailable\)"),
        (429, "", ClusterError, "Try again"),
    ],
)
def test_a_refusal_is_one_message_of_the_right_family(
    pipelines_server, status: int, body: str, family: type, message: str
) -> None:
    server = _server(pipelines_server, "team-a")
    pipelines_server.refusals[RUNS] = (status, body)
    with pytest.raises(family, match=message) as raised:
        submit(server, SUBMISSION)
    assert "\n" not in str(raised.value)


def test_a_workflow_that_the_server_refuses_is_told_in_its_words(pipelines_server, monkeypatch) -> None:
    server = _server(pipelines_server)
    refused = {"error": "Failed to create a new run: unknown template format"}
    monkeypatch.setattr(pipelines_server, "post", lambda path, body: (400, refused))
    with pytest.raises(ConfigError, match=r"submit the run 'night-7' \(400: Failed to create a new run: unknown templ"):
        submit(server, SUBMISSION)


@pytest.mark.parametrize(
    ("namespace", "environ", "path", "message"),
    [
        (
            "",
            {"VL3_KFP_TOKEN": "abc"},
            RUNS,
            r"\(400: .*empty namespace in multi-user mode\)\. .*: set --namespace",
        ),
        ("team-a", {}, RUNS, r"rejects our credentials \(401, .*User identity is empty.*set VL3_KFP_TOKEN or"),
        ("team-a", {"VL3_KFP_TOKEN": "abc"}, f"{RUNS}/1", r"run 1 is not known to namespace 'team-a' of http"),
    ],
)
def test_a_server_with_several_teams_says_what_is_missing(
    pipelines_server, namespace: str, environ: dict[str, str], path: str, message: str
) -> None:
    pipelines_server.is_multi_user = True
    server = _server(pipelines_server, namespace, **environ)
    with pytest.raises(ConfigError, match=message) as raised:
        server.runs() if path == RUNS else server.run("1")
    assert "\n" not in str(raised.value)


def test_a_hidden_namespace_is_told_with_whom_to_ask(pipelines_server) -> None:
    pipelines_server.is_multi_user = True
    server = _server(pipelines_server, "team-b", VL3_KFP_TOKEN="abc")
    pipelines_server.refusals[RUNS] = (403, '{"code": 7, "message": "User is not authorized to list runs"}')
    with pytest.raises(ConfigError, match=r"namespace 'team-b' of .*\(403: User is not.*Check --namespace, or ask"):
        server.runs()


def test_a_namespace_on_a_server_of_one_team_is_to_be_left_out(pipelines_server) -> None:
    server = _server(pipelines_server, "team-a")
    pipelines_server.refusals[RUNS] = (400, '{"message": "In single-user mode, runs have no namespace"}')
    with pytest.raises(ConfigError, match=r"serves one team and knows no namespaces: leave out --namespace"):
        server.runs()


@pytest.mark.parametrize("version", ["2.16.1", "v1.18.0"])
def test_an_older_server_is_refused_before_a_run_is_submitted(pipelines_server, version: str) -> None:
    pipelines_server.version = version
    pipelines_server.add_run("night-6")
    server = _server(pipelines_server)
    assert server.runs(), "what it has can be looked at and cancelled"
    with pytest.raises(ConfigError, match=rf"is Kubeflow Pipelines {version}; .* 2\.17 and newer\. Have the"):
        submit(server, SUBMISSION)
    assert pipelines_server.paths("POST") == []


@pytest.mark.parametrize("version", ["v2.17.0-rc.1", "3.0.0", "unknown"])
def test_a_server_that_is_new_or_does_not_say_its_release_is_taken(pipelines_server, version: str) -> None:
    pipelines_server.version = version
    assert submit(_server(pipelines_server), SUBMISSION)[1]


def test_the_release_is_also_read_from_the_user_interface_in_front(pipelines_server) -> None:
    greeting = {"apiServerTagName": "2.15.2", "frontendTagName": "2.15.2", "multi_user": False}
    pipelines_server.refusals["/apis/v2beta1/healthz"] = (200, json.dumps(greeting))
    with pytest.raises(ConfigError, match=r"is Kubeflow Pipelines 2\.15\.2"):
        submit(_server(pipelines_server), SUBMISSION)


def test_a_server_without_our_api_is_too_old(pipelines_server) -> None:
    pipelines_server.refusals["/apis/v2beta1"] = (404, '{"code": 5, "message": "Not Found", "details": []}')
    with pytest.raises(ConfigError, match=r"refuses to connect \(404: Not Found\)\. .*must be 2\.17 or newer"):
        _server(pipelines_server)


@pytest.mark.parametrize("body", ["<html>Log in</html>", "[1]", '"text"', "null", "{half"])
@pytest.mark.parametrize("path", ["/", RUNS, f"{RUNS}/1"])
def test_an_answer_that_is_none_of_ours_is_told_wherever_it_comes(pipelines_server, path: str, body: str) -> None:
    """As from a login page whose session ends between two requests."""
    pipelines_server.refusals[path] = (200, body)
    with pytest.raises(ClusterError, match=r"does not answer like Kubeflow Pipelines .*login page"):
        _ask(_server(pipelines_server))


@pytest.mark.parametrize(("path", "action"), [("/", "connect"), (RUNS, "list runs"), (f"{RUNS}/1", "read the run 1")])
def test_a_server_that_closes_the_connection_is_told(pipelines_server, path: str, action: str) -> None:
    pipelines_server.closes = path
    with pytest.raises(ClusterError, match=rf"cannot be reached \(tried to {action}: .*Check the address") as raised:
        _ask(_server(pipelines_server))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("status", "reason"), [(200, "Expecting value"), (302, "it redirects to another address")])
def test_a_login_page_is_recognised(pipelines_server, status: int, reason: str) -> None:
    pipelines_server.refusals["/"] = (status, "<html>Log in</html>")
    with pytest.raises(ClusterError, match=rf"does not answer like Kubeflow Pipelines .*{reason}.*login page"):
        _server(pipelines_server)


@pytest.mark.parametrize(("status", "family"), [(401, ConfigError), (403, ConfigError), (502, ClusterError)])
def test_who_is_not_let_in_is_told_before_anything_else(pipelines_server, status: int, family: type) -> None:
    pipelines_server.refusals["/"] = (status, "")
    with pytest.raises(family, match=rf"{status}.*connect|connect.*{status}"):
        _server(pipelines_server)
    assert pipelines_server.paths("POST") == []


def test_an_endpoint_that_is_not_there_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ClusterError, match=rf"http://127.0.0.1:{port} cannot be reached .*refused"):
        Server(f"http://127.0.0.1:{port}", "", {})


@pytest.mark.parametrize(
    ("path", "action"), [("/apis/v2beta1/healthz", "connect"), (RUNS, "list runs"), (f"{RUNS}/1", "read the run 1")]
)
def test_a_server_that_hangs_is_given_up(pipelines_server, monkeypatch, path: str, action: str) -> None:
    """The limit is one of these requests: a listener that this process opens afterwards waits as long as it likes."""
    monkeypatch.setattr("vl3.pipelines.server._TIMEOUT_SECONDS", 0.2)
    pipelines_server.silent = path
    with pytest.raises(ClusterError, match=rf"cannot be reached \(tried to {action}: .*timed out"):
        _ask(_server(pipelines_server))
    assert socket.getdefaulttimeout() is None


def _ask(server: Server) -> None:
    server.runs()
    server.run("1")


@pytest.mark.parametrize("endpoint", ["", "pipelines.example.org", "ftp://x", "http://"])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"endpoint .*--endpoint https://.*VL3_KFP_ENDPOINT"):
        Server(endpoint, "", {})


def test_a_private_authority_is_trusted_by_its_certificate_alone(tmp_path, make_pipelines_server) -> None:
    certificate, context = make_ca(tmp_path)
    known = make_pipelines_server(context)
    known.add_run("night-7")
    with pytest.raises(
        ClusterError, match=r"cannot be reached .*CERTIFICATE_VERIFY_FAILED.*Set SSL_CERT_FILE to the file"
    ):
        Server(known.endpoint, "", {})
    server = Server(known.endpoint, "", {"SSL_CERT_FILE": str(certificate)})
    assert [run.display_name for run in server.runs()] == ["night-7"]


def test_a_service_accounts_token_is_read_anew_for_each_request(pipelines_server, tmp_path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    server = _server(pipelines_server, KF_PIPELINES_SA_TOKEN_PATH=str(token))
    token.write_text("second")
    server.runs()
    sent = [{name.lower(): value for name, value in each.items()}["authorization"] for each in pipelines_server.headers]
    assert sent == ["Bearer first", "Bearer second"]
