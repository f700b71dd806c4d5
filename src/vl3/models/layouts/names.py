"""The tensor names and config.json of VideoLLaMA3 checkpoints in each layout; no torch.

Ours is the official layout. Two others can be read, and transformers' can also be written:

    part        official / ours            training repository                         transformers
    encoder     model.vision_encoder.*     model.vision_encoder.vision_encoder.*       model.vision_model.*
    projector   model.mm_projector.*       the same                                    model.projector.*
    decoder     model.{embed_tokens,...}   the same                                    model.language_model.*
    head        lm_head.weight             the same                                    lm_head.weight
"""

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Any

from vl3.conventions import PATCH_SIZE_PX
from vl3.errors import ConfigError
from vl3.models.config import MODEL_TYPE, EncoderConfig, TextConfig, VideoLlama3Config, VisionConfig
from vl3.models.fixed_config import FixedVisionConfig

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
TRANSFORMERS_MODEL_TYPE = "video_llama_3"
"""`model_type` of transformers' VideoLlama3ForConditionalGeneration."""
CARRIED_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range", "max_window_layers", "use_cache")
"""Keys of a decoder's config other than sizes; they are copied unchanged."""
_TORCH_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_DOUBLED_PREFIX = "model.vision_encoder.vision_encoder."
_NAVIT = "SigLIP-NaViT"
_NAVIT_CONFIG = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": PATCH_SIZE_PX,
}
"""The encoder that the training repository's configs give by name, without its sizes."""


class Layout(StrEnum):
    """Layouts of a checkpoint folder."""

    OFFICIAL = "official"
    TRAINING = "training"
    TRANSFORMERS = "transformers"


_PREFIXES: dict[Layout, tuple[tuple[str, str], ...]] = {
    Layout.OFFICIAL: (),
    Layout.TRAINING: (("model.vision_encoder.", _DOUBLED_PREFIX),),
    Layout.TRANSFORMERS: (
        ("model.vision_encoder.", "model.vision_model."),
        ("model.mm_projector.", "model.projector."),
        ("model.", "model.language_model."),
    ),
}


def stored_name(official: str, layout: Layout) -> str:
    """A tensor's name in a layout, given its official name."""
    for prefix, other in _PREFIXES[layout]:
        if official.startswith(prefix):
            return other + official.removeprefix(prefix)
    return official


def detect_layout(config: dict[str, Any], names: Iterable[str], where: str) -> Layout:
    """The layout of a folder, from its config.json and the names of its tensors.

    Raises:
        ConfigError: config.json belongs to another model.
    """
    model_type = config.get("model_type")
    if model_type == TRANSFORMERS_MODEL_TYPE:
        return Layout.TRANSFORMERS
    if model_type == MODEL_TYPE:
        return Layout.TRAINING if any(name.startswith(_DOUBLED_PREFIX) for name in names) else Layout.OFFICIAL
    raise ConfigError(
        f"{where}: model_type={model_type!r} is neither {MODEL_TYPE!r} (official, ours) nor "
        f"{TRANSFORMERS_MODEL_TYPE!r} (transformers). Give the folder of a whole VideoLLaMA3 checkpoint."
    )


