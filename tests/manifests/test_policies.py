"""Each overlay keeps every policy, and each policy can fail."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.manifests import policies
from tests.manifests.pods import pod_templates
from tests.manifests.policies import Policy, findings, of_kind
from tests.support.manifests import load, overlay_text

Objects = list[dict[str, Any]]
OF_OVERLAY = {
    "kind": policies.OWN_NAMESPACE,
    "staging": policies.SHARED_CLUSTERS,
    "prod": policies.PRODUCTION,
    "single-user": policies.SHARED_NAMESPACE,
}


def test_overlay_keeps_its_policies(overlay: tuple[str, Objects]) -> None:
    name, objects = overlay
    assert findings(objects, OF_OVERLAY[name]) == []


@pytest.mark.parametrize("controller", ["jobset", "trainer", "kueue", "kuberay"])
def test_controllers_of_production_run_by_digest(controller: str, manifest_copies: Path) -> None:
    objects = load(overlay_text(f"prod/third-party/{controller}", manifest_copies))
    assert sum(len(pod_templates(obj)) for obj in objects) == 1
    assert findings(objects, [policies.images_have_digests]) == []


def _named(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    return next(obj for obj in of_kind(objects, kind) if obj["metadata"]["name"] == name)


def _pod(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    return pod_templates(_named(objects, kind, name))[0].spec


def _container(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    return _pod(objects, kind, name)["containers"][0]


RUNTIME = ("ClusterTrainingRuntime", "vl3-torch-h200")
MLFLOW = ("Deployment", "mlflow")
GC = ("CronJob", "vl3-gc")


def _job_set(objects: Objects) -> dict[str, Any]:
    return _named(objects, *RUNTIME)["spec"]["template"]["spec"]


def _drop(objects: Objects, kind: str, name: str) -> None:
    objects.remove(_named(objects, kind, name))


BROKEN: dict[str, tuple[Policy, Callable[[Objects], Any], str]] = {
    "host network": (
        policies.pods_are_restricted,
        lambda o: _pod(o, *RUNTIME).update(hostNetwork=True),
        "ClusterTrainingRuntime vl3-torch-h200: [pod-security] has hostNetwork: true and sees the node. Remove it.",
    ),
    "host path": (
        policies.pods_are_restricted,
        lambda o: _pod(o, *MLFLOW)["volumes"].append({"name": "disk", "hostPath": {"path": "/"}}),
        "Deployment vl3/mlflow: [pod-security] mounts volume disk of type hostPath.",
    ),
    "default account": (
        policies.pods_are_restricted,
        lambda o: _pod(o, *MLFLOW).pop("serviceAccountName"),
        "runs as the service account 'default', whose rights anyone may widen. Give it one of its own.",
    ),
    "token": (
        policies.pods_are_restricted,
        lambda o: _pod(o, *RUNTIME).update(automountServiceAccountToken=True),
        "mounts a token of the API server that it does not need. Set automountServiceAccountToken: false.",
    ),
    "privileged": (
        policies.pods_are_restricted,
        lambda o: _container(o, *GC)["securityContext"].update(privileged=True),
        "CronJob vl3/vl3-gc: [pod-security] container gc: is privileged. Remove it.",
    ),
    "escalation": (
        policies.pods_are_restricted,
        lambda o: _container(o, *GC)["securityContext"].pop("allowPrivilegeEscalation"),
        "container gc: may gain privileges. Set allowPrivilegeEscalation: false.",
    ),
    "capabilities kept": (
        policies.pods_are_restricted,
        lambda o: _container(o, *RUNTIME)["securityContext"].pop("capabilities"),
        "container node: keeps capabilities. Set capabilities.drop: [ALL].",
    ),
    "capabilities added": (
        policies.pods_are_restricted,
        lambda o: _container(o, *RUNTIME)["securityContext"]["capabilities"].update(add=["IPC_LOCK"]),
        "container node: adds the capabilities ['IPC_LOCK']. Remove them.",
    ),
    "root": (
        policies.pods_are_restricted,
        lambda o: _pod(o, *RUNTIME)["securityContext"].update(runAsNonRoot=False, runAsUser=0),
        "container node: may run as root. Set runAsNonRoot: true.",
    ),
    "seccomp": (
        policies.pods_are_restricted,
        lambda o: _pod(o, *RUNTIME)["securityContext"].pop("seccompProfile"),
        "container node: may make any system call. Set seccompProfile.type: RuntimeDefault.",
    ),
    "writable root": (
        policies.pods_are_restricted,
        lambda o: _container(o, *MLFLOW)["securityContext"].pop("readOnlyRootFilesystem"),
        "container mlflow: can write to its image. Set readOnlyRootFilesystem: true and mount an emptyDir at /tmp.",
    ),
    "host port": (
        policies.pods_are_restricted,
        lambda o: _container(o, *MLFLOW)["ports"][0].update(hostPort=80),
        "container mlflow: takes port 80 of its node. Use a Service.",
    ),
    "no memory limit": (
        policies.resources_are_set,
        lambda o: _container(o, *GC)["resources"].pop("limits"),
        "CronJob vl3/vl3-gc: [resources] container gc has no resources.limits.memory. The pod could starve",
    ),
    "latest": (
        policies.images_have_versions,
        lambda o: _container(o, *RUNTIME).update(image="ghcr.io/vl3/trainer:latest"),
        "container node runs 'ghcr.io/vl3/trainer:latest', which may be another image tomorrow.",
    ),
    "no tag, port in the host": (
        policies.images_have_versions,
        lambda o: _container(o, *RUNTIME).update(image="registry.example:5000/vl3/trainer"),
        "container node runs 'registry.example:5000/vl3/trainer', which may be",
    ),
    "tag in production": (
        policies.images_have_digests,
        lambda o: _container(o, *RUNTIME).update(image="ghcr.io/vl3/trainer:0.1.0"),
        "container node runs 'ghcr.io/vl3/trainer:0.1.0' by tag. Pin the pushed images: make pin-images.",
    ),
    "secret in git": (
        policies.secrets_are_references,
        lambda o: o.append({"kind": "Secret", "metadata": {"name": "vl3-s3", "namespace": "vl3"}, "data": {}}),
        "Secret vl3/vl3-s3: [secret-in-git] holds its values in git. Use an ExternalSecret",
    ),
    "password in the environment": (
        policies.values_are_no_secrets,
        lambda o: _container(o, *MLFLOW)["env"].append({"name": "PGPASSWORD", "value": "hunter2"}),
        "Deployment vl3/mlflow: [secret-value] PGPASSWORD looks like a secret with its value written out.",
    ),
    "password in a URI": (
        policies.values_are_no_secrets,
        lambda o: _container(o, *MLFLOW)["args"].append("--backend-store-uri=postgresql://mlflow:hunter2@db/mlflow"),
        "Deployment vl3/mlflow: [secret-value] --backend-store-uri looks like a secret",
    ),
    "key in a ConfigMap": (
        policies.values_are_no_secrets,
        lambda o: _named(o, "ConfigMap", "vl3-settings")["data"].update(KEY="AKIAABCDEFGHIJKLMNOP"),
        "ConfigMap vl3/vl3-settings: [secret-value] KEY looks like a secret",
    ),
    "no default deny": (
        policies.namespaces_deny_by_default,
        lambda o: _drop(o, "NetworkPolicy", "default-deny"),
        "Namespace vl3: [default-deny] has no network policy that selects all pods and denies both directions.",
    ),
    "ingress only": (
        policies.namespaces_deny_by_default,
        lambda o: _named(o, "NetworkPolicy", "default-deny")["spec"].update(policyTypes=["Ingress"]),
        "Namespace vl3: [default-deny]",
    ),
    "another owner's label": (
        policies.namespaces_keep_their_labels,
        lambda o: _named(o, "Namespace", "vl3")["metadata"]["labels"].update({"app.kubernetes.io/part-of": "vl3"}),
        "Namespace vl3: [others-label] sets app.kubernetes.io/part-of, which may be its owner's. Leave it out.",
    ),
    "account of another namespace": (
        policies.bindings_stay_in_the_namespace,
        lambda o: _named(o, "RoleBinding", "vl3-launcher")["subjects"][0].update(namespace="kubeflow"),
        "RoleBinding vl3/vl3-launcher: [other-namespace] binds vl3-launcher of namespace kubeflow; the objects are in "
        "vl3. Set it",
    ),
    "pod without our label": (
        policies.pods_are_ours_by_label,
        lambda o: pod_templates(_named(o, *MLFLOW))[0].labels.pop("app.kubernetes.io/part-of"),
        "Deployment vl3/mlflow: [unlabelled] makes pods without the label app.kubernetes.io/part-of: vl3.",
    ),
    "everything open": (
        policies.openings_are_narrow,
        lambda o: _named(o, "NetworkPolicy", "allow-dns")["spec"].update(egress=[{}]),
        "NetworkPolicy vl3/allow-dns: [open-network] an egress rule has neither 'to' nor 'ports'",
    ),
    "wildcard": (
        policies.roles_are_least,
        lambda o: _named(o, "Role", "vl3-launcher")["rules"].append(
            {"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}
        ),
        "Role vl3/vl3-launcher: [rbac] has '*' in",
    ),
    "secrets": (
        policies.roles_are_least,
        lambda o: _named(o, "Role", "vl3-launcher")["rules"].append(
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
        ),
        "Role vl3/vl3-launcher: [rbac] reaches secrets. Remove it: nothing of ours needs it.",
    ),
    "escalating verb": (
        policies.roles_are_least,
        lambda o: _named(o, "Role", "vl3-launcher")["rules"][0]["verbs"].append("impersonate"),
        "Role vl3/vl3-launcher: [rbac] may impersonate and so give itself any right. Remove the verb.",
    ),
    "cluster-wide writing": (
        policies.roles_are_least,
        lambda o: _named(o, "ClusterRole", "vl3-cluster-reader")["rules"][-1]["verbs"].append("delete"),
        "ClusterRole vl3-cluster-reader: [rbac] may delete ['nodes'] in every namespace. Use a Role.",
    ),
    "cluster-admin": (
        policies.roles_are_least,
        lambda o: _named(o, "ClusterRoleBinding", "vl3-cluster-reader")["roleRef"].update(name="cluster-admin"),
        "ClusterRoleBinding vl3-cluster-reader: [rbac] gives cluster-admin to vl3-launcher. Write a role",
    ),
    "bound to a group": (
        policies.roles_are_least,
        lambda o: _named(o, "RoleBinding", "vl3-launcher")["subjects"].append({"kind": "Group", "name": "everyone"}),
        "RoleBinding vl3/vl3-launcher: [rbac] binds Group everyone, which is more than one program.",
    ),
    "node port": (
        policies.services_stay_inside,
        lambda o: _named(o, "Service", "mlflow")["spec"].update(type="NodePort"),
        "Service vl3/mlflow: [exposed] is of type NodePort. Use ClusterIP and a gateway that asks who comes.",
    ),
    "queue to nowhere": (
        policies.queues_lead_to_quota,
        lambda o: _drop(o, "ClusterQueue", "vl3-h200"),
        "LocalQueue vl3/h200: [queues] points to ClusterQueue 'vl3-h200'; there are ['vl3-a100', 'vl3-cpu'].",
    ),
    "unknown flavour": (
        policies.queues_lead_to_quota,
        lambda o: _drop(o, "ResourceFlavor", "h200"),
        "ClusterQueue vl3-h200: [queues] uses ResourceFlavor 'h200'; there are ['a100', 'cpu'].",
    ),
    "no quota": (
        policies.queues_lead_to_quota,
        lambda o: _named(o, "ClusterQueue", "vl3-cpu")["spec"]["resourceGroups"][0]["flavors"][0]["resources"][
            0
        ].update(nominalQuota="0"),
        "ClusterQueue vl3-cpu: [queues] has no cpu of cpu, so nothing is ever admitted.",
    ),
    "job set with a ttl": (
        policies.runtimes_never_repeat,
        lambda o: _job_set(o).update(ttlSecondsAfterFinished=60),
        "ClusterTrainingRuntime vl3-torch-h200: [runs-twice] has ttlSecondsAfterFinished",
    ),
    "restarts": (
        policies.runtimes_never_repeat,
        lambda o: _job_set(o)["failurePolicy"].update(maxRestarts=3),
        "[blind-retry] restarts failed jobs by itself. Set failurePolicy.maxRestarts: 0.",
    ),
    "pods restart": (
        policies.runtimes_never_repeat,
        lambda o: _pod(o, *RUNTIME).update(restartPolicy="OnFailure"),
        "[blind-retry] job node restarts its pods by itself",
    ),
    "missing secret": (
        policies.references_exist,
        lambda o: _drop(o, "ExternalSecret", "vl3-s3"),
        "refers to Secret 'vl3-s3', which the overlay does not have.",
    ),
    "missing settings": (
        policies.references_exist,
        lambda o: _drop(o, "ConfigMap", "mlflow-settings"),
        "Deployment vl3/mlflow: [missing-reference] refers to ConfigMap 'mlflow-settings'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_policy_names_what_is_broken(production: Objects, case: str) -> None:
    policy, break_it, expected = BROKEN[case]
    objects = deepcopy(production)
    break_it(objects)
    found = findings(objects, [policy])
    assert any(expected in line for line in found), found


def test_every_policy_has_a_broken_variant() -> None:
    assert {policy.__name__ for policy in policies.PRODUCTION} == {policy.__name__ for policy, _, _ in BROKEN.values()}


def _policy(objects: Objects, name: str) -> dict[str, Any]:
    return _named(objects, "NetworkPolicy", name)["spec"]


IN_THE_WAY: dict[str, tuple[Callable[[Objects], Any], str]] = {
    "every pod denied": (
        lambda o: _policy(o, "default-deny").update(podSelector={}),
        "NetworkPolicy kubeflow/default-deny: [others-pods] isolates pods without app.kubernetes.io/part-of: vl3",
    ),
    "steps of all pipelines isolated": (
        lambda o: _policy(o, "allow-pipeline-steps")["podSelector"].pop("matchLabels"),
        "NetworkPolicy kubeflow/allow-pipeline-steps: [others-pods] isolates pods",
    ),
    "every pod let in": (
        lambda o: _policy(o, "allow-mlflow-server")["ingress"][0].update({"from": [{"podSelector": {}}]}),
        "NetworkPolicy kubeflow/allow-mlflow-server: [others-pods] selects {}, also pods of others.",
    ),
    "limits for all": (
        lambda o: o.append({"kind": "LimitRange", "metadata": {"name": "vl3", "namespace": "kubeflow"}}),
        "LimitRange kubeflow/vl3: [others-namespace] a LimitRange is for everybody there. Leave it out.",
    ),
}


@pytest.mark.parametrize("case", IN_THE_WAY)
def test_what_is_in_the_way_of_others_is_named(single_user: Objects, case: str) -> None:
    break_it, expected = IN_THE_WAY[case]
    break_it(single_user)
    found = findings(single_user, [policies.others_are_left_alone])
    assert any(expected in line for line in found), found


def test_nothing_of_the_single_user_overlay_names_the_other_namespace(manifest_copies: Path) -> None:
    text = overlay_text("single-user", manifest_copies)
    assert "namespace: vl3" not in text
    assert 'namespace="vl3"' not in text
    assert "mlflow.vl3" not in text
    pipelines = load(overlay_text("single-user/pipelines", manifest_copies))
    assert {obj["metadata"]["namespace"] for obj in pipelines} == {"kubeflow"}
