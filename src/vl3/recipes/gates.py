"""The gates of the recipes: a table that each recipe fills with its own thresholds."""

from vl3.config.gates import (
    ABOVE_CHANCE,
    ANSWERED,
    AT_LEAST,
    EVERY,
    HELDOUT,
    JUDGED,
    NOT_WORSE,
    PARTS,
    GateConfig,
)

EACH_CATEGORY = HELDOUT + PARTS


def gate_table(*, mean: float, category: float, mean_fall: float, category_fall: float) -> dict[str, GateConfig]:
    """The gates that all recipes have.

    Args:
        mean: mean held-out accuracy over the categories that a champion has at least.
        category: held-out accuracy that a champion has at least in every category.
        mean_fall: how far the mean may be below the champion's, with 95 % confidence.
        category_fall: how far a single category may be measured below the champion's. Without confidence: the few
            samples of a category could not show so small a difference, and the mean catches what is no accident.
    """
    rows = {
        "mean_accuracy": (HELDOUT, AT_LEAST, mean, None),
        "task_accuracy": (EACH_CATEGORY, AT_LEAST, category, None),
        "beats_chance": (EACH_CATEGORY, ABOVE_CHANCE, 0.0, 0.975),
        "mean_not_worse": (HELDOUT, NOT_WORSE, mean_fall, 0.95),
        "no_regression": (EACH_CATEGORY, NOT_WORSE, category_fall, None),
        "benchmarks_not_worse": (EVERY, NOT_WORSE, category_fall, None),
        "answered": (EVERY, ANSWERED, 0.99, None),
        "judged": (EVERY, JUDGED, 1.0, None),
    }
    return {
        name: GateConfig(scope=scope, rule=rule, threshold=threshold, confidence=confidence)
        for name, (scope, rule, threshold, confidence) in rows.items()
    }