def expected_shapes(config: VideoLlama3Config) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by its official name."""
    width = config.text.hidden_size
    shapes = {f"model.vision_encoder.{name}": shape for name, shape in vision_shapes(config.vision).items()}
    for index, inputs in ((0, config.vision.hidden_size), (2, width)):
        shapes |= _linear(f"model.mm_projector.readout.{index}", inputs, width)
    return shapes | language_shapes(config.text)


def language_shapes(text: TextConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the decoder and its head by its official name, which is that of Qwen2."""
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (text.vocab_size, text.hidden_size)}
    for index in range(text.num_hidden_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in _block_shapes(text).items()}
    shapes["model.norm.weight"] = (text.hidden_size,)
    return shapes if text.tie_word_embeddings else shapes | {HEAD: (text.vocab_size, text.hidden_size)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def vision_shapes(vision: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the encoder by its name without prefix."""
    if isinstance(vision, FixedVisionConfig):
        return _fixed_embedding_shapes(vision) | _encoder_block_shapes(vision)
    width = vision.hidden_size
    shapes = _patch_shapes(vision) | {"embeddings.patch_embedding.bias": (width,)}
    return shapes | _encoder_block_shapes(vision) | _norm("post_layernorm", width)


def _patch_shapes(vision: EncoderConfig) -> dict[str, tuple[int, ...]]:
    side = vision.patch_size
    return {"embeddings.patch_embedding.weight": (vision.hidden_size, vision.num_channels, side, side)}


def _fixed_embedding_shapes(vision: FixedVisionConfig) -> dict[str, tuple[int, ...]]:
    """What stands before the blocks: CLIP has a class token and a norm, SigLIP a bias."""
    width = vision.hidden_size
    shapes = _patch_shapes(vision)
    shapes["embeddings.position_embedding.weight"] = (vision.num_positions, width)
    if vision.has_class_token:
        return shapes | {"embeddings.class_embedding": (width,)} | _norm("pre_layrnorm", width)
    return shapes | {"embeddings.patch_embedding.bias": (width,)}


def _encoder_block_shapes(vision: EncoderConfig) -> dict[str, tuple[int, ...]]:
    width, inner = vision.hidden_size, vision.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(vision.num_hidden_layers):
        block = f"encoder.layers.{index}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{block}.self_attn.{part}", width, width)
        shapes |= _linear(f"{block}.mlp.fc1", width, inner) | _linear(f"{block}.mlp.fc2", inner, width)
        shapes |= _norm(f"{block}.layer_norm1", width) | _norm(f"{block}.layer_norm2", width)
    return shapes


def _block_shapes(text: TextConfig) -> dict[str, tuple[int, ...]]:
    width, inner = text.hidden_size, text.intermediate_size
    key_width = width // text.num_attention_heads * text.num_key_value_heads
    return {
        **_linear("self_attn.q_proj", width, width),
        **_linear("self_attn.k_proj", width, key_width),
        **_linear("self_attn.v_proj", width, key_width),
        "self_attn.o_proj.weight": (width, width),
        "mlp.gate_proj.weight": (inner, width),
        "mlp.up_proj.weight": (inner, width),
        "mlp.down_proj.weight": (width, inner),
        "input_layernorm.weight": (width,),
        "post_attention_layernorm.weight": (width,),
    }


def read_config(data: dict[str, Any], layout: Layout, image_token_id: int, where: str) -> VideoLlama3Config:
    """The sizes in a config.json of any layout.

    Args:
        data: the file's content.
        layout: its layout.
        image_token_id: id of `<image>`, which transformers' layout does not contain.
        where: the file, for messages.

    Raises:
        ConfigError: a value is missing, contradicts another or is not supported.
    """
    if layout != Layout.TRANSFORMERS:
        return VideoLlama3Config.from_dict(with_known_encoder(data), where)
    for group in ("text_config", "vision_config"):
        if not isinstance(data.get(group), dict):
            raise ConfigError(f"{where}: {group} is missing. Copy the whole checkpoint folder again.")
    vision = data["vision_config"]
    if "patch_size" not in vision:
        raise ConfigError(f"{where}: vision_config: patch_size is missing. Copy the whole checkpoint folder again.")
    rope = vision.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise ConfigError(f"{where}: vision_config: rope_parameters={rope!r:.80} is not a group. Restore the file.")
    text = TextConfig.from_dict(data["text_config"], f"{where}: text_config")
    return VideoLlama3Config(
        vision=VisionConfig.from_dict({"rope_theta": 10000.0} | rope | vision, f"{where}: vision_config"),
        text=replace(text, tie_word_embeddings=text.tie_word_embeddings or bool(data.get("tie_word_embeddings"))),
        image_token_id=image_token_id,
    )


def with_known_encoder(data: dict[str, Any]) -> dict[str, Any]:
    """A config.json with the encoder's sizes filled in if it only names SigLIP-NaViT (training repository)."""
    named = str(data.get("vision_encoder") or "").rstrip("/").rpartition("/")[2]
    if data.get("vision_encoder_config") is None and named == _NAVIT:
        return data | {"vision_encoder_config": dict(_NAVIT_CONFIG)}
    return data


def carried_values(data: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """The decoder's values in a config.json other than its sizes."""
    group = data["text_config"] if layout == Layout.TRANSFORMERS else data
    return {key: group[key] for key in CARRIED_KEYS if group.get(key) is not None}


def official_config(config: VideoLlama3Config, carried: dict[str, Any], dtype: str, *, difffp: bool) -> dict[str, Any]:
    """The official config.json; `dtype` is a name in safetensors."""
    return config.to_dict() | carried | {"use_token_compression": difffp, "torch_dtype": _TORCH_TYPES[dtype]}


def transformers_config(
    config: VideoLlama3Config, carried: dict[str, Any], dtype: str, *, image_pad_id: int, video_pad_id: int
) -> dict[str, Any]:
    """config.json of transformers' VideoLlama3ForConditionalGeneration; `dtype` is a name in safetensors.

    Raises:
        ConfigError: the encoder has a fixed resolution, which that class cannot have.
    """
    if isinstance(config.vision, FixedVisionConfig):
        raise ConfigError(
            f"the model's encoder is a {config.vision.model_type} of fixed resolution, which transformers' VideoLlama3 "
            "cannot hold: it knows only the any-resolution encoder. Keep the model in our layout."
        )
    vision = config.vision.to_dict()
    vision_theta = vision.pop("rope_theta")
    text = config.text.to_dict()
    return {
        "architectures": ["VideoLlama3ForConditionalGeneration"],
        "model_type": TRANSFORMERS_MODEL_TYPE,
        "dtype": _TORCH_TYPES[dtype],
        "image_token_id": image_pad_id,
        "video_token_id": video_pad_id,
        "tie_word_embeddings": config.text.tie_word_embeddings,
        "text_config": {
            "model_type": "qwen2",
            **text,  # transformers 4.57 reads rope_theta here, transformers 5 in the group below
            "rope_parameters": {"rope_type": "default", "rope_theta": config.text.rope_theta},
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            **carried,
        },
        "vision_config": {
            "model_type": "video_llama_3_vision",
            **vision,
            "rope_parameters": {"rope_type": "axial", "rope_theta": vision_theta},
        },
    }
