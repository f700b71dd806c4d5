"""Small models for curation in the formats of the real ones: random weights, real files.

    curation_clip        CLIPModel of transformers, with its image processor and tokenizer
    curation_blip2       Blip2ForConditionalGeneration, with its processor
    curation_aesthetic   LAION's aesthetic predictor, for features of 32 numbers
    curation_watermark   ViTForImageClassification with the labels `no watermark` and `watermark`

Their scores mean nothing, but they are numbers of the right kind, always the same for the same image.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

FEATURES = 32
IMAGE_PX = 32
_SEED = 20250122
_HEAD_SIZES = (FEATURES, 1024, 128, 64, 16, 1)


def write_curation_models(folder: Path) -> list[Path]:
    """Write all four below a folder; returns their folders."""
    import torch

    made = []
    for number, (name, write) in enumerate(_MODELS.items()):
        torch.manual_seed(_SEED + number)
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        write(target)
        made.append(target)
    return made


def write_open_clip(folder: Path) -> None:
    """A small model in open_clip's own format, with its word list."""
    import json

    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(_SEED)
    vision = {"image_size": IMAGE_PX, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = {"embed_dim": FEATURES, "vision_cfg": vision, "text_cfg": text}
    model = open_clip.CLIP(**config)
    folder.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
    document = {"model_cfg": config, "preprocess_cfg": {**preprocess, "resize_mode": "shortest"}}
    (folder / "open_clip_config.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


def _write_clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = _clip_tokenizer()
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        projection_dim=FEATURES,
        vision_config={**small, "image_size": IMAGE_PX, "patch_size": 8, "projection_dim": FEATURES},
        text_config={
            **small,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 32,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "projection_dim": FEATURES,
        },
    )
    CLIPModel(config).save_pretrained(folder)
    side = {"height": IMAGE_PX, "width": IMAGE_PX}
    CLIPImageProcessorPil(size={"shortest_edge": IMAGE_PX}, crop_size=side).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_blip2(folder: Path) -> None:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        BlipImageProcessorPil,
        GPT2Tokenizer,
        OPTConfig,
    )

    special = {"unk_token": "<unk>", "bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = GPT2Tokenizer(
        vocab=_letters(["<pad>", "</s>", "<unk>", "<image>"]),
        merges=[],
        **special,
    )
    small: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**small, intermediate_size=64, image_size=IMAGE_PX, patch_size=8).to_dict(),
        qformer_config=Blip2QFormerConfig(
            **small, intermediate_size=64, encoder_hidden_size=32, vocab_size=32, max_position_embeddings=32
        ).to_dict(),
        text_config=OPTConfig(
            **small,
            vocab_size=len(tokenizer),
            ffn_dim=64,
            word_embed_proj_dim=32,
            max_position_embeddings=128,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            init_std=1.0,
        ).to_dict(),
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    processor = BlipImageProcessorPil(size={"height": IMAGE_PX, "width": IMAGE_PX})
    Blip2Processor(image_processor=processor, tokenizer=tokenizer, num_query_tokens=4).save_pretrained(folder)


def _write_aesthetic(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for number, (size, made) in zip((0, 2, 4, 6, 7), pairwise(_HEAD_SIZES), strict=True):
        tensors[f"layers.{number}.weight"] = torch.randn(made, size) / size**0.5
        tensors[f"layers.{number}.bias"] = torch.zeros(made)
    tensors["layers.7.bias"] += 5.0  # scores are between 1 and 10, as those of the published one
    save_file(tensors, folder / "model.safetensors")


def _write_watermark(folder: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    labels = {0: "no watermark", 1: "watermark"}
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=IMAGE_PX,
        patch_size=8,
        id2label=labels,
        label2id={name: number for number, name in labels.items()},
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": IMAGE_PX, "width": IMAGE_PX}).save_pretrained(folder)


def _clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    letters = _letters([])
    words = {f"{letter}</w>": len(letters) + number for number, letter in enumerate(letters)}
    ends = {"<|startoftext|>": 2 * len(letters), "<|endoftext|>": 2 * len(letters) + 1}
    return CLIPTokenizer(vocab={**letters, **words, **ends}, merges=[])


def _letters(special: list[str]) -> dict[str, int]:
    """The bytes as byte-level tokenizers write them, after special tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    return {token: number for number, token in enumerate([*special, *sorted(ByteLevel.alphabet())])}


_MODELS = {
    "curation_clip": _write_clip,
    "curation_blip2": _write_blip2,
    "curation_aesthetic": _write_aesthetic,
    "curation_watermark": _write_watermark,
}
