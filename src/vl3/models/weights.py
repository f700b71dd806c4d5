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
from vl3.models.stored import CONFIG_FILE, SINGLE_FILE
from vl3.models.unread import official_name, unread_model
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


def save_model(model: VideoLlama3, tokenizer_folder: Path, folder: Path) -> None:
    """Write the model and its tokenizer's files to a folder; the same weights give the same bytes.

    Raises:
        ConfigError: the tokenizer's folder has no tokenizer.json.
        StorageError: the folder cannot be written.
    """
    save_companions(model.config, tokenizer_folder, folder)  # first: it is refused before the weights are written
    tensors = {official_name(name): parameter.detach() for name, parameter in model.named_parameters()}
    save_tensors(tensors, model.config, folder)


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
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
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


def load_model(folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> VideoLlama3:
    """Read a model folder in the official layout.

    Args:
        folder: folder with config.json and safetensors files.
        dtype: type of the parameters; None keeps the stored type.
        device: where the parameters are to be.

    Raises:
        ConfigError: a file is missing or damaged, or a tensor is missing, unknown or has the wrong shape.
        StorageError: a file cannot be read.
    """
    return unread_model(folder).load(dtype, device)
