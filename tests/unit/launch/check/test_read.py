"""Reading the facts, against recorded answers: what is asked, paged, refused and repeated."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kind.settings import ROOT
from tests.support.manifests import load
from vl3.config.placement import BUILD
from vl3.errors import ClusterError, ConfigError
from vl3.launch.check import read as reading
from vl3.launch.check.facts import ObjectKind
from vl3.launch.check.needs import Placements
from vl3.launch.check.read import read_facts
from vl3.launch.kube.client import ApiError, ApiUnreachableError
from vl3.launch.kube.resources import Resource
from vl3.recipes.catalog import get_recipe
from vl3.system.retry import Pauses

RECORDED = json.loads(Path(__file__).with_name("cluster_facts.json").read_text(encoding="utf-8"))
BY_PLURAL = {kind.plural: RECORDED["objects"].get(kind.label, {}) for kind in ObjectKind}

SERVED_GROUPS = ("apis/trainer.kubeflow.org", "apis/jobset.x-k8s.io", "apis/ray.io", "apis/kueue.x-k8s.io")
(TEMPLATE,) = load((ROOT / "manifests" / "base" / "ray" / "cpu.yaml").read_text())


class RecordedClient:
    """Answers as the recorded cluster did; `answers` and `denied` change that."""

    server, namespace, source = "https://10.0.0.1:6443", "vl3", "a kubeconfig"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refused: dict[str, int] = {}
        """Status by plural name."""
        self.denied: set[tuple[str, str]] = set()
        self.page_size = 500
        self.rehearsed: list[dict[str, Any]] = []
        self.busy = 0
        """How many requests still get `retry later`."""

    def list(self, resource: Resource, **query: str) -> dict[str, Any]:
        self._note(resource, query.get("labelSelector", ""))
        if resource.api in SERVED_GROUPS:
            version = f"{resource.api.removeprefix('apis/')}/{resource.plural}"
            if version not in RECORDED["apis"]:
                raise refusal(404, resource.plural)
            return {"resources": [{"name": name} for name in RECORDED["apis"][version]]}
        if resource.api.startswith("openapi/"):
            properties = {key: {} for key in RECORDED["trainjob_fields"]}
            return {
                "components": {
                    "schemas": {"org.trainer.v1.TrainJob": {"properties": {"spec": {"properties": properties}}}}
                }
            }
        selector = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
        items = [
            item
            for item in BY_PLURAL[resource.plural].values()
            if selector.items() <= item["metadata"].get("labels", {}).items()
        ]
        start = int(query.get("continue") or 0)
        end = start + self.page_size
        return {"items": items[start:end], "metadata": {"continue": str(end)} if end < len(items) else {}}

    def get(self, resource: Resource, name: str, part: str | None = None) -> dict[str, Any]:
        self._note(resource, name)
        if name not in BY_PLURAL[resource.plural]:
            raise refusal(404, name)
        return BY_PLURAL[resource.plural][name]

    def create(self, resource: Resource, body: dict[str, Any], **query: str) -> dict[str, Any]:
        if resource.plural in ("trainjobs", "rayjobs"):
            assert query == {"dryRun": "All"}
            self.rehearsed.append(body)
            if resource.plural in self.refused:
                raise refusal(self.refused[resource.plural], resource.plural)
            return body
        asked = body["spec"]["resourceAttributes"]
        assert asked["namespace"] == "vl3"
        name = "/".join(part for part in (asked["resource"], asked["subresource"]) if part)
        return {"status": {"allowed": (asked["verb"], name) not in self.denied}}

    def _note(self, resource: Resource, more: str) -> None:
        self.asked.append(f"{resource.plural} {more}".strip())
        if self.busy:
            self.busy -= 1
            raise refusal(429, resource.plural)
        if resource.plural in self.refused:
            raise refusal(self.refused[resource.plural], resource.plural)


def refusal(status: int, what: str) -> ApiError:
    body = {"reason": "No", "message": f"{what}: no", "details": {"name": what}}
    return ApiError(status, json.dumps(body).encode(), None, f"list {what}")


@pytest.fixture
def client() -> RecordedClient:
    return RecordedClient()


@pytest.fixture
def placements() -> Placements:
    config = get_recipe("tiny")
    return dict(config.placements)


def read(client: RecordedClient, placements: Placements) -> Any:
    return read_facts(client, "v1.36.3", placements)  # type: ignore[arg-type]


def test_all_facts_are_read_and_no_secret(client: RecordedClient, placements: Placements) -> None:
    facts = read(client, placements)
    assert facts.unreadable == {}
    assert facts.denied == ()
    assert set(facts.objects) == set(ObjectKind) - {ObjectKind.POD_TEMPLATE}
    assert facts.trainjob_fields == frozenset(RECORDED["trainjob_fields"])
    assert set(facts.apis) == set(RECORDED["apis"])
    assert not any("secret" in asked for asked in client.asked)
    assert len(client.asked) < 20


def test_only_nodes_of_the_placements_pools_are_read(client: RecordedClient, placements: Placements) -> None:
    facts = read(client, placements)
    assert [asked for asked in client.asked if asked.startswith("nodes")] == ["nodes vl3.dev/pool=cpu"]
    assert {node["metadata"]["labels"]["vl3.dev/pool"] for node in facts.objects[ObjectKind.NODE].values()} == {"cpu"}


def test_nodes_of_all_pools_are_read_for_the_step_pods(client: RecordedClient, placements: Placements) -> None:
    facts = read_facts(client, "v1.36.3", placements, of_all_nodes=True)  # type: ignore[arg-type]
    assert [asked for asked in client.asked if asked.startswith("nodes")] == ["nodes"]
    assert len(facts.objects[ObjectKind.NODE]) == 5


def test_long_lists_come_page_by_page(client: RecordedClient, placements: Placements) -> None:
    client.page_size = 1
    facts = read(client, placements)
    assert set(facts.objects[ObjectKind.RUNTIME]) == {"vl3-torch-a100", "vl3-torch-cpu", "vl3-torch-h200"}


def test_rights_that_are_missing_are_collected(client: RecordedClient, placements: Placements) -> None:
    client.denied = {("create", "trainjobs"), ("delete", "trainjobs"), ("get", "pods/log")}
    assert read(client, placements).denied == ("create/delete trainjobs.trainer.kubeflow.org", "get pods/log")


def test_what_is_closed_is_kept_with_its_reason(client: RecordedClient, placements: Placements) -> None:
    client.refused = {"cohorts": 403, "nodes": 403, "namespaces": 403}
    facts = read(client, placements)
    assert facts.unreadable == {
        ObjectKind.NAMESPACE: "namespaces: no",
        ObjectKind.COHORT: "cohorts: no",
        ObjectKind.NODE: "nodes: no",
    }


def test_a_missing_namespace_asks_no_further(client: RecordedClient, placements: Placements) -> None:
    client.namespace = "nowhere"
    client.denied = {("create", "trainjobs")}
    facts = read(client, placements)
    assert facts.objects[ObjectKind.NAMESPACE] == {}
    assert ObjectKind.LOCAL_QUEUE not in facts.objects
    assert facts.denied == ()


def test_a_busy_server_is_asked_again(
    client: RecordedClient, placements: Placements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PAUSES", Pauses(first_seconds=0, longest_seconds=0))
    client.busy = reading._TRIES - 1
    assert read(client, placements).unreadable == {}


def test_one_job_is_rehearsed_and_nothing_made(client: RecordedClient, placements: Placements) -> None:
    assert read(client, placements).refusals == {}
    (job,) = client.rehearsed
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "cpu"
    assert job["spec"]["runtimeRef"]["name"] == "vl3-torch-cpu"


def test_why_a_job_would_be_refused_is_kept(client: RecordedClient, placements: Placements) -> None:
    client.refused = {"trainjobs": 500}
    assert read(client, placements).refusals == {"TrainJob": "trainjobs: no"}


@pytest.fixture
def with_build(placements: Placements) -> Placements:
    return {**placements, BUILD: placements["video"]}


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster has KubeRay and the pool's template."""
    monkeypatch.setitem(RECORDED["apis"], "ray.io/v1", ["rayjobs"])
    monkeypatch.setitem(BY_PLURAL, "podtemplates", {"vl3-ray-cpu": TEMPLATE})


