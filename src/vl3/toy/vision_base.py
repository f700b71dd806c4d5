"""Makes the tiny vision base: an encoder that predicts what each patch of the generated world shows, and where it is.

This is supervised classification, not SigLIP's contrastive objective, as the model card says. The result is a folder
that transformers loads as a SigLIP vision model. In addition to the trained tower it has the position embedding and the
pooling head of that format, which training never used and which stage 1 drops.
"""

import io
import logging
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from vl3.config.data import Category
from vl3.conventions import PATCH_SIZE_PX
from vl3.models.config import VisionConfig
from vl3.models.encoder import VisionEncoder
from vl3.toy.canvas import CELL_NAMES, Frame, cells
from vl3.toy.world import draw_scene

SIZES = VisionConfig(hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4)
CATEGORY_WEIGHTS = {
    Category.SCENE_IMAGE: 1.2,
    Category.SCENE_TEXT: 2.5,
    Category.DOCUMENT: 1.2,
    Category.CHART: 0.6,
    Category.FINE_GRAINED: 1.0,
    Category.MULTI_IMAGE: 0.3,
    Category.GENERAL_VIDEO: 0.5,
    Category.TEMPORAL_GROUNDING: 0.4,
}
"""How often each category is drawn; scene text has the highest weight because digits are the slowest to learn."""
EMPTY_WEIGHT = 0.25
"""Weight of empty patches, which are the most frequent."""
POSITION_WEIGHT = 0.5
"""Weight of predicting a patch's position in the picture: DiffFP later drops tokens, and with them their positions."""
SEED_SPACE = "base-vision"
BATCH_SIZE = 32
"""Number of pictures per step."""
PEAK_RATE = 2e-3
"""Peak learning rate."""
"""Scenes of the bases come from generators that no corpus uses."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VisionBatch:
    """Pictures with the labels and positions of their patches."""

    pixels_PC: Tensor
    grid_thw_I3: np.ndarray
    labels_P: Tensor
    positions_P2: Tensor
    """Row and column of each patch, scaled to -1 to 1 over the picture."""


def make_vision_base(folder: Path, *, steps: int, seed: int) -> dict:
    """Train the encoder and write it as a SigLIP vision folder.

    Args:
        folder: folder to write.
        steps: optimizer steps.
        seed: seed of the weights and the pictures.

    Returns:
        Facts for the model card, including the share of held-out patches that are named correctly.
    """
    torch.manual_seed(seed)
    encoder = VisionEncoder(SIZES)
    heads = nn.ModuleDict({"name": nn.Linear(128, len(CELL_NAMES)), "place": nn.Linear(128, 2)})
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    rng = random.Random(f"{SEED_SPACE}/{seed}")
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * rate_factor(step, steps)
        loss = _loss(encoder, heads, _draw_batch(rng, BATCH_SIZE))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            _log.info("vision base: step %d of %d, loss %.3f", step + 1, steps, loss.item())
    facts = {"steps": steps, "pictures": steps * BATCH_SIZE, "seed": seed, **_accuracy(encoder, heads, seed)}
    _save_siglip(encoder, folder)
    return facts


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up over 60 steps, then cosine to 3 %."""
    return min(1.0, (step + 1) / 60) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _loss(encoder: VisionEncoder, heads: nn.ModuleDict, batch: VisionBatch) -> Tensor:
    features_PD = _encode(encoder, batch)
    weights = torch.ones(len(CELL_NAMES))
    weights[0] = EMPTY_WEIGHT
    naming = functional.cross_entropy(heads["name"](features_PD), batch.labels_P, weights)
    placing = functional.mse_loss(heads["place"](features_PD), batch.positions_P2)
    return naming + POSITION_WEIGHT * placing


def _encode(encoder: VisionEncoder, batch: VisionBatch) -> Tensor:
    return encoder(batch.pixels_PC, batch.grid_thw_I3, np.ones(len(batch.grid_thw_I3), dtype=np.int64))


