"""Weights of scorers: folders by URI, their digest, and the device they go to."""

import json
from pathlib import Path
from typing import Any

from vl3.curation.scorer import version_digest
from vl3.errors import ConfigError
from vl3.store.bases import folder_digest


def weights_version(folder: Path, kind: str, code: int, settings: dict[str, Any]) -> str:
    """The version of a scorer with weights: digest of its files, settings, and a number of its code."""
    return version_digest({"kind": kind, "code": code, "weights": folder_digest(folder), "settings": settings})


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A JSON file of a model folder.

    Raises:
        ConfigError: it is missing or not JSON.
    """
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder / name}: cannot be read ({error}), so the scorer's model is not known. Name a folder with the "
            "files of a model as published."
        ) from error


def require_safetensors(folder: Path) -> None:
    """Refuse weights in another format: a pickle can run programs as it is read.

    Raises:
        ConfigError: there is no safetensors file.
    """
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in folder.glob("*"))[:20]) or "nothing"
        raise ConfigError(
            f"{folder} has no *.safetensors (it has {found}). Other formats can run programs as they are read. Convert "
            "the weights to safetensors first."
        )


def device() -> str:
    """`cuda` where a GPU is visible, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
