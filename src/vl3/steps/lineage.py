"""The lineage from the data and the bases to the model version, for the report."""

import json
from typing import Any

from vl3.config.codec import to_dict
from vl3.steps.chain import INITIAL, MODEL, PLAN, SOURCE, TrainedStage
from vl3.steps.request import Request
from vl3.store.artifacts import fetch, read_manifest
from vl3.store.bases import BASES_FILE
from vl3.store.manifest import Origin
from vl3.store.reference import Reference
from vl3.workflow.record import record_of


class _Family:
    """The nodes so far, and which nodes an artifact stands for: the start artifact for all bases."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self._keys_by_sha256: dict[str, list[str]] = {}

    def add(self, node: dict[str, Any], *, stands_for: str = "") -> str:
        """Add a node under a key of its own; `stands_for` is the digest that others name as their origin."""
        key = f"{node['kind']}-{len(self.nodes)}"
        self.nodes.append({"key": key, "parents": [], **node})
        if stands_for:
            self._keys_by_sha256.setdefault(stands_for, []).append(key)
        return key

    def of(self, origins: dict[str, Origin]) -> list[str]:
        """Keys of the nodes of some origins, weights first; one of another run gets a node."""
        found: list[str] = []
        for role, origin in sorted(origins.items(), key=lambda one: one[0] != INITIAL):
            if origin["sha256"] not in self._keys_by_sha256:
                node = {"kind": origin["kind"], "name": role, "sha256": origin["sha256"], "uri": origin["uri"]}
                self.add({**node, "facts": {}}, stands_for=origin["sha256"])
            found += self._keys_by_sha256[origin["sha256"]]
        return list(dict.fromkeys(found))

    def known(self, digests: list[str]) -> list[str]:
        """Keys of those of the digests that have nodes."""
        return [key for one in digests for key in self._keys_by_sha256.get(one, [])]


def lineage(request: Request, stages: list[TrainedStage], promotion: dict[str, Any]) -> list[dict[str, Any]]:
    """Nodes of data, bases, checkpoints, evaluation and model version, each after the ones that it was made from.

    A checkpoint's parents are those of its manifest, the evaluation's are the inputs of its step. Stages a and b:

        dataset, vision base, language base: no parents
        a: vision base, language base, dataset      b: a, dataset
        evaluation: b, dataset                      model version: b, evaluation
    """
    inputs, family = request.inputs, _Family()
    samples = record_of(inputs["dataset"]).values.get("lines")
    facts = {"samples": samples, "from": request.data_uri}
    family.add(_node("data", "dataset", inputs["dataset"], facts), stands_for=inputs["dataset"].sha256)
    for base in _start(request):
        family.add(base, stands_for=inputs["start"].sha256)
    last = ""
    for stage in stages:
        origins = read_manifest(stage.checkpoint).made_from
        parents = family.of(
            {role: origin for role, origin in origins.items() if role != PLAN}
        )  # it says how, not of what
        last = family.add({**_checkpoint(stage, promotion), "parents": parents}, stands_for=stage.checkpoint.sha256)
    asked = record_of(inputs["evaluation"]).parts.inputs
    parents = family.known([asked[role] for role in ("checkpoint", "dataset") if role in asked])
    node = {**_node("evaluation", "evaluation", inputs["evaluation"], {}), "parents": parents}
    evaluation = family.add(node)
    if not stages:
        return family.nodes
    facts = {"version": promotion["version"], "decision": promotion["state"]}
    model = {**_checkpoint(stages[-1], promotion), "kind": "model", "name": promotion["model"], "facts": facts}
    family.add({**model, "parents": [last, evaluation]})
    return family.nodes


def _start(request: Request) -> list[dict[str, Any]]:
    """What the run starts from: its bases, or the model that it was given, as the original."""
    start = request.inputs["start"]
    if start.kind == MODEL:
        source = read_manifest(start).made_from[SOURCE]
        return [{"kind": "base", "name": "given model", "sha256": source["sha256"], "uri": source["uri"], "facts": {}}]
    digests = json.loads((fetch(start) / BASES_FILE).read_text(encoding="utf-8"))
    return [
        {"kind": "base", "name": name.replace("_", " "), "sha256": digests[name], "uri": uri, "facts": {}}
        for name, uri in to_dict(request.config.model).items()
        if name in digests
    ]


def _checkpoint(stage: TrainedStage, promotion: dict[str, Any]) -> dict[str, Any]:
    record = record_of(stage.checkpoint)
    facts = {"steps": record.values.get("steps"), "version": promotion.get("versions", {}).get(stage.name)}
    return _node("checkpoint", stage.name, stage.checkpoint, facts)


def _node(kind: str, name: str, reference: Reference, facts: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "name": name, "sha256": reference.sha256, "uri": reference.uri, "facts": facts}
