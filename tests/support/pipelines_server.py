"""A small HTTP server that speaks the few routes of Kubeflow Pipelines that `vl3 run` uses.

It answers as a real server was recorded to (tests/kfp/recorded); whether a real server takes what we send is asked in
tests/kfp.
"""

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest

RECORDED = Path(__file__).parents[1] / "kfp" / "recorded"
_NO_ROUTE = {"code": 5, "message": "Not Found", "details": []}


def recorded(name: str) -> Any:
    """A recorded JSON document."""
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def recorded_refusal(name: str) -> tuple[int, str]:
    """Status and body of a recorded refusal, of which the last line is `HTTP <status>`."""
    body, _, status = (RECORDED / f"{name}.txt").read_text(encoding="utf-8").strip().rpartition("\n")
    return int(status.removeprefix("HTTP ")), body


def recorded_log(name: str) -> str:
    """A pod's log as the server sent it, without the headers that a recording may begin with."""
    text = (RECORDED / f"{name}.txt").read_text(encoding="utf-8")
    return text.partition("\n\n")[2] if text.startswith("HTTP/") else text


def recorded_run(moment: str, pipeline_spec: dict[str, Any]) -> dict[str, Any]:
    """A run at a recorded moment, with what the recording lacks: the IR, and the parameters as one value."""
    run = recorded(f"run-{moment}")
    parameters = {"workflow": run["runtime_config"]["parameters"]}
    return run | {"pipeline_spec": pipeline_spec, "runtime_config": {"parameters": parameters}}


