"""How pictures become vision tokens, read from a checkpoint's files: official, transformers' or our run.json."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vl3.errors import ConfigError
from vl3.models.layouts.names import Layout
from vl3.models.stored import RUN_FILE, read_json

IMAGE_FILE = "preprocessor_config.json"
VIDEO_FILE = "video_preprocessor_config.json"
PROCESSOR_FILE = "processor_config.json"
_BICUBIC = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """Limits and merge sizes; the defaults are those of the released models."""

    image_merge_size: int = 1
    """Side of the square of patches that becomes one image token."""
    video_merge_size: int = 2
    """Side of the square of patches that becomes one video token."""
    min_tokens: int = 16
    """Minimum number of tokens of an image or frame."""
    max_tokens: int = 16384
    """Maximum number of tokens of all pictures of a prompt, before DiffFP."""
    fps: float = 1
    """Frames taken from each second of a video."""
    max_frames: int = 180
    """Maximum number of frames taken from one video."""
    difffp: bool = True
    """Whether unchanged video tokens are dropped."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value that files may hold and no model has."""
        for name in ("image_merge_size", "video_merge_size", "min_tokens", "max_tokens", "max_frames"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r:.80} is not a positive whole number")
        if type(self.fps) not in (int, float) or not 0 < self.fps < math.inf:
            raise ValueError(f"fps={self.fps!r:.80} is not a positive number")
        if type(self.difffp) is not bool:
            raise ValueError(f"use_token_compression={self.difffp!r:.80} is neither true nor false")

    @classmethod
    def read(cls, folder: Path, config: dict[str, Any], layout: Layout, patch_size: int) -> "Preprocessing":
        """The settings in a checkpoint folder; missing ones get the defaults.

        Raises:
            ConfigError: a file is damaged, or its normalisation is not what the encoder expects.
        """
        try:
            return cls._read(folder, config, layout, patch_size)
        except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ConfigError(
                f"{folder}: the preprocessor's files hold a value that cannot be used ({error}). Restore them from the "
                "model's source."
            ) from error

    @classmethod
    def _read(cls, folder: Path, config: dict[str, Any], layout: Layout, patch_size: int) -> "Preprocessing":
        if layout == Layout.TRANSFORMERS:
            return cls._of_transformers(folder, patch_size)
        if (folder / RUN_FILE).is_file() and not (folder / IMAGE_FILE).is_file():
            return cls._of_run(folder / RUN_FILE)
        found = {**_read_if_there(folder / IMAGE_FILE), **_read_if_there(folder / PROCESSOR_FILE)}
        _require_half(found, folder / IMAGE_FILE)
        _require_patch(found, folder / IMAGE_FILE, patch_size)
        names = {field.name for field in fields(cls)}
        values = {name: value for name, value in found.items() if name in names}
        return cls(**values | {"difffp": bool(config.get("use_token_compression", True))})

    @classmethod
    def _of_run(cls, path: Path) -> "Preprocessing":
        record = read_json(path)
        try:
            data, stage = record["config"]["data"], record["config"]["stages"][record["stage"]]
            return cls(
                image_merge_size=stage["image_merge_size"],
                video_merge_size=stage["video_merge_size"],
                min_tokens=data["min_item_tokens"],
                max_tokens=data["visual_budget_tokens"],
                fps=data["video_fps"],
                max_frames=data["max_frames"],
                difffp=stage["difffp"],
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: {error} is missing, so it is unknown how the pictures were prepared. Restore the file from "
                "the checkpoint, or remove it to use the settings of the released models."
            ) from error

    @classmethod
    def _of_transformers(cls, folder: Path, patch_size: int) -> "Preprocessing":
        composite = _read_if_there(folder / PROCESSOR_FILE)
        image = composite.get("image_processor") or _read_if_there(folder / IMAGE_FILE)
        video = composite.get("video_processor") or _read_if_there(folder / VIDEO_FILE)
        for settings, name in ((image, IMAGE_FILE), (video, VIDEO_FILE)):
            _require_half(settings, folder / name)
            _require_patch(settings, folder / name, patch_size)
        defaults = cls()
        image_merge = image.get("merge_size", defaults.image_merge_size)
        side_px = patch_size * image_merge
        size = image.get("size") or {}
        return cls(
            image_merge_size=image_merge,
            video_merge_size=video.get("merge_size", defaults.video_merge_size),
            min_tokens=size.get("shortest_edge", defaults.min_tokens * side_px**2) // side_px**2,
            max_tokens=size.get("longest_edge", defaults.max_tokens * side_px**2) // side_px**2,
            fps=video.get("fps") or defaults.fps,
            max_frames=video.get("max_frames", defaults.max_frames),
            difffp=video.get("use_token_compression", defaults.difffp),
        )

    def files(self, layout: Layout, patch_size: int) -> dict[str, dict[str, Any]]:
        """The files of a layout: content by name."""
        return (
            self._transformers_files(patch_size) if layout == Layout.TRANSFORMERS else self._official_files(patch_size)
        )

    def _official_files(self, patch_size: int) -> dict[str, dict[str, Any]]:
        processor = {"processor_class": "Videollama3Qwen2Processor"}
        image = {
            "image_processor_type": "Videollama3ImageProcessor",
            **_PICTURE,
            "patch_size": patch_size,
            "min_tokens": self.min_tokens,
            "max_tokens": self.max_tokens,
        }
        settings = {
            "image_merge_size": self.image_merge_size,
            "video_merge_size": self.video_merge_size,
            "fps": self.fps,
            "max_frames": self.max_frames,
        }
        return {IMAGE_FILE: processor | image, PROCESSOR_FILE: processor | settings}

    def _transformers_files(self, patch_size: int) -> dict[str, dict[str, Any]]:
        processor = {"processor_class": "VideoLlama3Processor"}
        image = {
            "image_processor_type": "VideoLlama3ImageProcessor",
            **_PICTURE,
            **self._sizes(patch_size, self.image_merge_size),
        }
        video = {
            "video_processor_type": "VideoLlama3VideoProcessor",
            **_PICTURE,
            **self._sizes(patch_size, self.video_merge_size),
            "do_sample_frames": True,
            "fps": self.fps,
            "max_frames": self.max_frames,
            "use_token_compression": self.difffp,
        }
        return {IMAGE_FILE: processor | image, VIDEO_FILE: processor | video, PROCESSOR_FILE: processor}

    def _sizes(self, patch_size: int, merge_size: int) -> dict[str, Any]:
        """Limits in pixels, as transformers counts them: 16 tokens of patch 14 and merge 2 are 16 * 28 * 28 = 12544."""
        token_px = (patch_size * merge_size) ** 2
        return {
            "patch_size": patch_size,
            "temporal_patch_size": 1,
            "merge_size": merge_size,
            "size": {"shortest_edge": self.min_tokens * token_px, "longest_edge": self.max_tokens * token_px},
        }


_PICTURE = {
    "do_convert_rgb": True,
    "do_resize": True,
    "resample": _BICUBIC,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _require_half(data: dict[str, Any], path: Path) -> None:
    """Raise ConfigError unless pixels are normalised to [-1, 1]; files with other values belong to another model."""
    for name in ("image_mean", "image_std"):
        if data.get(name, _PICTURE[name]) != _PICTURE[name]:
            raise ConfigError(
                f"{path}: {name}={data[name]}, but the encoder was trained on pixels normalised by 0.5. The outputs "
                "would be silently wrong. Use the preprocessor files of the checkpoint."
            )


def _require_patch(data: dict[str, Any], path: Path, patch_size: int) -> None:
    """Raise ConfigError unless the file's patches, if it names them, are those of the encoder in config.json."""
    if data.get("patch_size", patch_size) != patch_size:
        raise ConfigError(
            f"{path}: patch_size={data['patch_size']}, but config.json gives the encoder patch_size={patch_size}. "
            "Pictures would be cut at the wrong places. Use both files of the same checkpoint."
        )
