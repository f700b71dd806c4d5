"""Data mixtures, one YAML file a stage: which kinds of sample are drawn, and how often."""

from importlib import resources

import yaml


def load_mixture(name: str) -> dict[str, float]:
    """Weights by kind (`category` or `category:source`) from `mixtures/<name>.yaml`."""
    text = resources.files("vl3.recipes").joinpath("mixtures", f"{name}.yaml").read_text(encoding="utf-8")
    return {kind: float(weight) for kind, weight in yaml.safe_load(text).items()}
