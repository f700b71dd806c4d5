"""Image classifiers of transformers, for NSFW and watermarks: the probability of one of their labels."""

from pathlib import Path
from typing import Any

import numpy as np

from vl3.curation.scorer import Batch
from vl3.curation.scorers.clip import decoded_images, filled_up
from vl3.curation.scorers.weights import device, read_config, require_safetensors, weights_version
from vl3.errors import ConfigError

_VERSION = 1


class LabelProbability:
    """The probability that a classifier gives to a label, such as `nsfw` or `watermark`."""

    inputs = ("bytes",)

    def __init__(self, name: str, folder: Path, label: str, batch_images: int) -> None:
        """Make the scorer; its model is loaded with the first batch.

        Raises:
            ConfigError: the model has no such label.
        """
        require_safetensors(folder)
        labels = {str(one): int(at) for at, one in read_config(folder).get("id2label", {}).items()}
        if label not in labels:
            raise ConfigError(
                f"scorer {name}: the classifier in {folder} has no label {label!r}; its labels are "
                f"{', '.join(sorted(labels)) or 'not named'}. Correct settings.label."
            )
        self.name, self._folder, self._label, self._size = name, folder, labels[label], batch_images
        self.outputs = (name,)
        self.version = weights_version(folder, "classifier", _VERSION, {"label": label, "batch": batch_images})
        self._loaded: tuple[Any, Any, Any] | None = None

    def __call__(self, batch: Batch) -> Batch:
        """See Scorer."""
        torch, model, processor = self._loaded = self._loaded or self._load()
        pixels, errors = decoded_images(batch)
        scores = np.full(len(pixels), np.nan, dtype=np.float32)
        good = [row for row, one in enumerate(pixels) if one is not None]
        if good:
            images = filled_up([pixels[row] for row in good], self._size)
            given = processor(images=images, return_tensors="pt", input_data_format="channels_last")
            with torch.inference_mode():
                logits = model(given["pixel_values"].to(model.device)).logits
            scores[good] = torch.softmax(logits.float(), dim=-1)[: len(good), self._label].cpu().numpy()
        return {self.name: scores, f"{self.name}_error": errors}

    def _load(self) -> tuple[Any, Any, Any]:
        import torch
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        model = AutoModelForImageClassification.from_pretrained(
            self._folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        processor = AutoImageProcessor.from_pretrained(self._folder, local_files_only=True, backend="pil")
        return torch, model.eval().to(device()), processor
