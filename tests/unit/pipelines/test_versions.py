"""Running the pipeline version that is in git, over HTTP against a server of the test's own."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import yaml

from vl3.config.parameters import WorkflowParameters
from vl3.errors import ClusterError, ConfigError
from vl3.pipelines.compile import compile_manifests
from vl3.pipelines.server import Server
from vl3.pipelines.submission import Submission, make_submission
from vl3.pipelines.submit import archived_log, find_run, submit
from vl3.pipelines.tasks import task_states

MANIFESTS = {
    name: next(yaml.safe_load_all(text))  # of several versions that of the first recipe, tiny
    for name, text in compile_manifests().items()
}
PIPELINES = "/apis/v2beta1/pipelines"


def _manifests(workflow: str = "train") -> list[dict[str, Any]]:
    """Pipeline and PipelineVersion that git has for the tiny recipe; a copy, to be changed."""
    return [copy.deepcopy(MANIFESTS[f"{workflow}-{what}.yaml"]) for what in ("pipeline", "versions")]


def _submission(workflow: str = "train", **more: Any) -> Submission:
    given = {"recipe": "tiny", "data_uri": "s3://bucket/data", "artifacts_uri": "s3://bucket/artifacts"}
    return make_submission(workflow, WorkflowParameters(**given | {"run_id": "night-7"} | more))


def _older(name: str) -> list[dict[str, Any]]:
    """A version of another content, as git had it before."""
    pipeline, version = _manifests()
    version["metadata"]["name"] = name
    version["spec"]["pipelineSpec"]["sdkVersion"] = "kfp-2.16.0"
    return [pipeline, version]


@pytest.fixture
def server(pipelines_server) -> Server:
    return Server(pipelines_server.endpoint, "", {})


@pytest.mark.parametrize(("workflow", "model"), [("train", ""), ("evaluate", "models:/vl3@champion")])
def test_the_version_of_git_is_run_with_the_runs_parameters(
    pipelines_server, server, workflow: str, model: str
) -> None:
    manifests = _manifests(workflow)
    version = pipelines_server.add_version(manifests)
    submission = _submission(workflow, overrides=("seed=3",), model_uri=model)
    run, digest = submit(server, submission, account="vl3-launcher", is_from_git=True)
    assert digest == manifests[1]["metadata"]["annotations"]["vl3.dev/ir-sha256"]
    (kept,) = pipelines_server.runs
    assert kept["run_id"] == run.run_id
    ids = {key: version[key] for key in ("pipeline_id", "pipeline_version_id")}
    assert kept["pipeline_version_reference"] == ids
    assert "pipeline_spec" not in kept, "nothing is uploaded"
    assert kept["runtime_config"]["parameters"] == {"workflow": submission.parameters.to_dict()}
    assert kept["service_account"] == "vl3-launcher"


def test_by_default_the_workflow_is_uploaded_though_the_server_has_it(pipelines_server, server) -> None:
    pipelines_server.add_version(_manifests())
    submit(server, _submission())
    assert "pipeline_version_reference" not in pipelines_server.runs[0]
    assert not [path for path in pipelines_server.paths("GET") if path.startswith(PIPELINES)]


def test_a_version_is_found_among_many_and_on_a_later_page(pipelines_server, server) -> None:
    version = pipelines_server.add_version(_manifests())
    for number in range(4):
        pipelines_server.add_version(_older(f"vl3-train-{number:010d}"))
    pipelines_server.add_version(_manifests("evaluate"))
    pipelines_server.page_size = 2
    submit(server, _submission(), is_from_git=True)
    (kept,) = pipelines_server.runs
    assert kept["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert pipelines_server.paths("GET").count(f"{PIPELINES}/{version['pipeline_id']}/versions") == 3


def test_the_newest_version_takes_one_page(pipelines_server, server) -> None:
    for number in range(20):
        pipelines_server.add_version(_older(f"vl3-train-{number:010d}"))
    version = pipelines_server.add_version(_manifests())
    submit(server, _submission(), is_from_git=True)
    assert pipelines_server.paths("GET").count(f"{PIPELINES}/{version['pipeline_id']}/versions") == 1


def test_a_server_for_many_is_asked_in_the_namespace(pipelines_server) -> None:
    pipelines_server.add_version(_manifests())
    submit(Server(pipelines_server.endpoint, "team-a", {}), _submission(), is_from_git=True)
    (query,) = [query for _, path, query in pipelines_server.requests if path == PIPELINES]
    assert query["namespace"] == ["team-a"]


@pytest.mark.parametrize(("namespace", "option"), [("", "-n kubeflow"), ("team-a", "-n team-a")])
def test_a_version_that_was_not_applied_is_told_with_the_command(pipelines_server, namespace: str, option: str) -> None:
    name = _manifests()[1]["metadata"]["name"]
    server = Server(pipelines_server.endpoint, namespace, {})
    with pytest.raises(
        ConfigError, match=rf"has no pipeline version {name}, and no other.*kubectl apply -k .* {option}"
    ):
        submit(server, _submission(), is_from_git=True)
    assert pipelines_server.runs == pipelines_server.experiments == []


def test_a_checkout_out_of_step_with_the_cluster_is_told_with_both_names(pipelines_server, server) -> None:
    pipelines_server.add_version(_older("vl3-train-0000000001"))
    pipelines_server.add_version(_older("vl3-train-0000000002"))
    name = _manifests()[1]["metadata"]["name"]
    with pytest.raises(
        ConfigError, match=rf"has no pipeline version {name}; its newest is vl3-train-0000000002.*out of step.*wave 4"
    ):
        submit(server, _submission(), is_from_git=True)
    assert pipelines_server.runs == []


def test_the_right_name_with_another_content_is_refused_with_both_digests(pipelines_server, server) -> None:
    name, annotations = (_manifests()[1]["metadata"][key] for key in ("name", "annotations"))
    pipelines_server.add_version(_older(name))
    with pytest.raises(
        ConfigError, match=rf"version {name} .*not what git has.* is [0-9a-f]{{64}}, git's is"
    ) as raised:
        submit(server, _submission(), is_from_git=True)
    assert f"git's is {annotations['vl3.dev/ir-sha256']}" in str(raised.value)
    assert f"kubectl delete pipelineversion {name} -n kubeflow" in str(raised.value)
    assert pipelines_server.runs == []


@pytest.mark.parametrize("where", ["platform", "image", "unknown field"])
def test_no_difference_of_the_content_is_overlooked(pipelines_server, server, where: str) -> None:
    pipeline, version = _manifests()
    spec = version["spec"]
    if where == "platform":
        executors = spec["platformSpec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        executors[next(iter(executors))]["evil"] = {"securityContext": {"runAsUser": 0}}
    elif where == "image":
        executors = spec["pipelineSpec"]["deploymentSpec"]["executors"]
        executors[next(iter(executors))]["container"]["image"] += "-other"
    else:
        spec["pipelineSpec"]["ofANewerKfp"] = 1
    pipelines_server.add_version([pipeline, version])
    with pytest.raises(ConfigError, match="is not what git has under that name"):
        submit(server, _submission(), is_from_git=True)


@pytest.mark.parametrize("spec", [None, {}, "text", {"pipeline_spec": 1, "platform_spec": {}}, {"root": {}}])
def test_a_version_without_a_workflow_is_refused(pipelines_server, server, spec: Any) -> None:
    pipelines_server.add_version(_manifests(), pipeline_spec=spec)
    with pytest.raises(
        ConfigError, match=r"content's digest is unknown \(no workflow that this release of kfp can read"
    ):
        submit(server, _submission(), is_from_git=True)


def test_another_part_of_the_chain_is_another_workflow(pipelines_server, server) -> None:
    version = pipelines_server.add_version(_manifests())
    with pytest.raises(ConfigError, match=rf"git holds no version for this run.*tiny is {version['name']}, .*--stages"):
        submit(server, _submission(stages="vision_adaptation..alignment"), is_from_git=True)
    assert pipelines_server.runs == []


def test_a_pipeline_that_only_looks_the_same_is_not_taken(pipelines_server, server) -> None:
    pipelines_server.add_version(_manifests())
    pipelines_server.pipelines[0] |= {"name": "other", "display_name": "vl3-train"}
    with pytest.raises(ConfigError, match="and no other of this workflow"):
        submit(server, _submission(), is_from_git=True)


@pytest.mark.parametrize(
    ("status", "body", "family", "message"),
    [
        (403, '{"error": "no role"}', ConfigError, "no permission to list the versions of the pipeline vl3-train"),
        (404, "<html>nothing</html>", ConfigError, r"refuses to list the versions .*\(404"),
        (500, '{"error": "cache not synced"}', ClusterError, "failed to list the versions .*cache not synced"),
        (200, '{"pipelines": 3}', ClusterError, "does not answer like Kubeflow Pipelines"),
        (200, '{"pipelines": [{"name": 3}]}', ConfigError, "no other of this workflow"),
    ],
)
def test_a_server_that_refuses_is_told(
    pipelines_server, server, status: int, body: str, family: type, message: str
) -> None:
    pipelines_server.refusals[PIPELINES] = (status, body)
    with pytest.raises(family, match=message) as raised:
        submit(server, _submission(), is_from_git=True)
    assert "\n" not in str(raised.value)


def test_an_active_run_is_not_compared(pipelines_server, server) -> None:
    pipelines_server.add_run("night-7", "RUNNING")
    assert submit(server, _submission(), is_from_git=True)[1] == ""
    assert len(pipelines_server.runs) == 1


def test_the_tasks_of_a_versions_run_are_known_though_the_run_has_no_workflow(pipelines_server, server) -> None:
    version = pipelines_server.add_version(_manifests())
    submit(server, _submission(), is_from_git=True)
    for _ in range(3):
        run = find_run(server, "night-7")
    names = [state.name for state in task_states(run)]
    assert names[0] == "check-prerequisites"
    assert "train-video" in names
    path = f"{PIPELINES}/{version['pipeline_id']}/versions/{version['pipeline_version_id']}"
    assert pipelines_server.paths("GET").count(path) == 1, "a version never changes"


def test_a_run_outlives_its_version(pipelines_server, server) -> None:
    pipelines_server.add_version(_manifests())
    submit(server, _submission(), is_from_git=True)
    pipelines_server.versions.clear()
    run = find_run(server, "night-7")
    assert (run.state, task_states(run)) == ("PENDING", [])
    with pytest.raises(ConfigError, match=r"has no task 'evaluate'\. Its tasks: not known"):
        archived_log(server, run, "evaluate")


def test_a_version_that_may_not_be_read_is_told(pipelines_server, server) -> None:
    version = pipelines_server.add_version(_manifests())
    submit(server, _submission(), is_from_git=True)
    pipelines_server.refusals[f"{PIPELINES}/{version['pipeline_id']}/versions/"] = (403, "")
    with pytest.raises(ConfigError, match="no permission to read the run"):
        find_run(server, "night-7")


def test_a_run_says_nothing_of_what_does_not_change_the_workflow(pipelines_server, server) -> None:
    """Overrides and addresses are parameters of the run, so git's version serves them all."""
    pipelines_server.add_version(_manifests())
    one, two = _submission(overrides=("seed=3",)), _submission(overrides=("data.max_frames=8",), run_id="night-8")
    submit(server, one, is_from_git=True)
    submit(server, replace(two, parameters=replace(two.parameters, tracking_uri="http://other:1")), is_from_git=True)
    assert len({run["pipeline_version_reference"]["pipeline_version_id"] for run in pipelines_server.runs}) == 1
