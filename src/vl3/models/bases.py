"""The pretrained folders that a model starts from, checked by their config.json and the headers of their weights.

No torch and no weights are needed, so a wrong or damaged base is refused before anything is trained. An encoder may be
transformers' SigLIP (the vision tower alone or the whole model) or be part of a VideoLLaMA3 in any layout; at a fixed
resolution also transformers' CLIP. A decoder is transformers' Qwen2. Weights are one safetensors file, or several with
an index, in bf16, fp16, fp32 or fp64.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl3.config.picture import FixedPicture
from vl3.config.run import ModelConfig
from vl3.conventions import PATCH_SIZE_PX
from vl3.errors import ConfigError
from vl3.models.config import EncoderConfig, TextConfig, VideoLlama3Config, VisionConfig, read_encoder
from vl3.models.convert import require_equal, require_weights
from vl3.models.fixed_config import CLIP_TYPE, FIXED_TYPES, SIGLIP_TYPE, read_fixed
from vl3.models.layouts.names import EMBEDDING, HEAD, language_shapes, vision_shapes, with_known_encoder
from vl3.models.stored import CONFIG_FILE, StoredTensor, check_tensors, read_headers, read_json
from vl3.models.vocabulary import CHAT_TOKENS, IMAGE_TOKEN, Vocabulary

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
_NOT_IN_FIXED = ("embeddings.position_ids", "post_layernorm.", "head.")
"""Parts of CLIP and SigLIP that come after the features, or that follow from the sizes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedWanted:
    """How a recipe wants an encoder of fixed resolution."""

    side_px: int
    """Side of the square to which pictures are resized, which must be the encoder's own."""
    skipped_blocks: int
    """Blocks at its end that do not run."""

    @classmethod
    def of(cls, model: ModelConfig) -> "FixedWanted | None":
        """What a recipe's `model` asks for; None for pictures of any size."""
        if model.picture_side_px is None:
            return None
        return cls(side_px=model.picture_side_px, skipped_blocks=model.skipped_blocks)


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionBase:
    """A checked encoder."""

    config: EncoderConfig
    """Its sizes."""
    tensors: Mapping[str, StoredTensor]
    """Where its tensors are, by name without prefix: `post_layernorm.weight`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageBase:
    """A checked decoder."""

    config: TextConfig
    """Its sizes."""
    tensors: Mapping[str, StoredTensor]
    """Where its tensors are, by name in Qwen2: `model.norm.weight`; the head only if it is not tied."""
    image_token_id: int
    """Id of `<image>`: the tokenizer's, or the one it would get as the next token."""


def check_bases(
    vision: Path, language: Path, *, vision_width: int | None = None, fixed: FixedWanted | None = None
) -> VideoLlama3Config:
    """Check both folders; returns the sizes of the model that they make.

    Raises:
        ConfigError: see open_vision and open_language; or `<image>` has no row in the vocabulary.
    """
    encoder, decoder = open_vision(vision, width=vision_width, fixed=fixed), open_language(language)
    return joined(encoder, decoder)


def joined(encoder: VisionBase, decoder: LanguageBase) -> VideoLlama3Config:
    """The sizes of the model that an encoder and a decoder make.

    Raises:
        ConfigError: the vocabulary has no row for `<image>`.
    """
    return VideoLlama3Config(vision=encoder.config, text=decoder.config, image_token_id=decoder.image_token_id)


