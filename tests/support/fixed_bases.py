"""CLIP and SigLIP folders as transformers saves them, with random weights and three blocks."""

import json
from pathlib import Path
from typing import Any

import torch

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's, which CLIP and DFN use."""
_SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 3}


def write_clip(folder: Path, *, whole: bool = False, side_px: int = 56, **changes: Any) -> Path:
    """CLIP's vision tower, or the whole model as openai/clip-* and apple/DFN5B-* are."""
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

    vision = _SIZES | {"image_size": side_px, "patch_size": 14} | changes
    torch.manual_seed(1)
    if whole:
        text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        model: Any = CLIPModel(CLIPConfig(vision_config=vision, text_config=text | {"vocab_size": 99}))
    else:
        model = CLIPVisionModel(CLIPVisionConfig(**vision))
    _save(model, folder)
    preparation = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side_px},
        "do_center_crop": True,
        "crop_size": {"height": side_px, "width": side_px},
        "do_normalize": True,
        "resample": 3,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation), encoding="utf-8")
    return folder


def write_fixed_siglip(folder: Path, *, side_px: int = 60, **changes: Any) -> Path:
    """SigLIP's vision tower with its preprocessor_config.json."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(1)
    _save(SiglipVisionModel(SiglipVisionConfig(**_SIZES | {"image_size": side_px, "patch_size": 14} | changes)), folder)
    preparation = {
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": True,
        "size": {"height": side_px, "width": side_px},
        "do_normalize": True,
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preparation), encoding="utf-8")
    return folder


def _save(model: Any, folder: Path) -> None:
    """Save with weights wide enough that a wrong activation or position shows."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.08)
            elif "norm" not in name:
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
