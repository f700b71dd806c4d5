"""Installs the controllers and the kind overlay on the cluster and waits until they answer."""

import json
import time
from pathlib import Path
from typing import Any

from kind.commands import KindError, run, say, step
from kind.settings import HERE, ROOT, Settings
from vl3.system.retry import Pauses, retry

STACK = HERE / "stack"
OVERLAY = ROOT / "manifests" / "overlays" / "kind"
READY_SECONDS = 240
CRD_MARK = "\nkind: CustomResourceDefinition\n"


class Cluster:
    """kubectl on one cluster."""

    def __init__(self, kubectl: Path, settings: Settings) -> None:
        self._command = [str(kubectl), "--kubeconfig", str(settings.kubeconfig)]

    def kubectl(self, *arguments: str | Path, text: str | None = None) -> str:
        """Run kubectl and return what it printed."""
        # A busy machine took over 120 s to apply the overlay.
        return run([*self._command, *arguments], text=text, timeout=300)

    def apply(self, folder: Path) -> None:
        """Server-side apply of a kustomization: definitions first, the rest once the API knows them."""
        definitions, others = split_definitions(self.kubectl("kustomize", folder))
        server_side = ("apply", "--server-side", "--force-conflicts", "--field-manager=vl3-kind")
        if definitions:
            self.kubectl(*server_side, "--filename", "-", text=definitions)
            self.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
        retry(
            lambda: self.kubectl(*server_side, "--filename", "-", text=others),
            may_pass=lambda error: isinstance(error, KindError) and "failed calling webhook" in str(error),
            pauses=Pauses(first_seconds=5, longest_seconds=20),
            tries=8,  # a busy machine restarts a controller whose probes are late; its webhook is away until it is back
            note=lambda error, _, pause_seconds: say(
                f"a webhook is away, trying again in {pause_seconds:.0f} s: {error}"
            ),
        )

    def wait_for_deployments(self) -> None:
        """Wait until every Deployment of the cluster runs its latest version.

        Raises:
            KindError: One does not; the message has its name and all pods.
        """
        deadline = time.monotonic() + READY_SECONDS
        while waiting := unready(json.loads(self.kubectl("get", "deployments", "--all-namespaces", "--output=json"))):
            if time.monotonic() > deadline:
                pods = self.kubectl("get", "pods", "--all-namespaces", "--field-selector=status.phase!=Succeeded")
                names = ", ".join(waiting)
                raise KindError(f"Deployments that are not available after {READY_SECONDS} s: {names}\n{pods}")
            time.sleep(1)

    def wait_for_webhooks(self) -> None:
        """Wait until a dry run of objects that pass through the controllers' webhooks succeeds.

        Raises:
            KindError: It fails for too long; the message has the last error.
        """
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.kubectl("create", "--dry-run=server", "--filename", STACK / "probe.yaml")
                break
            except KindError as error:
                if time.monotonic() > deadline:
                    raise KindError(f"The webhooks do not answer after {READY_SECONDS} s: {error}") from error
            time.sleep(1)
        self.kubectl("wait", "apiservice", "--all", "--for=condition=Available", "--timeout=60s")


def unready(deployments: dict[str, Any]) -> list[str]:
    """Names of the Deployments in the API's list whose latest pods are not all available."""
    waiting = []
    for item in deployments["items"]:
        wanted, status = item["spec"]["replicas"], item.get("status", {})
        is_seen = status.get("observedGeneration", 0) >= item["metadata"]["generation"]
        counts = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")]
        if not is_seen or counts != [wanted] * 3:
            waiting.append(f"{item['metadata']['namespace']}/{item['metadata']['name']}")
    return waiting


def split_definitions(text: str) -> tuple[str, str]:
    """Rendered YAML as two texts: CustomResourceDefinitions, and everything else."""
    documents = text.split("\n---\n")
    definitions = [document for document in documents if CRD_MARK in f"\n{document}\n"]
    others = [document for document in documents if CRD_MARK not in f"\n{document}\n"]
    return "\n---\n".join(definitions), "\n---\n".join(others)


def put_controllers(cluster: Cluster) -> None:
    """JobSet, Trainer, Kueue, KubeRay, kwok and its stages."""
    with step("controllers"):
        cluster.kubectl("wait", "node", "--selector=type!=kwok", "--for=condition=Ready", "--timeout=120s")
        cluster.apply(STACK)
        cluster.wait_for_deployments()
        cluster.wait_for_webhooks()


def put_overlay(cluster: Cluster) -> None:
    """Namespace vl3 with queues, runtimes, S3, database and MLflow, if the overlay exists."""
    if not (OVERLAY / "kustomization.yaml").exists():
        say(f"{OVERLAY.relative_to(ROOT)} does not exist: the cluster is ready without it")
        return
    with step(str(OVERLAY.relative_to(ROOT))):
        cluster.apply(OVERLAY)
        cluster.wait_for_deployments()
