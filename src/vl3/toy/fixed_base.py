"""Makes the tiny bases of the encoder ablation: a CLIP, a DFN and a SigLIP that take pictures of one size.

They learn what the tiny vision base learns (vl3.toy.vision_base): what each patch shows and where it is, from squares
that are made as their preprocessor_config.json says. That is supervised classification, not the contrastive training
whose names they carry; the names are those of the file formats. The features are those of the last block but one, so
the last block, the final norm and the pooling head are not trained, and are zero.
"""

import json
import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vl3.config.picture import Fit, FixedPicture
from vl3.conventions import PATCH_SIZE_PX
from vl3.data.sample.image import square_image
from vl3.data.sample.patches import patchify
from vl3.models.fixed_config import CLIP_TYPE, PICTURE_FILE, SIGLIP_TYPE, FixedVisionConfig
from vl3.models.fixed_encoder import FixedEncoder
from vl3.toy.canvas import CELL_NAMES, Frame, cells
from vl3.toy.vision_base import (
    BATCH_SIZE,
    CATEGORY_WEIGHTS,
    EMPTY_WEIGHT,
    PEAK_RATE,
    POSITION_WEIGHT,
    SEED_SPACE,
    as_file,
    patch_positions,
    rate_factor,
)
from vl3.toy.world import draw_scene

_log = logging.getLogger(__name__)

_CLIP_COLOURS = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
_HALF = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
_CLIP: dict[str, Any] = {"model_type": CLIP_TYPE, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, **_CLIP_COLOURS}
_SIGLIP: dict[str, Any] = {
    "model_type": SIGLIP_TYPE,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    **_HALF,
}
RUNNING_BLOCKS = 2
"""Blocks that are trained; the folder has one more, as the recipe skips one."""
FIXED_BASES = {
    name: FixedVisionConfig(
        **kind,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=RUNNING_BLOCKS,
        num_attention_heads=4,
        image_size=side_px,
        fit=fit,
    )
    for name, kind, width, side_px, fit in (
        ("tiny_clip", _CLIP, 64, 56, Fit.CROP),
        ("tiny_dfn", _CLIP, 80, 70, Fit.CROP),
        ("tiny_siglip", _SIGLIP, 72, 60, Fit.STRETCH),
    )
}
"""The encoders by the names of their folders: 4 x 4 patches, 5 x 5, and 4 x 4 with 4 px that are never seen."""


@dataclass(frozen=True, slots=True)
class SquareBatch:
    """Squares with the labels of their patches."""

    pixels_PC: Tensor
    labels_P: Tensor


def make_fixed_base(name: str, folder: Path, *, steps: int, seed: int) -> dict[str, Any]:
    """Train an encoder and write it as transformers' CLIP or SigLIP vision model, with preprocessor_config.json.

    Args:
        name: one of FIXED_BASES.
        folder: folder to write.
        steps: optimizer steps.
        seed: seed of the weights and the pictures.

    Returns:
        Facts for the model card, including the share of held-out patches that are named correctly.
    """
    torch.manual_seed(seed)
    config = FIXED_BASES[name]
    encoder = FixedEncoder(config)
    _draw(encoder)
    heads = nn.ModuleDict(
        {"name": nn.Linear(config.hidden_size, len(CELL_NAMES)), "place": nn.Linear(config.hidden_size, 2)}
    )
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    rng = random.Random(f"{SEED_SPACE}/{name}/{seed}")
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * rate_factor(step, steps)
        loss = _loss(encoder, heads, _draw_batch(rng, config.picture, BATCH_SIZE))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            _log.info("%s: step %d of %d, loss %.3f", name, step + 1, steps, loss.item())
    facts = {"steps": steps, "pictures": steps * BATCH_SIZE, "seed": seed, **_accuracy(encoder, heads, name, seed)}
    save_tower(encoder, folder)
    return facts


@torch.no_grad()
def _draw(encoder: FixedEncoder) -> None:
    """Positions and class token, which torch leaves at scales that training from scratch does not like."""
    encoder.embeddings.position_embedding.weight.normal_(std=0.02)
    if encoder.embeddings.class_embedding is not None:
        encoder.embeddings.class_embedding.normal_(std=0.02)


def _features(encoder: FixedEncoder, pixels_PC: Tensor) -> Tensor:
    rows, columns = encoder.smallest_grid
    items = len(pixels_PC) // (rows * columns)
    return encoder(pixels_PC, np.array([[1, rows, columns]] * items), np.ones(items, dtype=np.int64))


