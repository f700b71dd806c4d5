"""The kind cluster that `make kind-up` made, or a skip that says what is missing."""

import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
KUBECONFIG = REPOSITORY / "build" / "kind" / "kubeconfig"
KUBECTL = Path(sys.prefix) / "bin" / "kubectl"
NAMESPACE = "vl3"
S3_ENDPOINT = "http://127.0.0.1:30833"
TRACKING_URI = "http://127.0.0.1:30500"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@dataclass(frozen=True)
class Cluster:
    """The cluster as a person at this machine reaches it."""

    environment: dict[str, str] = field(repr=False)
    """Environment of a process that is to reach the cluster, its S3 server and its MLflow server."""

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Output of a kubectl command."""
        done = subprocess.run(
            [KUBECTL, "--kubeconfig", KUBECONFIG, *arguments], input=stdin, capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """Objects of the namespace, as `kubectl get` names them."""
        return json.loads(self.kubectl("--namespace", NAMESPACE, "get", *arguments, "--output", "json"))["items"]

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create objects, or make them as given."""
        documents = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(documents))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The running cluster."""
    if not KUBECONFIG.is_file():
        pytest.skip("there is no kind cluster: make one with `make kind-up`")
    bare = Cluster({})
    probe = subprocess.run(
        [KUBECTL, "--kubeconfig", KUBECONFIG, "get", "--raw", "/readyz"], capture_output=True, text=True, timeout=60
    )
    if probe.returncode:
        pytest.skip(f"the kind cluster does not answer ({probe.stderr.strip()}): make it anew with `make kind-up`")
    secret = json.loads(bare.kubectl("--namespace", NAMESPACE, "get", "secret", "vl3-s3", "--output", "json"))
    credentials = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("VL3_", "AWS_", "MLFLOW_"))}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return Cluster(
        {
            **inherited,
            **credentials,
            "KUBECONFIG": str(KUBECONFIG),
            "AWS_ENDPOINT_URL": S3_ENDPOINT,
            "AWS_REGION": "us-east-1",
        }
    )


@pytest.fixture
def new_run() -> Callable[[str], str]:
    """Names of runs that no former test has used."""
    return lambda name: f"{name}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred generated samples of all ten categories."""
    folder = tmp_path_factory.mktemp("corpus") / "data"
    program = "import sys; from vl3.cli.main import main; sys.exit(main())"
    arguments = ["data", "sample", "--out", str(folder), "--seed", "3", "--heldout", "4", "--scale", "0.02"]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)
    return folder


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Name what a failed test has left, so that the next one's trouble has a cause; a good test leaves nothing."""
    yield
    if "cluster" not in request.fixturenames:
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    left = [job["metadata"]["name"] for job in cluster.get("trainjobs") if "allowed_to_stay" not in request.keywords]
    if left:
        cluster.kubectl("--namespace", NAMESPACE, "delete", "trainjobs", "--wait=true", *left, check=False)
    assert not left, f"the test left TrainJobs behind (now deleted): {', '.join(left)}"
