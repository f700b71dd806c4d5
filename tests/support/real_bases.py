"""Bases in the formats of the real ones, with random weights and few layers: what vl3_2b starts from, made in a minute.

`python -m tests.support.real_bases --out FOLDER` writes siglip/ (one file) and qwen/ (two shards with an index), of the
real widths and vocabulary.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vl3.models.config import TextConfig, VisionConfig
from vl3.models.layouts.names import language_shapes, vision_shapes
from vl3.models.stored import INDEX_FILE
from vl3.store.objects import open_store
from vl3.toy.tokenizer import build_tokenizer

VOCABULARY = 151_936
DATASETS = ("llava_pretrain", "textcaps", "llava_sft_665k", "llava_video_178k")
"""At least one dataset of the mixture of each stage of vl3_2b."""
_FIRST_SPECIAL, _SPECIALS = 293, 22
"""Qwen2.5's tokenizer: 151,643 words, then 22 special tokens, of 151,936 rows."""
_POSITIONS = 729
_KNOWN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def vision_sizes(layers: int = 2, **changes: Any) -> VisionConfig:
    """SigLIP so400m with few layers."""
    sizes = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": layers, "num_attention_heads": 16}
    return VisionConfig(**sizes | changes)


def text_sizes(layers: int = 2, vocabulary: int = VOCABULARY, **changes: Any) -> TextConfig:
    """Qwen2.5-1.5B with few layers."""
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": layers,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
    }
    return TextConfig(**sizes | changes)


def write_siglip(folder: Path, sizes: VisionConfig, *, whole: bool = False, dtype: torch.dtype = torch.float32) -> None:
    """A SigLIP as transformers saves it: the vision tower, or the whole model as google/siglip-* is."""
    prefix = "vision_model." if whole else ""
    shapes = {f"{prefix}{name}": shape for name, shape in vision_shapes(sizes).items()}
    width = sizes.hidden_size
    shapes |= {
        f"{prefix}embeddings.position_embedding.weight": (_POSITIONS, width),
        f"{prefix}head.probe": (1, 1, width),
    }
    vision = sizes.to_dict() | {"model_type": "siglip_vision_model", "image_size": 384}
    config = vision
    if whole:
        shapes |= {"text_model.final_layer_norm.weight": (width,), "logit_scale": (1,)}
        config = {"model_type": "siglip", "vision_config": vision, "text_config": {"model_type": "siglip_text_model"}}
    _write(folder, config, shapes, dtype=dtype, shards=1)


def write_qwen(
    folder: Path, sizes: TextConfig, *, dtype: torch.dtype = torch.bfloat16, shards: int = 1, with_head: bool = False
) -> None:
    """A Qwen2 as transformers saves it, with a tokenizer of its size; `with_head` stores a tied head a second time."""
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_act": "silu", **sizes.to_dict()}
    _write(folder, config, language_shapes(sizes), dtype=dtype, shards=shards, with_head=with_head)
    write_tokenizer(folder, sizes.vocab_size)


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """A tokenizer with Qwen2.5's special tokens at their places from the end, and words of the generated world."""
    build_tokenizer(folder)
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words, first = data["model"]["vocab"], vocabulary - _FIRST_SPECIAL
    assert first > len(words), f"a vocabulary of {vocabulary} rows has no room for the {len(words)} words of the world"
    data["model"]["vocab"] = words + [[f"<unused-{number}>", -1000.0] for number in range(first - len(words))]
    names = [*_KNOWN, *(f"<|reserved-{number}|>" for number in range(_SPECIALS - len(_KNOWN)))]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data["added_tokens"] = [{"id": first + place, "content": name, **flags} for place, name in enumerate(names)]
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")


def split_corpus(samples: Path, out: Path) -> Path:
    """Make a corpus of a few datasets that the recipe's mixtures name from generated samples; returns its file.

    Each is a folder of its own lines with the media of all. The recipe's other datasets are missing: the stages drop
    them if their `missing` is `drop`.
    """
    lines = [json.loads(one) for one in (samples / "annotations" / "train.jsonl").read_text("utf-8").splitlines()]
    held_out = (samples / "annotations" / "heldout.jsonl").read_text("utf-8")
    for place, name in enumerate(DATASETS):
        shutil.copytree(samples, out / name)
        own = "".join(json.dumps(line) + "\n" for line in lines[place :: len(DATASETS)])
        (out / name / "annotations" / "train.jsonl").write_text(own, encoding="utf-8")
        (out / name / "annotations" / "heldout.jsonl").write_text(held_out if not place else "", encoding="utf-8")
    text = "datasets:\n" + "".join(f"  {name}: {name}\n" for name in DATASETS)
    (out / "corpus.yaml").write_text(text, encoding="utf-8")
    return out / "corpus.yaml"


def upload(folder: Path, uri: str) -> None:
    """Put the files of a folder into a bucket, as any other program would."""
    store = open_store(uri)
    for path in sorted(folder.iterdir()):
        store.put_file(path, path.name)


def _write(
    folder: Path,
    config: dict[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: torch.dtype,
    shards: int,
    with_head: bool = False,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    names, places = list(shapes), {}
    for number in range(shards):
        own = names[number::shards]
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors" if shards > 1 else "model.safetensors"
        tensors = {name: _draw(name, shapes[name], dtype) for name in own}
        if with_head and "model.embed_tokens.weight" in tensors:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file)
    if shards > 1:
        (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")


def _draw(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Ones for the weights of norms, zeros for biases, a narrow normal distribution for the rest."""
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=dtype)
    if "norm" in name:
        return torch.ones(shape, dtype=dtype)
    return (torch.randn(shape) * 0.02).to(dtype)


def main() -> None:
    """Write both bases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    given = parser.parse_args()
    write_siglip(given.out / "siglip", vision_sizes(given.layers), whole=True)
    write_qwen(given.out / "qwen", text_sizes(given.layers, given.vocabulary), shards=2)


if __name__ == "__main__":
    main()
