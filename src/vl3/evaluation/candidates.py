"""The models under evaluation: the folder of each, and how its samples are prepared.

This module imports torch only when a model is loaded.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vl3.config.codec import digest, from_dict, to_dict
from vl3.config.picture import FixedPicture
from vl3.config.run import RunConfig
from vl3.conventions import PATCH_SIZE_PX
from vl3.data.sample.prepare import PrepareSettings
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import ConfigError
from vl3.models.bases import FixedWanted, picture_of
from vl3.models.fixed_config import read_fixed
from vl3.models.layouts.names import Layout
from vl3.models.preprocessing import IMAGE_FILE, Preprocessing
from vl3.models.stored import CONFIG_FILE, RUN_FILE, read_json
from vl3.store.bases import base_folder

if TYPE_CHECKING:
    from vl3.models.model import VideoLlama3


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedModel:
    """One model to evaluate."""

    name: str
    """The name in the results: `before` or the name of a stage."""
    folder: Path | None
    """Its checkpoint; None assembles the model from the bases with the run's seed, as stage 1 does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A model with the settings of the stage that made it."""

    name: str
    folder: Path | None
    config: RunConfig
    """The configuration of the run that made the checkpoint; of this run if there is no checkpoint."""
    settings: PrepareSettings
    tokenizer_folder: Path

    @property
    def preparation(self) -> str:
        """Digest of everything that a prepared sample depends on; models with equal digests share prepared samples."""
        tokenizer = hashlib.sha256((self.tokenizer_folder / "tokenizer.json").read_bytes()).hexdigest()
        settings = {**_plain(self.settings), "data": to_dict(self.settings.data), "tokenizer": tokenizer}
        return digest(settings)

    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer of the model."""
        return ChatTokenizer.from_folder(self.tokenizer_folder)

    def load(self, device: str = "cpu", dtype: str = "stored") -> "VideoLlama3":
        """The model in evaluation mode.

        Args:
            device: where its weights are to be.
            dtype: their type: fp32, bf16, or `stored` for the one of the checkpoint.

        Raises:
            ConfigError: the folder is not a model, or a tensor is missing or has the wrong shape.
        """
        import torch

        from vl3.models.start import assemble
        from vl3.models.weights import load_model

        kind = {"stored": None, "fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        if self.folder is not None:
            return load_model(self.folder, dtype=kind, device=device)
        bases = self.config.model
        model = assemble(
            base_folder(bases.vision_base),
            base_folder(bases.language_base),
            seed=self.config.seed,
            fixed=FixedWanted.of(bases),
        )
        return model.eval().to(device=device, dtype=kind)


def open_candidate(model: EvaluatedModel, config: RunConfig) -> Candidate:
    """Find out how a model's samples must be prepared.

    Args:
        model: the model.
        config: configuration of this run, used for a model that is assembled from the bases.

    Raises:
        ConfigError: the checkpoint has neither a usable run.json nor preprocessor files.
    """
    if model.folder is None:
        first = next(iter(config.stages))
        folder = base_folder(config.model.language_base)
        return _candidate(model, config, first, folder)
    if not (model.folder / RUN_FILE).is_file() and (model.folder / IMAGE_FILE).is_file():
        return _given(model, config, model.folder)
    made_by, stage = _read_run(model.folder)
    return _candidate(model, made_by, stage, model.folder)


def _given(model: EvaluatedModel, config: RunConfig, folder: Path) -> Candidate:
    """A model that no stage of ours has made: merges and DiffFP from its own files, limits from this run."""
    found = Preprocessing.read(folder, read_json(folder / CONFIG_FILE), Layout.OFFICIAL, PATCH_SIZE_PX)
    picture = picture_of(folder)
    settings = PrepareSettings(
        image_merge_size=found.image_merge_size,
        video_merge_size=found.video_merge_size,
        difffp=found.difffp and picture is None,
        data=config.data,
        picture=picture,
    )
    return Candidate(name=model.name, folder=folder, config=config, settings=settings, tokenizer_folder=folder)


def _candidate(model: EvaluatedModel, config: RunConfig, stage: str, tokenizer_folder: Path) -> Candidate:
    row = config.stages[stage]
    settings = PrepareSettings(
        image_merge_size=row.image_merge_size,
        video_merge_size=row.video_merge_size,
        difffp=row.difffp,
        data=config.data,
        picture=_picture(model.folder, config),
    )
    return Candidate(
        name=model.name, folder=model.folder, config=config, settings=settings, tokenizer_folder=tokenizer_folder
    )


def _picture(folder: Path | None, config: RunConfig) -> FixedPicture | None:
    """The square that a model's encoder takes: of a checkpoint from its own file, of bases from the encoder's."""
    if folder is not None:
        return picture_of(folder)
    fixed = FixedWanted.of(config.model)
    return None if fixed is None else read_fixed(base_folder(config.model.vision_base), fixed.skipped_blocks).picture


def _plain(settings: PrepareSettings) -> dict[str, Any]:
    names = ("image_merge_size", "video_merge_size", "difffp", "patch_size")
    plain = {name: getattr(settings, name) for name in names}
    return plain | {"picture": None if settings.picture is None else to_dict(settings.picture)}


def _read_run(folder: Path) -> tuple[RunConfig, str]:
    """The configuration and the stage that made a checkpoint."""
    path = folder / RUN_FILE
    try:
        made_by = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}), so the merges and limits of the model's training are unknown. Evaluate "
            "a checkpoint that a training stage wrote."
        ) from error
    if not isinstance(made_by, dict) or not {"stage", "config"} <= set(made_by):
        raise ConfigError(
            f'{path} does not contain the stage and configuration that made the checkpoint: it needs "stage" and '
            '"config". Evaluate a checkpoint that a training stage wrote.'
        )
    config = from_dict(RunConfig, made_by["config"])
    if made_by["stage"] not in config.stages:
        raise ConfigError(
            f"{path} names stage {made_by['stage']!r}, but its configuration has only {', '.join(config.stages)}. "
            "Evaluate a checkpoint that a training stage wrote."
        )
    return config, made_by["stage"]
