"""The lineage from the data to the model version, for the report."""

import json
from typing import Any

from vl3.config.codec import to_dict
from vl3.steps.chain import BASES_FILE, TrainedStage
from vl3.steps.request import Request
from vl3.store.artifacts import fetch
from vl3.store.reference import Reference
from vl3.workflow.record import record_of


def lineage(request: Request, stages: list[TrainedStage], promotion: dict[str, Any]) -> list[dict[str, Any]]:
    """Nodes in order: data, bases, the stages' checkpoints, the evaluation, the model version."""
    inputs = request.inputs
    samples = record_of(inputs["dataset"]).values.get("lines")
    nodes = [_node("data", "dataset", inputs["dataset"], {"samples": samples, "from": request.data_uri})]
    digests = json.loads((fetch(inputs["start"]) / BASES_FILE).read_text(encoding="utf-8"))
    nodes += [
        {"kind": "base", "name": name.replace("_", " "), "sha256": digests[name], "uri": uri, "facts": {}}
        for name, uri in to_dict(request.config.model).items()
    ]
    nodes += [_checkpoint(stage) for stage in stages]
    nodes.append(_node("evaluation", "evaluation", inputs["evaluation"], {}))
    last = _checkpoint(stages[-1])
    facts = {"version": promotion["version"], "decision": promotion["state"]}
    nodes.append({**last, "kind": "model", "name": promotion["model"], "facts": facts})
    return nodes


def _checkpoint(stage: TrainedStage) -> dict[str, Any]:
    record = record_of(stage.checkpoint)
    facts = {"steps": record.parts.config.get("steps"), "version": record.values.get("version")}
    return _node("checkpoint", stage.name, stage.checkpoint, facts)


def _node(kind: str, name: str, reference: Reference, facts: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "name": name, "sha256": reference.sha256, "uri": reference.uri, "facts": facts}