def open_vision(folder: Path, *, width: int | None = None, fixed: FixedWanted | None = None) -> VisionBase:
    """Check the folder of an encoder.

    Args:
        folder: a SigLIP, or a VideoLLaMA3 checkpoint, whose encoder is used; with `fixed` also a CLIP.
        width: the width that the recipe asks for; None takes any.
        fixed: at which resolution it is used as it is; None makes the any-resolution encoder of it.

    Raises:
        ConfigError: another model, another width or patch size, or a tensor that is missing, unknown or has another
            shape or type; a file that is missing or damaged.
    """
    if fixed is not None:
        return _open_fixed(folder, width, fixed)
    whole = read_json(folder / CONFIG_FILE)
    data = _vision_group(whole)
    _refuse_fixed(folder, whole, data)
    config = VisionConfig.from_dict(data, str(folder / CONFIG_FILE))
    _check_sizes(folder, config, width)
    stored = read_headers(folder)
    prefix = next((one for one in _VISION_PREFIXES if f"{one}post_layernorm.weight" in stored), None)
    if prefix is None:
        raise ConfigError(
            f"{folder}: there is no tensor 'post_layernorm.weight' with any known prefix, so this is not a "
            "SigLIP vision tower. Point model.vision_base at a SigLIP vision model or a VideoLLaMA3 checkpoint."
        )
    expected = {prefix + name: shape for name, shape in vision_shapes(config).items()}
    drop = tuple(prefix + part for part in _NOT_IN_AVT)
    dropped = [name for name in stored if name.startswith(drop) or not name.startswith(prefix)]
    check_tensors(folder, stored, expected, dropped)
    tensors = {name.removeprefix(prefix): stored[name] for name in expected}
    require_weights(tensors)
    return VisionBase(config=config, tensors=tensors)


def picture_of(folder: Path) -> FixedPicture | None:
    """The square that the encoder of one of our checkpoints takes; None if it takes pictures of any size.

    Raises:
        ConfigError: config.json is missing or damaged.
    """
    where = folder / CONFIG_FILE
    group = read_json(where).get("vision_encoder_config")
    if not isinstance(group, dict) or group.get("model_type") not in FIXED_TYPES:
        return None
    return read_encoder(group, f"{where}: vision_encoder_config").picture


def _open_fixed(folder: Path, width: int | None, wanted: FixedWanted) -> VisionBase:
    """A CLIP or SigLIP as it is: its tensors up to the last block that runs."""
    config = read_fixed(folder, wanted.skipped_blocks)
    _check_sizes(folder, config, width)
    if config.image_size != wanted.side_px:
        raise ConfigError(
            f"{folder / CONFIG_FILE}: the encoder takes pictures of {config.image_size} px (image_size), but the "
            f"recipe asks for {wanted.side_px} (model.picture_side_px), by which its rows are planned. Point "
            f"model.vision_base at an encoder of that size, or set model.picture_side_px={config.image_size}."
        )
    stored = read_headers(folder)
    anchor = "embeddings.position_embedding.weight"
    prefix = next((one for one in _VISION_PREFIXES if f"{one}{anchor}" in stored), None)
    if prefix is None:
        raise ConfigError(
            f"{folder}: there is no tensor {anchor!r} with any known prefix, so this is no vision tower with learned "
            "positions. Point model.vision_base at a CLIP or a SigLIP in transformers' layout."
        )
    expected = {prefix + name: shape for name, shape in vision_shapes(config).items()}
    unused = (*_NOT_IN_FIXED, *_later_blocks(prefix, stored, config.num_hidden_layers))
    drop = tuple(prefix + part for part in unused)
    dropped = [name for name in stored if name.startswith(drop) or not name.startswith(prefix)]
    check_tensors(folder, stored, expected, dropped)
    tensors = {name.removeprefix(prefix): stored[name] for name in expected}
    require_weights(tensors)
    return VisionBase(config=config, tensors=tensors)


def _later_blocks(prefix: str, stored: Mapping[str, StoredTensor], num_blocks: int) -> list[str]:
    """The names of the blocks that do not run: of 24 with 23 that run, `encoder.layers.23.`."""
    start = f"{prefix}encoder.layers."
    numbers = {name.removeprefix(start).partition(".")[0] for name in stored if name.startswith(start)}
    return [f"encoder.layers.{one}." for one in sorted(numbers) if one.isdecimal() and int(one) >= num_blocks]


