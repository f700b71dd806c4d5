"""Data mixtures, one YAML file for each stage: which kinds of sample are drawn, and how often."""

from importlib import resources

import yaml


def load_mixture(family: str, stage: str) -> dict[str, float]:
    """Weights by kind (`category` or `category:source`) from `mixtures/<family>/<stage>.yaml`."""
    text = resources.files("vl3.recipes").joinpath("mixtures", family, f"{stage}.yaml").read_text(encoding="utf-8")
    return {kind: float(weight) for kind, weight in yaml.safe_load(text).items()}
