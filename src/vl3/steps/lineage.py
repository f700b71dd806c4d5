"""The way from the data to the model version, as the report shows it."""

from typing import Any

from vl3.steps.chain import TrainedStage
from vl3.steps.request import Request
from vl3.store.reference import Reference
from vl3.workflow.record import record_of


def lineage(request: Request, stages: list[TrainedStage], promotion: dict[str, Any]) -> list[dict[str, Any]]:
    """Nodes in order: data, bases, the stages' checkpoints, the evaluation, the model version."""
    inputs = request.inputs
    start, data = record_of(inputs["start"]), record_of(inputs["dataset"])
    nodes = [
        _node("data", "dataset", inputs["dataset"], {"samples": data.values.get("lines"), "from": request.data_uri})
    ]
    nodes += [
        {"kind": "base", "name": name.replace("_", " "), "sha256": base["sha256"], "uri": base["uri"], "facts": {}}
        for name, base in start.values["bases"].items()
    ]
    nodes += [_checkpoint(request, stage) for stage in stages]
    nodes.append(_node("evaluation", "evaluation", inputs["evaluation"], {}))
    last = _checkpoint(request, stages[-1])
    facts = {"version": promotion["version"], "decision": promotion["state"]}
    nodes.append({**last, "kind": "model", "name": promotion["model"], "facts": facts})
    return nodes


def _checkpoint(request: Request, stage: TrainedStage) -> dict[str, Any]:
    record = record_of(stage.checkpoint)
    facts = {"steps": request.config.stages[stage.name].steps, "version": record.values.get("version")}
    return _node("checkpoint", stage.name, stage.checkpoint, facts)


def _node(kind: str, name: str, reference: Reference, facts: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "name": name, "sha256": reference.sha256, "uri": reference.uri, "facts": facts}