def _refuse_fixed(folder: Path, whole: dict[str, Any], group: dict[str, Any]) -> None:
    """Refuse an encoder that has learned positions only, where pictures of any size are asked for."""
    kinds, side = {whole.get("model_type"), group.get("model_type")}, group.get("image_size")
    if kinds & {"clip", CLIP_TYPE} or (group.get("model_type") == SIGLIP_TYPE and "vision_encoder_config" in whole):
        raise ConfigError(
            f"{folder / CONFIG_FILE}: the encoder ({group.get('model_type') or 'clip'}) takes pictures "
            f"of one size only, {side} px: the any-resolution encoder is made of a SigLIP. Set "
            f"model.picture_side_px={side}, or point model.vision_base at a SigLIP."
        )


def open_language(folder: Path) -> LanguageBase:
    """Check the folder of a decoder, with its tokenizer.

    Raises:
        ConfigError: another model than Qwen2, a tokenizer without the chat tokens or with ids beyond the embedding, a
            tensor that is missing, unknown or has another shape or type; a file that is missing or damaged.
    """
    data, where = read_json(folder / CONFIG_FILE), str(folder / CONFIG_FILE)
    if data.get("model_type") != "qwen2":
        raise ConfigError(
            f"{where}: model_type={data.get('model_type')!r} is not 'qwen2'. The decoder must be a "
            "Qwen2 or Qwen2.5. Point model.language_base at such a folder."
        )
    config = TextConfig.from_dict(data, where)
    stored, expected = read_headers(folder), language_shapes(config)
    dropped = [HEAD] if config.tie_word_embeddings else []
    check_tensors(folder, stored, expected, dropped)
    if dropped and HEAD in stored:
        require_equal(folder, stored, HEAD, EMBEDDING)
    tensors = {name: stored[name] for name in expected}
    require_weights(tensors)
    vocabulary = Vocabulary(folder)
    return LanguageBase(config=config, tensors=tensors, image_token_id=vocabulary.ensure(IMAGE_TOKEN))


def check_chat_tokens(folder: Path, vocab_size: int) -> None:
    """Check that a tokenizer can write chats, and that every id has a row of the embedding.

    Raises:
        ConfigError: it cannot; the message names the tokens, or the highest id and the number of rows.
    """
    vocabulary = Vocabulary(folder)
    missing = [token for token in CHAT_TOKENS if vocabulary.find(token) is None]
    if missing:
        raise ConfigError(
            f"{vocabulary.path} has no token {', '.join(missing)}, which the chat format needs. Use a model with the "
            "tokenizer of a Qwen2."
        )
    vocabulary.ensure(IMAGE_TOKEN)
    vocabulary.require_room(vocab_size)


def check_patch_size(folder: Path, patch_size: int) -> None:
    """Raise ConfigError unless an encoder takes the patches that vl3 prepares."""
    if patch_size != PATCH_SIZE_PX:
        raise ConfigError(
            f"{folder / CONFIG_FILE}: the encoder's patch_size is {patch_size}, but vl3 prepares "
            f"media in patches of {PATCH_SIZE_PX} pixels. Use a model with that patch size."
        )


def _check_sizes(folder: Path, config: EncoderConfig, width: int | None) -> None:
    check_patch_size(folder, config.patch_size)
    if width is not None and config.hidden_size != width:
        raise ConfigError(
            f"{folder / CONFIG_FILE}: the encoder is {config.hidden_size} wide (hidden_size), but the recipe asks for "
            f"{width} (model.vision_width). Point model.vision_base at an encoder of that width, or set "
            f"model.vision_width={config.hidden_size} if this one is meant."
        )


def _vision_group(data: dict[str, Any]) -> dict[str, Any]:
    """The vision tower's settings inside a config.json."""
    data = with_known_encoder(data)
    for group in ("vision_encoder_config", "vision_config"):
        if isinstance(data.get(group), dict):
            return data[group]
    return data