def _positions(encoder: FixedEncoder, num_patches: int) -> Tensor:
    rows, columns = encoder.smallest_grid
    return patch_positions(rows, columns).repeat(num_patches // (rows * columns), 1)


def _loss(encoder: FixedEncoder, heads: nn.ModuleDict, batch: SquareBatch) -> Tensor:
    features_PV = _features(encoder, batch.pixels_PC)
    weights = torch.ones(len(CELL_NAMES))
    weights[0] = EMPTY_WEIGHT
    naming = functional.cross_entropy(heads["name"](features_PV), batch.labels_P, weights)
    placing = functional.mse_loss(heads["place"](features_PV), _positions(encoder, len(features_PV)))
    return naming + POSITION_WEIGHT * placing


@torch.no_grad()
def _accuracy(encoder: FixedEncoder, heads: nn.ModuleDict, name: str, seed: int) -> dict[str, float]:
    """Share of correctly named patches and mean error of their position, on pictures not used in training."""
    batch = _draw_batch(random.Random(f"{SEED_SPACE}-heldout/{name}/{seed}"), encoder.config.picture, 400)
    features_PV = _features(encoder, batch.pixels_PC)
    right_P = heads["name"](features_PV).argmax(-1) == batch.labels_P
    place_error = (heads["place"](features_PV) - _positions(encoder, len(features_PV))).abs().mean()
    return {
        "accuracy_shown_patches": round(right_P[batch.labels_P > 0].float().mean().item(), 4),
        "accuracy_digit_patches": round(right_P[batch.labels_P >= CELL_NAMES.index("0")].float().mean().item(), 4),
        "mean_place_error": round(place_error.item(), 4),
    }


def _draw_batch(rng: random.Random, picture: FixedPicture, batch_size: int) -> SquareBatch:
    drawn = rng.choices(list(CATEGORY_WEIGHTS), list(CATEGORY_WEIGHTS.values()), k=batch_size)
    frames = [as_file(rng.choice(draw_scene(category, rng).frames), rng) for category in drawn]
    squares = np.stack([square_image(frame.pixels_HWC, picture) for frame in frames])
    labels = [cells(square_labels(frame, picture), PATCH_SIZE_PX) for frame in frames]
    pixels_PC, _ = patchify(squares, 1)
    return SquareBatch(pixels_PC=torch.from_numpy(pixels_PC), labels_P=torch.from_numpy(np.concatenate(labels)))


def square_labels(frame: Frame, picture: FixedPicture) -> np.ndarray:
    """The label of each pixel of a frame's square: of the nearest pixel at the place that it was resized from.

    28 x 56 labels cropped to 14 x 14: rows 1, 3, 5, ... of the 28, and columns 15, 17, 19, ... of the 56.
    """
    height, width = frame.labels_HW.shape
    side, short = picture.side_px, min(height, width)
    is_cropped = picture.fit is Fit.CROP
    resized = (int(side * height / short), int(side * width / short)) if is_cropped else (side, side)
    rows, columns = (
        np.minimum(((np.arange(picture.seen_px) + (new - side) // 2 + 0.5) * old / new).astype(np.int64), old - 1)
        for old, new in zip((height, width), resized, strict=True)
    )
    return frame.labels_HW[np.ix_(rows, columns)]


def save_tower(encoder: FixedEncoder, folder: Path) -> None:
    """Write an encoder as transformers' vision model with one more block, in bf16; what is not ours is zero."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

    config = encoder.config
    is_clip = config.has_class_token
    kept = {name: value for name, value in config.to_dict().items() if name not in _PREPARATION}
    sizes = kept | {"num_hidden_layers": config.num_hidden_layers + 1}
    sizes.pop("model_type")
    model: Any = (
        CLIPVisionModel(CLIPVisionConfig(**sizes)) if is_clip else SiglipVisionModel(SiglipVisionConfig(**sizes))
    )
    for parameter in model.parameters():
        parameter.data.zero_()
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in model.state_dict()) else ""
    tower = {prefix + name: tensor for name, tensor in encoder.state_dict().items()}
    _, unexpected = model.load_state_dict(tower, strict=False)
    assert not unexpected, unexpected
    model.to(torch.bfloat16).save_pretrained(folder)
    side = config.image_size
    square = {"height": side, "width": side}
    preparation = {
        "image_processor_type": "CLIPImageProcessor" if is_clip else "SiglipImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side} if config.fit == Fit.CROP else square,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.image_mean),
        "image_std": list(config.image_std),
    }
    if config.fit == Fit.CROP:
        preparation |= {"do_center_crop": True, "crop_size": square}
    (folder / PICTURE_FILE).write_text(json.dumps(preparation, indent=2) + "\n", encoding="utf-8")


_PREPARATION = ("fit", "image_mean", "image_std")
