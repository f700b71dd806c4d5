"""Data mixtures, one YAML file for each stage: what is drawn, and how much."""

from importlib import resources

import yaml

from vl3.config.codec import from_dict
from vl3.config.mixture import Draw, MixtureValue


def load_mixture(family: str, stage: str) -> dict[str, MixtureValue]:
    """Amounts by `DATASET` or `[DATASET:]CATEGORY[:SOURCE]` from `mixtures/<family>/<stage>.yaml`.

    A value is a number, or the fields of a Draw: `plotqa: {amount: 500_000, max_epochs: 2}`.
    """
    text = resources.files("vl3.recipes").joinpath("mixtures", family, f"{stage}.yaml").read_text(encoding="utf-8")
    return {
        key: from_dict(Draw, value) if isinstance(value, dict) else float(value)
        for key, value in yaml.safe_load(text).items()
    }
