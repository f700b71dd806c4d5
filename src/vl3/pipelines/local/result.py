"""What a finished run says of its result, from the numbers of its report."""

from pathlib import Path
from typing import Any

from vl3.system.documents import parse_object


def result_text(numbers: Path) -> str:
    """The promotion's result in one line, accuracies of a model by category or of an ablation's arms, or what is kept.

    Args:
        numbers: the run's report.json.
    """
    try:
        data = parse_object(numbers.read_bytes())
        if "arms" in data:
            return "\n".join(_arm_lines(data["arms"]))
        if "funnel" in data:
            handed = ", ".join(f"{name} {count:,}" for name, count in data["datasets"].items())
            videos = f"; videos read: {data['videos']['videos']:,}" if data["videos"] else ""
            return f"curation: {data['kept']:,} of {data['images']:,} images kept{videos}; handed over: {handed}"
        verdict, accuracy = data["verdict"], data.get("accuracy") or {}
        mean = accuracy.get("mean_accuracy") or {}
        if verdict["state"] == "none" and mean:
            return "\n".join(_accuracy_lines(accuracy, list(mean)[-1]))
        reached = f", mean held-out accuracy {list(mean.values())[-1]:.3f}" if mean else ""
        return f"promotion: {verdict['state']} ({verdict['reason']}){reached}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"the result cannot be read from {numbers} ({type(error).__name__}: {error})"


def _arm_lines(arms: list[dict[str, Any]]) -> list[str]:
    width = max(len(arm["title"]) for arm in arms)
    rows = [f"{arm['title']:{width}}  {arm['mean_accuracy']:.3f}  (before {arm['mean_before']:.3f})" for arm in arms]
    return ["mean held-out accuracy", *rows]


def _accuracy_lines(accuracy: dict[str, Any], model: str) -> list[str]:
    rows = [(row["category"], row["scores"][model]) for row in accuracy["categories"]]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:{width}}  {score['accuracy']:.3f}  {score['correct']} of {score['total']}" for name, score in rows]
    return ["held-out accuracy", *lines, f"{'mean':{width}}  {accuracy['mean_accuracy'][model]:.3f}"]
