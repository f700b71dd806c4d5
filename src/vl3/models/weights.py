"""Model folders: config.json, safetensors with the official checkpoint's names, and the tokenizer's files."""

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vl3.errors import ConfigError, StorageError
from vl3.models.config import VideoLlama3Config
from vl3.models.model import VideoLlama3
from vl3.models.stored import CONFIG_FILE, SINGLE_FILE, read_json
from vl3.models.tensors import TensorFolder
from vl3.system.files import atomic_write_json, storage_errors

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""Files that are copied with the weights if they exist; only the first one is required."""
_PREFIXES = (
    ("vision_encoder.", "model.vision_encoder."),
    ("mm_projector.", "model.mm_projector."),
    ("language_model.", "model."),
)


def official_name(name: str) -> str:
    """A parameter's name in the official checkpoint: `language_model.norm.weight` -> `model.norm.weight`."""
    for ours, official in _PREFIXES:
        if name.startswith(ours):
            return official + name.removeprefix(ours)
    return name


def save_model(model: VideoLlama3, tokenizer_folder: Path, folder: Path) -> None:
    """Write the model and its tokenizer's files to a folder; the same weights give the same bytes.

    Raises:
        ConfigError: the tokenizer's folder has no tokenizer.json.
        StorageError: the folder cannot be written.
    """
    tensors = {official_name(name): parameter.detach() for name, parameter in model.named_parameters()}
    save_tensors(tensors, model.config, folder)
    save_companions(model.config, tokenizer_folder, folder)


def save_companions(config: VideoLlama3Config, tokenizer_folder: Path, folder: Path) -> None:
    """Write what belongs to the weights of a model folder: config.json and the tokenizer's files.

    Raises:
        ConfigError: the tokenizer's folder has no tokenizer.json.
        StorageError: the folder cannot be written.
    """
    if not (tokenizer_folder / TOKENIZER_FILES[0]).is_file():
        raise ConfigError(
            f"{tokenizer_folder} has no {TOKENIZER_FILES[0]}, without which the weights cannot be used. Give the "
            "folder of the decoder's tokenizer."
        )
    atomic_write_json(folder / CONFIG_FILE, config.to_dict())
    with storage_errors(folder):
        for name in TOKENIZER_FILES:
            if (tokenizer_folder / name).is_file():
                shutil.copyfile(tokenizer_folder / name, folder / name)


def save_tensors(tensors: dict[str, Tensor], config: VideoLlama3Config, folder: Path) -> None:
    """Write config.json and tensors with official names to a folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    with storage_errors(folder, needed_bytes=size_bytes):
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(contiguous, folder / SINGLE_FILE)
    atomic_write_json(folder / CONFIG_FILE, config.to_dict())


def save_weights(tensors: dict[str, Tensor], path: Path) -> None:
    """Write contiguous tensors on the CPU to one safetensors file; the same tensors give the same bytes.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # also raised when the disk is full
        raise StorageError(
            f"{path}: the weights cannot be written ({error}). Free space there or correct the folder's permissions, "
            "then run again."
        ) from error


def load_model(folder: Path, *, dtype: torch.dtype | None = None) -> VideoLlama3:
    """Read a model folder in the official layout, on CPU.

    Args:
        folder: folder with config.json and safetensors files.
        dtype: type of the parameters; None keeps the stored type.

    Raises:
        ConfigError: a file is missing or damaged, or a tensor is missing, unknown or has the wrong shape.
    """
    where = folder / CONFIG_FILE
    model = VideoLlama3.empty(VideoLlama3Config.from_dict(read_json(where), str(where)))
    source = TensorFolder(folder)
    stored = {name: official_name(name) for name, _ in model.named_parameters()}
    source.check({stored[name]: tuple(p.shape) for name, p in model.named_parameters()}, repeated_head(model, source))
    return fill(model, {name: source.read(official, dtype) for name, official in stored.items()})


def fill(model: VideoLlama3, tensors: dict[str, Tensor]) -> VideoLlama3:
    """Give an empty model its parameters, by our parameter names, without copying them."""
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def repeated_head(model: VideoLlama3, source: TensorFolder) -> list[str]:
    """The head's name if a tied model's folder stores the embedding a second time as the head, as some exporters do.

    Raises:
        ConfigError: the head differs from the embedding, so tying them would discard trained weights.
    """
    if model.lm_head is not None or "lm_head.weight" not in source.names:
        return []
    embedding = official_name("language_model.embed_tokens.weight")
    if embedding in source.names and not torch.equal(source.read("lm_head.weight"), source.read(embedding)):
        raise ConfigError(
            f"{source.folder}: tie_word_embeddings is true but tensor 'lm_head.weight' differs from {embedding!r}. The "
            "trained head would be lost. Set tie_word_embeddings to false in config.json."
        )
    return ["lm_head.weight"]
