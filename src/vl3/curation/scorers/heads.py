"""Small heads on CLIP features: the aesthetic predictor and the NSFW detector of LAION, in their published layouts.

    aesthetic   layers.{0,2,4,6,7}: 768 -> 1024 -> 128 -> 64 -> 16 -> 1, no activation (sac+logos+ava1-l14-linearMSE)
    nsfw        norm.{mean,variance}, linear_{1..4}: 768 -> 64 -> 512 -> 256 -> 1, ReLU between, sigmoid at the end

Dropout only acts in training. Weights are read from safetensors with these names; numpy is enough for them.
"""

from pathlib import Path

import numpy as np

from vl3.curation.scorer import Batch
from vl3.curation.scorers.clip import unit
from vl3.curation.scorers.weights import require_safetensors, weights_version
from vl3.errors import ConfigError

_VERSION = 1
AESTHETIC_LAYERS = (0, 2, 4, 6, 7)
"""Numbers of the linear layers; those between are dropout (improved-aesthetic-predictor, simple_inference.py)."""
NSFW_LAYERS = (1, 2, 3, 4)
LAYOUTS = ("aesthetic", "nsfw")


class ClipHead:
    """One number from the features of an image."""

    def __init__(self, name: str, folder: Path, layout: str, features: str) -> None:
        """Make the scorer.

        Args:
            name: its name, and that of its column.
            folder: has one safetensors file with the head.
            layout: `aesthetic` or `nsfw`.
            features: column with the features.

        Raises:
            ConfigError: the layout is unknown, or the weights are not of it.
        """
        if layout not in LAYOUTS:
            raise ConfigError(f"scorer {name}: the layout {layout!r} is unknown. Use {' or '.join(LAYOUTS)}.")
        self.name, self._layout, self._features = name, layout, features
        self.inputs, self.outputs = (features,), (name,)
        self.version = weights_version(folder, "clip_head", _VERSION, {"layout": layout, "features": features})
        self._weights = read_head(folder, layout)

    def __call__(self, batch: Batch) -> Batch:
        """See Scorer."""
        features_ND = unit(batch[self._features].astype(np.float32))
        expected = next(iter(self._weights.values())).shape[-1]
        if features_ND.shape[1] != expected:
            raise ConfigError(
                f"scorer {self.name}: its head was made for features of {expected} numbers, and {self._features} has "
                f"{features_ND.shape[1]}. Take the head and the CLIP model that belong together."
            )
        return {self.name: apply_head(self._weights, self._layout, features_ND)}


def read_head(folder: Path, layout: str) -> dict[str, np.ndarray]:
    """The tensors of a head by their published names.

    Raises:
        ConfigError: they are missing.
    """
    from safetensors.numpy import load_file

    require_safetensors(folder)
    found = load_file(min(folder.glob("*.safetensors")))
    names = [f"layers.{n}" for n in AESTHETIC_LAYERS] if layout == "aesthetic" else [f"linear_{n}" for n in NSFW_LAYERS]
    wanted = [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
    wanted += [] if layout == "aesthetic" else ["norm.mean", "norm.variance"]
    if missing := [name for name in wanted if name not in found]:
        raise ConfigError(
            f"{folder}: the head lacks {', '.join(missing[:4])} of the layout {layout!r}; it has "
            f"{', '.join(sorted(found)[:6])}. Name the folder of a head of that layout."
        )
    return {name: found[name].astype(np.float32) for name in wanted}


def apply_head(weights: dict[str, np.ndarray], layout: str, features_ND: np.ndarray) -> np.ndarray:
    """The scores (N,) of normalised features."""
    values = features_ND
    if layout == "aesthetic":
        for number in AESTHETIC_LAYERS:
            values = values @ weights[f"layers.{number}.weight"].T + weights[f"layers.{number}.bias"]
        return values[:, 0]
    values = (values - weights["norm.mean"].reshape(-1)) / np.sqrt(weights["norm.variance"].reshape(-1))
    for number in NSFW_LAYERS:
        values = values @ weights[f"linear_{number}.weight"].T + weights[f"linear_{number}.bias"]
        values = np.maximum(values, 0) if number != NSFW_LAYERS[-1] else 1 / (1 + np.exp(-values))
    return values[:, 0]
