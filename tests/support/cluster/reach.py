"""How a person at this machine reaches the kind cluster, its S3 server and its MLflow server."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]
KUBECONFIG = REPOSITORY / "build" / "kind" / "kubeconfig"
KUBECTL = Path(sys.prefix) / "bin" / "kubectl"
NAMESPACE = "vl3"
S3_ENDPOINT = "http://127.0.0.1:30833"
TRACKING_URI = "http://127.0.0.1:30500"


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
        """Create objects, or overwrite them, even those that another client has changed."""
        documents = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=json.dumps(documents))