@pytest.mark.usefixtures("ray")
def test_a_build_is_asked_for_and_rehearsed_by_its_own_kind(client: RecordedClient, with_build: Placements) -> None:
    facts = read(client, with_build)
    assert (facts.denied, facts.unreadable, facts.refusals) == ((), {}, {})
    assert facts.apis["ray.io/v1"] == {"rayjobs"}
    assert set(facts.objects[ObjectKind.POD_TEMPLATE]) == {"vl3-ray-cpu"}
    assert "podtemplates vl3-ray-cpu" in client.asked, "by its name: a launcher may not list them"
    assert [job["kind"] for job in client.rehearsed] == ["TrainJob", "RayJob"]
    assert client.rehearsed[1]["spec"]["suspend"] is True


def test_nothing_of_ray_is_asked_for_without_a_build(client: RecordedClient, placements: Placements) -> None:
    client.denied = {("get", "podtemplates"), ("create", "rayjobs")}
    facts = read(client, placements)
    assert facts.denied == ()
    assert not any("podtemplates" in asked or asked == "v1" for asked in client.asked)


@pytest.mark.usefixtures("ray")
def test_rights_of_a_build_are_collected(client: RecordedClient, with_build: Placements) -> None:
    client.denied = {("create", "rayjobs"), ("get", "podtemplates")}
    assert read(client, with_build).denied == ("create rayjobs.ray.io", "get podtemplates")
    assert client.rehearsed == []


