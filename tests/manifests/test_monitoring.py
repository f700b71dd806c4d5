"""Monitors find what they scrape among the vendored controllers, and alerts ask for metrics that exist."""

import re
from collections.abc import Mapping
from typing import Any

from tests.manifests.pods import pod_templates
from tests.manifests.policies import of_kind
from tests.support.manifests import third_party

# Kueue's and controller-runtime's as scraped from Kueue 0.18.4; the others are kube-state-metrics'.
KNOWN_METRICS = {
    "controller_runtime_reconcile_errors_total",
    "kube_cronjob_status_last_successful_time",
    "kube_deployment_status_replicas_available",
    "kube_job_status_failed",
    "kueue_admission_wait_time_seconds_bucket",
    "kueue_cohort_subtree_quota",
    "kueue_cohort_subtree_resource_reservations",
    "kueue_pending_workloads",
    "kueue_preempted_workloads_total",
}


def _carries(labels: Mapping[str, str], selector: Mapping[str, Any]) -> bool:
    return selector["matchLabels"].items() <= labels.items()


def test_kueue_is_found_by_its_service(production: list[dict[str, Any]]) -> None:
    (monitor,) = of_kind(production, "ServiceMonitor")
    (service,) = [
        service
        for service in of_kind(third_party("kueue"), "Service")
        if _carries(service["metadata"].get("labels", {}), monitor["spec"]["selector"])
    ]
    assert service["metadata"]["namespace"] in monitor["spec"]["namespaceSelector"]["matchNames"]
    assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_trainer_is_found_by_its_pods(production: list[dict[str, Any]]) -> None:
    (monitor,) = of_kind(production, "PodMonitor")
    (deployment,) = [
        deployment
        for deployment in of_kind(third_party("trainer"), "Deployment")
        if _carries(deployment["spec"]["template"]["metadata"]["labels"], monitor["spec"]["selector"])
    ]
    assert deployment["metadata"]["namespace"] in monitor["spec"]["namespaceSelector"]["matchNames"]
    (container,) = pod_templates(deployment)[0].containers
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in [port["name"] for port in container["ports"]]


def test_alerts_ask_for_known_metrics(production: list[dict[str, Any]]) -> None:
    (rules,) = of_kind(production, "PrometheusRule")
    expressions = [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert {name for text in expressions for name in re.findall(r"\b(?:kueue|kube|controller)_\w+", text)} - {
        "controller"
    } == KNOWN_METRICS
