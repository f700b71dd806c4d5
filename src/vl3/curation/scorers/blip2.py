"""The first, coarse caption of an image by BLIP2 (paper sec. 2.3), with transformers."""

from pathlib import Path
from typing import Any

import numpy as np

from vl3.curation.scorer import Batch
from vl3.curation.scorers.clip import decoded_images, filled_up
from vl3.curation.scorers.weights import device, require_safetensors, weights_version
from vl3.curation.source import clean_text

_VERSION = 1


class Blip2Caption:
    """A short caption, by greedy decoding."""

    inputs = ("bytes",)

    def __init__(self, name: str, folder: Path, batch_images: int, max_new_tokens: int, prompt: str) -> None:
        """Make the scorer; its model is loaded with the first batch.

        Args:
            name: its name, and that of its column.
            folder: a Blip2ForConditionalGeneration as transformers saves it.
            batch_images: images that the model is given together.
            max_new_tokens: length of a caption.
            prompt: text before the caption; empty captions without one.
        """
        require_safetensors(folder)
        self.name, self._folder, self._size = name, folder, batch_images
        self._max_new_tokens, self._prompt = max_new_tokens, prompt
        self.outputs = (name,)
        settings = {"batch": batch_images, "max_new_tokens": max_new_tokens, "prompt": prompt}
        self.version = weights_version(folder, "blip2", _VERSION, settings)
        self._loaded: tuple[Any, Any, Any] | None = None

    def __call__(self, batch: Batch) -> Batch:
        """See Scorer."""
        torch, model, processor = self._loaded = self._loaded or self._load()
        pixels, errors = decoded_images(batch)
        captions = np.full(len(pixels), None, dtype=object)
        good = [row for row, one in enumerate(pixels) if one is not None]
        if not good:
            return {self.name: captions, f"{self.name}_error": errors}
        images = filled_up([pixels[row] for row in good], self._size)
        given = processor(
            images=images, text=[self._prompt] * len(images), return_tensors="pt", input_data_format="channels_last"
        ).to(model.device)
        with torch.inference_mode():
            tokens = model.generate(**given, max_new_tokens=self._max_new_tokens, do_sample=False, num_beams=1)
        texts = processor.batch_decode(tokens[: len(good)], skip_special_tokens=True)
        for row, text in zip(good, texts, strict=True):
            caption = clean_text(text.removeprefix(self._prompt))
            captions[row] = caption or None
            errors[row] = None if caption else "the caption is empty"
        return {self.name: captions, f"{self.name}_error": errors}

    def _load(self) -> tuple[Any, Any, Any]:
        import torch
        from transformers import Blip2ForConditionalGeneration, Blip2Processor

        model = Blip2ForConditionalGeneration.from_pretrained(
            self._folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        processor = Blip2Processor.from_pretrained(self._folder, local_files_only=True, backend="pil")
        return torch, model.eval().to(device()), processor
