"""The model that stage 1 starts from: pretrained vision tower, pretrained decoder, randomly initialised projector."""

from pathlib import Path
from typing import Any

import torch

from vl3.errors import ConfigError
from vl3.models.config import TextConfig, VideoLlama3Config, VisionConfig
from vl3.models.layouts.names import with_known_encoder
from vl3.models.model import VideoLlama3
from vl3.models.projector import Projector
from vl3.models.stored import CONFIG_FILE, read_json
from vl3.models.tensors import TensorFolder
from vl3.models.vocabulary import IMAGE_TOKEN, Vocabulary
from vl3.models.weights import fill, repeated_head

_VISION_PREFIXES = (
    "model.vision_encoder.",
    "model.vision_encoder.vision_encoder.",
    "model.vision_model.",
    "vision_model.",
    "",
)
"""Prefixes of a vision tower's tensors: official checkpoint, training repository, transformers, SigLIP old and new."""
_NOT_IN_AVT = ("embeddings.position_embedding.", "head.")
"""Parts of SigLIP that AVT does not use: learned positions (2D-RoPE replaces them) and the pooling head."""


def assemble(vision_folder: Path, language_folder: Path, *, seed: int) -> VideoLlama3:
    """Join a vision folder and a Qwen2 folder into the model that stage 1 starts from.

    Args:
        vision_folder: transformers' SigLIP (vision or whole), or a VideoLLaMA3 checkpoint, whose encoder is used.
        language_folder: transformers' Qwen2ForCausalLM with tokenizer.json.
        seed: seed of the projector's initial weights.

    Raises:
        ConfigError: a folder belongs to another model, is damaged, or lacks a tensor.
    """
    vision_data, language_data = read_json(vision_folder / CONFIG_FILE), read_json(language_folder / CONFIG_FILE)
    config = VideoLlama3Config(
        vision=VisionConfig.from_dict(_vision_group(vision_data), str(vision_folder / CONFIG_FILE)),
        text=TextConfig.from_dict(_require_qwen2(language_data, language_folder), str(language_folder / CONFIG_FILE)),
        image_token_id=image_token_id(language_folder),
    )
    model = VideoLlama3.empty(config)
    model.mm_projector = Projector(config.vision.hidden_size, config.text.hidden_size)
    model.mm_projector.draw(seed)
    tensors = _read_vision(model, TensorFolder(vision_folder))
    tensors |= _read_language(model, TensorFolder(language_folder))
    tensors |= {f"mm_projector.{name}": p.detach() for name, p in model.mm_projector.named_parameters()}
    return fill(model, tensors)


def image_token_id(folder: Path) -> int:
    """Id of `<image>` in a folder's tokenizer.json, or the id it would get if added as the next token.

    Raises:
        ConfigError: there is no tokenizer.json, or it has no vocabulary.
    """
    return Vocabulary(folder).ensure(IMAGE_TOKEN)


def _vision_group(data: dict[str, Any]) -> dict[str, Any]:
    """The vision tower's settings inside a config.json."""
    data = with_known_encoder(data)
    for group in ("vision_encoder_config", "vision_config"):
        if isinstance(data.get(group), dict):
            return data[group]
    return data


def _require_qwen2(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    if data.get("model_type") != "qwen2":
        raise ConfigError(
            f"{folder / CONFIG_FILE}: model_type={data.get('model_type')!r} is not 'qwen2'. The decoder must be a "
            "Qwen2 or Qwen2.5. Point model.language_base at such a folder."
        )
    return data


def _read_vision(model: VideoLlama3, source: TensorFolder) -> dict[str, torch.Tensor]:
    prefix = next((p for p in _VISION_PREFIXES if f"{p}post_layernorm.weight" in source.names), None)
    if prefix is None:
        raise ConfigError(
            f"{source.folder}: there is no tensor 'post_layernorm.weight' with any known prefix, so this is not a "
            "SigLIP vision tower. Point model.vision_base at a SigLIP vision model or a VideoLLaMA3 checkpoint."
        )
    expected = {prefix + name: tuple(p.shape) for name, p in model.vision_encoder.named_parameters()}
    drop = tuple(prefix + part for part in _NOT_IN_AVT)
    dropped = [name for name in source.names if name.startswith(drop) or not name.startswith(prefix)]
    source.check(expected, dropped)
    return {f"vision_encoder.{name.removeprefix(prefix)}": source.read(name, torch.float32) for name in expected}


def _read_language(model: VideoLlama3, source: TensorFolder) -> dict[str, torch.Tensor]:
    stored = {f"language_model.{name}": f"model.{name}" for name, _ in model.language_model.named_parameters()}
    if model.lm_head is not None:
        stored["lm_head.weight"] = "lm_head.weight"
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    source.check({official: shapes[name] for name, official in stored.items()}, repeated_head(model, source))
    return {name: source.read(official, torch.float32) for name, official in stored.items()}