@pytest.mark.usefixtures("ray")
def test_each_kind_of_job_may_be_refused_by_itself(client: RecordedClient, with_build: Placements) -> None:
    client.refused = {"rayjobs": 500}
    assert read(client, with_build).refusals == {"RayJob": "rayjobs: no"}


def test_no_rayjob_is_rehearsed_where_none_can_be(client: RecordedClient, with_build: Placements) -> None:
    facts = read(client, with_build)
    assert facts.objects[ObjectKind.POD_TEMPLATE] == {}
    assert [job["kind"] for job in client.rehearsed] == ["TrainJob"]


@pytest.mark.parametrize("lack", ["rights", "queue"])
def test_nothing_is_rehearsed_that_is_known_to_fail(client: RecordedClient, placements: Placements, lack: str) -> None:
    if lack == "rights":
        client.denied = {("create", "trainjobs")}
    else:
        placements = {stage: replace(placement, queue="gone") for stage, placement in placements.items()}
    assert read(client, placements).refusals == {}
    assert client.rehearsed == []


@pytest.mark.parametrize(
    ("status", "family", "message"),
    [
        (401, ConfigError, "rejects our credentials (a kubeconfig)"),
        (500, ClusterError, "the API server https://10.0.0.1:6443 could not list nodes (500 No: nodes: no)"),
    ],
)
def test_other_refusals_end_the_check(
    client: RecordedClient,
    placements: Placements,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    family: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(reading, "_PAUSES", Pauses(first_seconds=0, longest_seconds=0))
    client.refused = {"nodes": status}
    with pytest.raises(family) as caught:
        read(client, placements)
    assert message in str(caught.value)


def test_a_connection_that_breaks_is_said(client: RecordedClient, placements: Placements) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ApiUnreachableError("https://10.0.0.1:6443 does not answer (reset)")

    client.list = broken  # type: ignore[method-assign]
    with pytest.raises(ClusterError, match=r"does not answer \(reset\): it stopped answering during the check"):
        read(client, placements)
