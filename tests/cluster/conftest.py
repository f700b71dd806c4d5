"""The kind cluster that `make kind-up` made, or a skip that says what is missing."""

import base64
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.cluster.corpus import make_corpus
from tests.support.cluster.reach import KUBECONFIG, KUBECTL, NAMESPACE, S3_ENDPOINT, Cluster
from tests.support.cluster.simulated import Launcher, gpu_node


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The running cluster."""
    if not KUBECONFIG.is_file():
        _missing("there is no kind cluster: make one with `make kind-up`")
    bare = Cluster({})
    probe = subprocess.run(
        [KUBECTL, "--kubeconfig", KUBECONFIG, "get", "--raw", "/readyz"], capture_output=True, text=True, timeout=60
    )
    if probe.returncode:
        _missing(f"the kind cluster does not answer ({probe.stderr.strip()}): create it again with `make kind-up`")
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
            # otherwise the server gives the S3 address in its own network, which this machine cannot reach
            "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
        }
    )


def _missing(reason: str) -> NoReturn:
    """Skip, or fail where the cluster was asked for: all tests skipped would look like all tests passed."""
    (pytest.fail if os.environ.get("VL3_TEST_CLUSTER") == "required" else pytest.skip)(reason)


@pytest.fixture
def new_run() -> Callable[[str], str]:
    """Names of runs that no earlier test has used."""
    return lambda name: f"{name}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred generated samples of all ten categories."""
    return make_corpus(tmp_path_factory.mktemp("corpus") / "data", "--seed", "3", "--heldout", "4", "--scale", "0.02")


@pytest.fixture(scope="session")
def pools(cluster: Cluster) -> None:
    """Two simulated nodes of eight GPUs in each GPU pool, as the quotas of the kind overlay say."""
    cluster.apply(*(gpu_node(f"{pool}-{number}", pool) for pool in ("h200", "a100") for number in range(2)))


@pytest.fixture
def launcher(cluster: Cluster, pools: None, tmp_path: Path) -> Iterator[Launcher]:
    """Starts launches on the simulated pools."""
    cluster.apply(*(gpu_node(f"h200-{number}", "h200") for number in range(2)))  # an earlier test may have lost one
    launcher = Launcher(cluster, tmp_path)
    yield launcher
    launcher.clear()