@dataclass
class PipelinesServer:
    """What the server knows and was asked."""

    endpoint: str = ""
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, list[str]]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Path prefix -> (status, body) to answer with."""
    silent: str = ""
    """Path that takes requests and does not answer."""
    closes: str = ""
    """Path prefix at which connections are closed without an answer."""
    version: str = "unknown"
    """What the greeting says: the release, or `unknown` for a build without a tag."""
    is_multi_user: bool = False
    """Whether requests need a namespace and credentials."""
    ends: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Run id -> how a run is described once it was terminated."""
    polls_until_end: int = 2
    """Reads of a terminated run until it has ended; it ends as FAILED."""
    page_size: int = 100
    closing: threading.Event = field(default_factory=threading.Event)

    def add_run(self, name: str, state: str = "RUNNING", **more: Any) -> dict[str, Any]:
        """A run as if it had been submitted before."""
        number = len(self.runs) + 1
        parameters = {"workflow": {"run_id": name, "recipe": "tiny"}} | more.pop("parameters", {})
        run = {
            "run_id": str(UUID(int=number)),
            "display_name": name,
            "state": state,
            "state_history": [_entry(word, number) for word in dict.fromkeys(["PENDING", state])],
            "created_at": f"2026-01-01T00:{number:02d}:00Z",
            "runtime_config": {"parameters": parameters},
            **more,
        }
        self.runs.append(run)
        return run

    def add_recorded_run(self, moment: str, pipeline_spec: dict[str, Any]) -> dict[str, Any]:
        """A run as it was at a recorded moment; the one at work becomes the cancelled one when it is terminated."""
        run = recorded_run(moment, pipeline_spec)
        self.runs.append(run)
        if moment == "step-cannot-be-pulled":
            self.ends[run["run_id"]] = recorded_run("cancelled", pipeline_spec)
        return run

    def add_version(self, manifests: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """A Pipeline and a PipelineVersion as if they had been applied; their ids are the objects' UIDs."""
        pipeline, version = (manifest["metadata"]["name"] for manifest in manifests)
        known = [one for one in self.pipelines if one["name"] == pipeline]
        if not known:
            known = [{"pipeline_id": str(UUID(int=900 + len(self.pipelines))), "name": pipeline, "namespace": "vl3"}]
            self.pipelines += known
        number = len(self.versions) + 1
        spec = manifests[1]["spec"]
        added = {
            "pipeline_id": known[0]["pipeline_id"],
            "pipeline_version_id": str(UUID(int=1000 + number)),
            "name": version,
            "display_name": version,
            "created_at": f"2026-01-01T00:{number:02d}:00Z",
            "pipeline_spec": _as_sent({"pipeline_spec": spec["pipelineSpec"], "platform_spec": spec["platformSpec"]}),
            **more,
        }
        self.versions.append(added)
        return added

    def paths(self, method: str) -> list[str]:
        """Paths asked with a method."""
        return [path for asked, path, _ in self.requests if asked == method]

    def get(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if path.endswith("/log"):
            return self._log(path)
        if not path.startswith("/apis/v2beta1/"):
            return 404, _NO_ROUTE
        if path.endswith("/healthz"):
            return 200, recorded("healthz") | {"multi_user": self.is_multi_user, "tag_name": self.version}
        if path.endswith("/experiments"):
            name = _wanted(query)
            found = [item for item in self.experiments if item["display_name"] == name]
            return 200, {"experiments": found, "total_size": len(found)} if found else {}
        if path.endswith("/runs"):
            return 200, self._page(query)
        if "/pipelines" in path:
            return self._pipelines(path, query)
        return self._read(path.rpartition("/")[2])

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.endswith("/experiments"):
            self.experiments.append({"experiment_id": f"e{len(self.experiments)}", **body})
            return 200, self.experiments[-1]
        if path.endswith(":terminate"):
            status, run = self._read(path.rpartition("/")[2].removesuffix(":terminate"))
            if status != 200:
                return status, run
            run |= {"state": "CANCELING", "left": self.polls_until_end}
            run["state_history"].append(_entry("CANCELING", len(run["state_history"])))
            return recorded_refusal("terminate")
        more = {key: body[key] for key in _OF_A_RUN if key in body}
        run = self.add_run(body["display_name"], "PENDING", parameters=body["runtime_config"]["parameters"], **more)
        return 200, run

    def refusal(self, path: str, query: dict[str, list[str]], headers: dict[str, str]) -> tuple[int, str] | None:
        """How a server with a namespace for each team refuses who gives none, or no credentials."""
        if not self.is_multi_user or not path.endswith(("/runs", "/experiments")):
            return None
        if not {"authorization", "cookie"} & {name.lower() for name in headers}:
            return recorded_refusal("runs-without-token")
        return None if query.get("namespace") else recorded_refusal("runs-without-namespace")

    def _log(self, path: str) -> tuple[int, Any]:
        pod = path.split("/")[-2]
        if not path.startswith("/apis/v1alpha1/"):
            return 404, _NO_ROUTE
        return 200, self.logs.get(pod, recorded_log("log-of-a-pod-that-is-gone").replace("gone-123", pod))

    def _read(self, kfp_id: str) -> tuple[int, Any]:
        for run in self.runs:
            if run["run_id"] == kfp_id:
                if run["state"] == "CANCELING":
                    run["left"] -= 1
                    if run["left"] <= 0:
                        run["state_history"].append(_entry("FAILED", len(run["state_history"])))
                        run |= {"state": "FAILED"} | self.ends.get(kfp_id, {})
                return 200, run
        status, body = recorded_refusal("run-not-found")
        return status, body.replace(str(UUID(int=0)), kfp_id)

    def _pipelines(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        """As the store of Kubernetes objects answers: no filter but a substring, an empty object for nothing."""
        if "filter" in query:
            return 400, {"error": "Filter eq is not supported", "code": 3}
        _, _, rest = path.partition("/pipelines")
        _, *names = rest.split("/")
        if len(names) == 3:
            found = [one for one in self.versions if one["pipeline_version_id"] == names[2]]
            return (200, found[0]) if found else (404, {"error": f"PipelineVersion {names[2]} not found", "code": 5})
        if not names:
            return 200, {"pipelines": self.pipelines, "total_size": len(self.pipelines)} if self.pipelines else {}
        mine = [one for one in self.versions if one["pipeline_id"] == names[0]]
        assert query["sort_by"] == ["created_at desc"]
        mine.sort(key=lambda one: one["created_at"], reverse=True)
        start = int(query.get("page_token", ["0"])[0] or 0)
        end = start + min(self.page_size, int(query["page_size"][0]))
        more = {"next_page_token": str(end)} if end < len(mine) else {}
        return 200, {"pipeline_versions": mine[start:end], "total_size": len(mine), **more} if mine else {}

    def _page(self, query: dict[str, list[str]]) -> dict[str, Any]:
        name = _wanted(query)
        newest = sorted(self.runs, key=lambda run: run["created_at"], reverse=True)
        found = [run for run in newest if name in ("", run["display_name"])]
        start = int(query.get("page_token", ["0"])[0] or 0)
        end = start + min(self.page_size, int(query["page_size"][0]))
        page = {"runs": found[start:end], "total_size": len(found)} if found else {}
        return page | ({"next_page_token": str(end)} if end < len(found) else {})


def _entry(state: str, minute: int) -> dict[str, str]:
    return {"state": state, "update_time": f"2026-01-01T00:{minute:02d}:00Z"}


_OF_A_RUN = ("pipeline_spec", "pipeline_version_reference", "experiment_id", "service_account")


def _as_sent(value: Any) -> Any:
    """A workflow as it comes back: the server knows only one kind of number and writes 4.0 as 4."""
    if isinstance(value, dict):
        return {key: _as_sent(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_sent(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _wanted(query: dict[str, list[str]]) -> str:
    if "filter" not in query:
        return ""
    (predicate,) = json.loads(query["filter"][0])["predicates"]
    assert predicate["key"] == "display_name"
    assert predicate["operation"] in (1, "EQUALS")
    return predicate["stringValue"]


def _handler(known: PipelinesServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def _answer(self, method: str) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            known.requests.append((method, parts.path, query))
            known.headers.append(dict(self.headers))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if parts.path == known.silent:
                known.closing.wait()
                return
            if known.closes and parts.path.startswith(known.closes):
                self.close_connection = True
                return
            refusal = next((known.refusals[path] for path in known.refusals if parts.path.startswith(path)), None)
            refusal = refusal or (known.refusal(parts.path, query, dict(self.headers)) if method == "GET" else None)
            if refusal is not None:
                status, data = refusal
            elif method == "GET":
                status, data = known.get(parts.path, query)
            else:
                status, data = known.post(parts.path, json.loads(body or b"{}"))
            payload = (data if isinstance(data, str) else json.dumps(data)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    return Handler


@pytest.fixture
def make_pipelines_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., PipelinesServer]]:
    """Starts servers, with TLS where a context is given; nothing of the user's own kfp settings is seen."""
    for name in ("VL3_KFP_ENDPOINT", "VL3_KFP_NAMESPACE", "VL3_KFP_TOKEN", "VL3_KFP_COOKIES", "KF_PIPELINES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with contextlib.ExitStack() as started:
        yield lambda context=None: started.enter_context(serve(context))


@contextlib.contextmanager
def serve(context: ssl.SSLContext | None = None) -> Iterator[PipelinesServer]:
    """A server at work, with TLS if a context is given."""
    known = PipelinesServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(known))
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    known.endpoint = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield known
    known.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def pipelines_server(make_pipelines_server: Callable[..., PipelinesServer]) -> PipelinesServer:
    """A server of this test alone."""
    return make_pipelines_server()
