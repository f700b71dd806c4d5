"""CLIP features of images and texts, from a folder of transformers or of open_clip.

Both layouts are loaded by their own library, so what is computed is what they compute:

    config.json, model.safetensors, preprocessor_config.json, tokenizer...      transformers' CLIPModel
    open_clip_config.json, open_clip_model.safetensors, tokenizer...            open_clip (DFN, DataComp, LAION)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vl3.curation.pictures import decoded
from vl3.curation.scorer import Batch
from vl3.curation.scorers.weights import device, require_safetensors, weights_version

_VERSION = 1
OPEN_CLIP_CONFIG = "open_clip_config.json"


class ClipModel(Protocol):
    """Image and text features of one model, not normalised."""

    dim: int

    def images(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Features (N, D) of images (H, W, 3)."""
        ...

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Features (N, D) of texts, cut to what the model reads."""
        ...


def load_clip(folder: Path) -> ClipModel:
    """The model of a folder, in either layout.

    Raises:
        ConfigError: it is neither, or its weights are not safetensors.
    """
    require_safetensors(folder)
    return _OpenClip(folder) if (folder / OPEN_CLIP_CONFIG).exists() else _TransformersClip(folder)


class ClipFeatures:
    """Features of images, normalised to length 1."""

    inputs = ("bytes",)

    def __init__(self, name: str, folder: Path, batch_images: int) -> None:
        """Make the scorer; its model is loaded with the first batch.

        Args:
            name: its name, and that of its column.
            folder: the model.
            batch_images: images that the model is given together.
        """
        self.name, self._folder, self._size = name, folder, batch_images
        self.outputs = (name,)
        self.version = weights_version(folder, "clip", _VERSION, {"batch": batch_images})
        self._model: ClipModel | None = None

    def __call__(self, batch: Batch) -> Batch:
        """See Scorer."""
        self._model = self._model or load_clip(self._folder)
        pixels, errors = decoded_images(batch)
        features = np.full((len(pixels), self._model.dim), np.nan, dtype=np.float32)
        good = [row for row, one in enumerate(pixels) if one is not None]
        if good:
            given = filled_up([pixels[row] for row in good], self._size)
            features[good] = unit(self._model.images(given)[: len(good)])
        return {self.name: features, f"{self.name}_error": errors}


class ClipSimilarity:
    """Cosine similarity of an image's features and a text column, of the same model."""

    def __init__(self, name: str, folder: Path, features: str, text: str, batch_images: int) -> None:
        """Make the scorer.

        Args:
            name: its name, and that of its column.
            folder: the model that made the features.
            features: column with the features of the image.
            text: column with the text.
            batch_images: texts that the model is given together.
        """
        self.name, self._folder, self._size = name, folder, batch_images
        self.inputs, self.outputs = (features, text), (name,)
        self._features, self._text = features, text
        settings = {"batch": batch_images, "features": features, "text": text}
        self.version = weights_version(folder, "similarity", _VERSION, settings)
        self._model: ClipModel | None = None

    def __call__(self, batch: Batch) -> Batch:
        """See Scorer."""
        self._model = self._model or load_clip(self._folder)
        length = len(batch["sha256"])
        scores = np.full(length, np.nan, dtype=np.float32)
        errors = np.full(length, None, dtype=object)
        good = [row for row, text in enumerate(batch[self._text]) if isinstance(text, str) and text.strip()]
        for row in set(range(length)) - set(good):
            errors[row] = f"there is no text in {self._text}"
        if good:
            texts = filled_up([batch[self._text][row] for row in good], self._size)
            text_ND = unit(self._model.texts(texts)[: len(good)])
            image_ND = unit(batch[self._features][good].astype(np.float32))
            scores[good] = (text_ND * image_ND).sum(axis=1)
        return {self.name: scores, f"{self.name}_error": errors}


def decoded_images(batch: Batch) -> tuple[list[np.ndarray | None], np.ndarray]:
    """The images of a batch, None where one cannot be decoded, and the reasons."""
    pixels, errors = [], np.full(len(batch["sha256"]), None, dtype=object)
    for row, (image_HWC, problem) in enumerate(decoded(batch)):
        pixels.append(image_HWC)
        errors[row] = problem
    return pixels, errors


def filled_up(items: list[Any], size: int) -> list[Any]:
    """A batch of always the same shape, whose last item is repeated: so no result depends on how full a batch was."""
    return [*items, *([items[-1]] * (size - len(items)))]


def unit(features_ND: np.ndarray) -> np.ndarray:
    """Features of length 1; NaN stays NaN, and a row of zeros becomes NaN, which is no direction."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return features_ND / np.linalg.norm(features_ND, axis=1, keepdims=True)


class _TransformersClip:
    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        self._torch, self._device = torch, device()
        self._model = CLIPModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        self._model.eval().to(self._device)
        self._processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._max_tokens = self._model.config.text_config.max_position_embeddings
        self.dim = int(self._model.config.projection_dim)

    def images(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        given = self._processor(images=list(pixels), return_tensors="pt", input_data_format="channels_last")
        with self._torch.inference_mode():
            return _array(self._model.get_image_features(given["pixel_values"].to(self._device)))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        given = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._device)
        with self._torch.inference_mode():
            return _array(self._model.get_text_features(given["input_ids"], given["attention_mask"]))


class _OpenClip:
    def __init__(self, folder: Path) -> None:
        import open_clip
        import torch
        from PIL import Image

        self._torch, self._device, self._from_array = torch, device(), Image.fromarray
        name = f"local-dir:{folder}"
        self._model, self._transform = open_clip.create_model_from_pretrained(name, device=self._device)
        self._model.eval()
        self._tokenizer = open_clip.get_tokenizer(name)
        self.dim = int(open_clip.get_model_config(name)["embed_dim"])

    def images(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        given = self._torch.stack([self._transform(self._from_array(one)) for one in pixels]).to(self._device)
        with self._torch.inference_mode():
            return _array(self._model.encode_image(given))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        with self._torch.inference_mode():
            return _array(self._model.encode_text(self._tokenizer(list(texts)).to(self._device)))


def _array(features: Any) -> np.ndarray:
    """Features as an array; transformers gives them alone or as `pooler_output`, by version."""
    tensor = getattr(features, "pooler_output", features)
    return tensor.float().cpu().numpy()