@torch.no_grad()
def _accuracy(encoder: VisionEncoder, heads: nn.ModuleDict, seed: int) -> dict[str, float]:
    """Share of correctly named patches and mean error of their position, on pictures not used in training."""
    batch = _draw_batch(random.Random(f"{SEED_SPACE}-heldout/{seed}"), 400)
    features_PD = _encode(encoder, batch)
    right_P = heads["name"](features_PD).argmax(-1) == batch.labels_P
    shown_P = batch.labels_P > 0
    digits_P = batch.labels_P >= CELL_NAMES.index("0")
    place_error = (heads["place"](features_PD) - batch.positions_P2).abs().mean()
    return {
        "accuracy_shown_patches": round(right_P[shown_P].float().mean().item(), 4),
        "accuracy_digit_patches": round(right_P[digits_P].float().mean().item(), 4),
        "mean_place_error": round(place_error.item(), 4),
    }


def _draw_batch(rng: random.Random, batch_size: int) -> VisionBatch:
    drawn = rng.choices(list(CATEGORY_WEIGHTS), list(CATEGORY_WEIGHTS.values()), k=batch_size)
    frames = [as_file(rng.choice(draw_scene(category, rng).frames), rng) for category in drawn]
    frames.sort(key=lambda frame: frame.labels_HW.shape)  # neighbours of equal size are encoded in one batch
    grids = [
        (1, frame.labels_HW.shape[0] // PATCH_SIZE_PX, frame.labels_HW.shape[1] // PATCH_SIZE_PX) for frame in frames
    ]
    pixels = np.concatenate([_patches(frame.pixels_HWC) for frame in frames])
    return VisionBatch(
        pixels_PC=torch.from_numpy(pixels).float().sub_(127.5).div_(127.5),
        grid_thw_I3=np.array(grids),
        labels_P=torch.from_numpy(np.concatenate([cells(frame.labels_HW, PATCH_SIZE_PX) for frame in frames])),
        positions_P2=torch.cat([patch_positions(height, width) for _, height, width in grids]),
    )


def as_file(frame: Frame, rng: random.Random) -> Frame:
    """The frame as if read from a file: often compressed as JPEG, and resized to whole patches."""
    image = Image.fromarray(frame.pixels_HWC)
    if rng.random() < 0.6:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(80, 97))
        image = Image.open(buffer)
    height, width = (round(side / PATCH_SIZE_PX) * PATCH_SIZE_PX for side in frame.labels_HW.shape)
    if rng.random() < 0.3:  # the size that merge 2 would give
        block_px = 2 * PATCH_SIZE_PX
        height, width = (max(1, round(side / block_px)) * block_px for side in frame.labels_HW.shape)
    labels = Image.fromarray(frame.labels_HW).resize((width, height), Image.Resampling.NEAREST)
    return Frame(np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)), np.asarray(labels))


def _patches(pixels_HWC: np.ndarray) -> np.ndarray:
    """Patches (P, 588) row by row, which is the order of merge 1."""
    rows, columns = pixels_HWC.shape[0] // PATCH_SIZE_PX, pixels_HWC.shape[1] // PATCH_SIZE_PX
    blocks = pixels_HWC.reshape(rows, PATCH_SIZE_PX, columns, PATCH_SIZE_PX, 3).transpose(0, 2, 4, 1, 3)
    return blocks.reshape(rows * columns, -1)


def patch_positions(rows: int, columns: int) -> Tensor:
    """Row and column (P, 2) of each patch, scaled to -1 to 1 over the picture: of 1 x 2 patches 0 -0.5 and 0 0.5."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([(row + 0.5) / rows, (column + 0.5) / columns], -1).reshape(-1, 2) * 2 - 1


def _save_siglip(encoder: VisionEncoder, folder: Path) -> None:
    """Write the tower into a transformers SigLIP vision model; parameters that our tower does not have are zero."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=SIZES.hidden_size,
        intermediate_size=SIZES.intermediate_size,
        num_hidden_layers=SIZES.num_hidden_layers,
        num_attention_heads=SIZES.num_attention_heads,
        patch_size=PATCH_SIZE_PX,
        image_size=4 * PATCH_SIZE_PX,
    )
    model = SiglipVisionModel(config)
    for parameter in model.parameters():
        parameter.data.zero_()
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in model.state_dict()) else ""
    tower = {prefix + name: tensor for name, tensor in encoder.state_dict().items()}
    _, unexpected = model.load_state_dict(tower, strict=False)
    assert not unexpected, unexpected
    model.save_pretrained(folder)
