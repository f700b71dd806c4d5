"""Sizes of the model that a recipe trains: read from its bases, or those that are published for the hub's."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources
from typing import Any, TypeVar

from vl3.config.run import ModelConfig
from vl3.conventions import PATCH_SIZE_PX
from vl3.errors import ConfigError
from vl3.models.config import EncoderConfig, TextConfig, VideoLlama3Config, VisionConfig
from vl3.models.fixed_config import CLIP_TYPE, SIGLIP_TYPE, FixedVisionConfig, fixed_of
from vl3.store.objects import open_store
from vl3.system.documents import parse_object
from vl3.system.uris import file_path

_SO400M = VisionConfig(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16)
"""config.json of google/siglip-so400m-patch14-384."""
_QWEN25_1_5B = TextConfig(
    vocab_size=151936,
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    max_position_embeddings=32768,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    tie_word_embeddings=True,
)
"""config.json of Qwen/Qwen2.5-1.5B-Instruct."""
_QWEN25_7B = TextConfig(
    vocab_size=152064,
    hidden_size=3584,
    intermediate_size=18944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
    max_position_embeddings=32768,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    tie_word_embeddings=False,
)
"""config.json of Qwen/Qwen2.5-7B-Instruct."""

PUBLISHED = {
    "vl3_2b": VideoLlama3Config(vision=_SO400M, text=_QWEN25_1_5B, image_token_id=151665),
    "vl3_7b": VideoLlama3Config(vision=_SO400M, text=_QWEN25_7B, image_token_id=151665),
}
"""The two models of the paper (arXiv 2501.13106)."""

VISION = {"google/siglip-so400m-patch14-384": _SO400M, "DAMO-NLP-SG/VideoLLaMA3-2B": _SO400M}
VISION |= {"DAMO-NLP-SG/VideoLLaMA3-7B": _SO400M, "DAMO-NLP-SG/VL3-SigLIP-NaViT": _SO400M}
TEXT = {"Qwen/Qwen2.5-1.5B-Instruct": _QWEN25_1_5B, "Qwen/Qwen2.5-1.5B": _QWEN25_1_5B}
TEXT |= {"Qwen/Qwen2.5-7B-Instruct": _QWEN25_7B, "Qwen/Qwen2.5-7B": _QWEN25_7B}
"""Bases of the hub whose sizes are known without asking it."""
_CONFIG = "config.json"
Sizes = TypeVar("Sizes", VisionConfig, FixedVisionConfig, TextConfig)


def _known(base: str, kind: str, width: int, inner: int, blocks: int, side_px: int) -> dict[str, dict[str, Any]]:
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": blocks, "num_attention_heads": 16}
    return {base: {"model_type": kind, "image_size": side_px, "patch_size": PATCH_SIZE_PX, **sizes}}


FIXED = {
    **_known("openai/clip-vit-large-patch14-336", CLIP_TYPE, 1024, 4096, 24, 336),
    **_known("apple/DFN5B-CLIP-ViT-H-14-378", CLIP_TYPE, 1280, 5120, 32, 378),
    **_known("google/siglip-so400m-patch14-384", SIGLIP_TYPE, 1152, 4304, 27, 384),
}
"""The same for the encoders of the ablation, which are used at their own resolution: their config.json."""


def model_sizes(model: ModelConfig) -> tuple[VideoLlama3Config, list[str]]:
    """Sizes of the model that a run trains, from the config.json of its bases, and a note for each that is assumed.

    Bases of the hub are not fetched for their sizes: those of the paper's two models are known, others are read where
    `vl3 base import` has put them.

    Raises:
        ConfigError: a base has no config.json, is another architecture, or is one of the hub that is not known.
        StorageError: the store cannot be read.
    """
    notes: list[str] = []
    vision: EncoderConfig
    if model.picture_side_px is None:
        vision = _sizes_of(model.vision_base, VISION, _read_vision, notes)
    else:
        skipped = model.skipped_blocks
        known = {name: fixed_of(data, name, skipped) for name, data in FIXED.items()}
        read = partial(_read_fixed, skipped_blocks=skipped)
        vision = _sizes_of(model.vision_base, known, read, notes)
    text = _sizes_of(model.language_base, TEXT, _read_text, notes)
    return VideoLlama3Config(vision=vision, text=text, image_token_id=0), notes


def _sizes_of(
    uri: str, known: Mapping[str, Sizes], read: Callable[[dict[str, Any], str], Sizes], notes: list[str]
) -> Sizes:
    scheme, _, name = uri.partition("://")
    if scheme == "package":
        package, _, path = name.partition("/")
        return read(_object(resources.files(package).joinpath(path, _CONFIG).read_bytes(), uri), uri)
    if scheme == "file":
        file = file_path(uri) / _CONFIG
        if not file.is_file():
            raise ConfigError(f"{file} does not exist, so the model's sizes are unknown. Give the folder of a model.")
        return read(_object(file.read_bytes(), str(file)), str(file))
    if scheme == "s3":
        content = open_store(uri).read(_CONFIG)
        if content is None:
            raise ConfigError(
                f"{uri}/{_CONFIG} does not exist, so the model's sizes are unknown. Import the base first."
            )
        return read(_object(content, uri), uri)
    found = known.get(name.partition("@")[0])
    if scheme == "hf" and found is not None:
        return found
    if scheme in ("run", "models:") or uri.startswith("models:/"):
        first = next(iter(known.values()))
        notes.append(f"{uri} is taken as the paper's: its sizes are known when the run has found it")
        return first
    raise ConfigError(
        f"the sizes of {uri} are not known without fetching it, so neither memory nor time can be computed. Known are "
        f"{', '.join(known)}. Bring it into a folder or the store with `vl3 base import`, and name that."
    )


def _object(content: bytes, where: str) -> dict[str, Any]:
    try:
        return parse_object(content)
    except ValueError as error:
        raise ConfigError(
            f"{where}: {_CONFIG} cannot be read ({error}). Restore it from the model's source."
        ) from error


def _read_vision(data: dict[str, Any], where: str) -> VisionConfig:
    """The vision tower's settings inside a config.json."""
    groups = (data.get(name) for name in ("vision_encoder_config", "vision_config"))
    return VisionConfig.from_dict(next((group for group in groups if isinstance(group, dict)), data), where)


def _read_fixed(data: dict[str, Any], where: str, *, skipped_blocks: int) -> FixedVisionConfig:
    return fixed_of(data, where, skipped_blocks)


def _read_text(data: dict[str, Any], where: str) -> TextConfig:
    if data.get("model_type") not in ("qwen2", "videollama3_qwen2"):
        raise ConfigError(
            f"{where}: model_type={data.get('model_type')!r} is not 'qwen2', the only decoder of this method. Point "
            "model.language_base at a Qwen2 or Qwen2.5 folder."
        )
    return TextConfig.from_dict(data, where)
