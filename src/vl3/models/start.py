"""The model that stage 1 starts from: pretrained vision tower, pretrained decoder, randomly initialised projector."""

from pathlib import Path

import torch

from vl3.models.bases import FixedWanted, joined, open_language, open_vision
from vl3.models.model import VideoLlama3
from vl3.models.projector import Projector
from vl3.models.unread import InFile, InMemory, Source, UnreadModel, our_name
from vl3.models.vocabulary import IMAGE_TOKEN, Vocabulary


def unread_start(
    vision_folder: Path, language_folder: Path, *, seed: int, fixed: FixedWanted | None = None
) -> UnreadModel:
    """Join a vision folder and a Qwen2 folder into the model that stage 1 starts from; only headers are read.

    Args:
        vision_folder: transformers' SigLIP (vision or whole), or a VideoLLaMA3 checkpoint, whose encoder is used; with
            `fixed` also a CLIP.
        language_folder: transformers' Qwen2ForCausalLM with tokenizer.json.
        seed: seed of the projector's initial weights.
        fixed: the encoder's resolution, if it is a fixed one.

    Raises:
        ConfigError: a folder belongs to another model, is damaged, or lacks a tensor.
    """
    encoder, decoder = open_vision(vision_folder, fixed=fixed), open_language(language_folder)
    config = joined(encoder, decoder)
    projector = Projector(config.vision.hidden_size, config.text.hidden_size)
    projector.draw(seed)
    sources: dict[str, Source] = {f"vision_encoder.{name}": InFile(one) for name, one in encoder.tensors.items()}
    sources |= {f"mm_projector.{name}": InMemory(p.detach()) for name, p in projector.named_parameters()}
    sources |= {our_name(name): InFile(one) for name, one in decoder.tensors.items()}
    return UnreadModel(config=config, sources=sources)


def assemble(vision_folder: Path, language_folder: Path, *, seed: int, fixed: FixedWanted | None = None) -> VideoLlama3:
    """The whole model of unread_start, in fp32 on CPU."""
    return unread_start(vision_folder, language_folder, seed=seed, fixed=fixed).load(torch.float32)


def image_token_id(folder: Path) -> int:
    """Id of `<image>` in a folder's tokenizer.json, or the id it would get if added as the next token.

    Raises:
        ConfigError: there is no tokenizer.json, or it has no vocabulary.
    """
    return Vocabulary(folder).ensure(IMAGE_TOKEN)
