"""Sizes of an encoder of fixed resolution, CLIP's or SigLIP's, and what it expects of pictures (no torch here).

Both are read from their transformers folder: config.json has the sizes, preprocessor_config.json says how a picture
becomes a square and how its colours are normalised. The features are those of LLaVA (arXiv 2310.03744): the output of a
late block without any final norm, and without the class token. What comes after that block is not read at all, so the
config counts only the blocks that run: of 24 blocks with `skipped_blocks` 1 there are 23, whose output is transformers'
`hidden_states[-2]`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from vl3.config.picture import Fit, FixedPicture
from vl3.conventions import PATCH_SIZE_PX
from vl3.errors import ConfigError
from vl3.models.stored import CONFIG_FILE, read_json

CLIP_TYPE, SIGLIP_TYPE = "clip_vision_model", "siglip_vision_model"
FIXED_TYPES = (CLIP_TYPE, SIGLIP_TYPE)
"""`model_type` of the vision towers that can be used at their own resolution."""
WHOLE_TYPES = {"clip": CLIP_TYPE, "siglip": SIGLIP_TYPE}
"""`model_type` of models that have a text tower too, and that of their vision tower."""
PICTURE_FILE = "preprocessor_config.json"
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh")
"""Activations of the MLP that a tower may name."""
_BICUBIC = 3
_REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
_DEFAULTS: dict[str, dict[str, Any]] = {
    CLIP_TYPE: {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    SIGLIP_TYPE: {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
}
"""What a config.json may leave out because it is the default of transformers' class."""
_USUAL: dict[str, dict[str, Any]] = {
    CLIP_TYPE: {
        "fit": str(Fit.CROP),
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
    },
    SIGLIP_TYPE: {"fit": str(Fit.STRETCH), "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)},
}
"""What the preprocessor_config.json of the released models says of pictures."""
_Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedVisionConfig:
    """Shape of a CLIP or SigLIP tower as far as it runs, and its pictures."""

    model_type: str
    """`clip_vision_model` or `siglip_vision_model`."""
    hidden_size: int
    """Width."""
    intermediate_size: int
    """Width inside the MLP."""
    num_hidden_layers: int
    """Blocks that run; the features are the output of the last one."""
    num_attention_heads: int
    """Heads of each block."""
    image_size: int
    """Side of the square to which pictures are resized, in pixels."""
    patch_size: int = PATCH_SIZE_PX
    """Side of a patch in pixels."""
    num_channels: int = 3
    """Colour channels of a pixel."""
    hidden_act: str
    """Activation of the MLP, one of ACTIVATIONS."""
    layer_norm_eps: float
    """Epsilon of every LayerNorm."""
    fit: str
    """How a picture becomes a square (vl3.config.picture.Fit)."""
    image_mean: _Triple
    """Mean of each colour, subtracted from pixels in 0 to 1."""
    image_std: _Triple
    """Standard deviation of each colour, by which they are divided then."""

    def __post_init__(self) -> None:
        if self.model_type not in FIXED_TYPES:
            raise ConfigError(f"vision config: model_type={self.model_type!r} is not one of {', '.join(FIXED_TYPES)}.")
        for name in (*_REQUIRED, "num_channels"):
            if type(getattr(self, name)) is not int or getattr(self, name) <= 0:
                raise ConfigError(f"vision config: {name}={getattr(self, name)!r} must be a whole number above 0.")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"vision config: hidden_size={self.hidden_size} is not a multiple of num_attention_heads="
                f"{self.num_attention_heads}. Restore the file from the model's source."
            )
        if self.hidden_act not in ACTIVATIONS:
            raise ConfigError(
                f"vision config: hidden_act={self.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}. Another "
                "activation would give other features without an error."
            )
        if not isinstance(self.layer_norm_eps, int | float) or not 0 < self.layer_norm_eps < 1:
            raise ConfigError(f"vision config: layer_norm_eps={self.layer_norm_eps!r} must be between 0 and 1.")
        if self.fit not in list(Fit):
            raise ConfigError(f"vision config: fit={self.fit!r} is not one of {', '.join(Fit)}.")
        if not all(std > 0 for std in self.image_std):
            raise ConfigError(f"vision config: image_std={self.image_std} must be above 0 for each colour.")

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def patch_dim(self) -> int:
        """Number of values in one flattened patch."""
        return self.num_channels * self.patch_size**2

    @property
    def picture(self) -> FixedPicture:
        """How pictures are made one size."""
        return FixedPicture(side_px=self.image_size, fit=Fit(self.fit))

    @property
    def num_positions(self) -> int:
        """Rows of the position embedding: one a patch, and CLIP's class token."""
        return self.picture.side_patches**2 + self.has_class_token

    @property
    def has_class_token(self) -> bool:
        """Whether a class token stands before the patches; it is no feature."""
        return self.model_type == CLIP_TYPE

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> "FixedVisionConfig":
        """Read the encoder's group of one of our checkpoints.

        Raises:
            ConfigError: a value is missing or not supported; the message starts with `where`, the file.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in data]
        if missing:
            raise ConfigError(f"{where}: {', '.join(missing)} is missing. Copy the whole checkpoint folder again.")
        values = {name: data[name] for name in names}
        try:
            for name in ("image_mean", "image_std"):
                values[name] = _triple(values[name], name)
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON data."""
        return asdict(self) | {"image_mean": list(self.image_mean), "image_std": list(self.image_std)}


def read_fixed(folder: Path, skipped_blocks: int) -> FixedVisionConfig:
    """The fixed-resolution encoder in a folder: a CLIP or SigLIP, whole or the vision tower, or a checkpoint of ours.

    Args:
        folder: the folder, with preprocessor_config.json unless it is a checkpoint of ours.
        skipped_blocks: blocks at its end that do not run. A checkpoint of ours has lost them already.

    Raises:
        ConfigError: it is another model, or its pictures are prepared in a way that is not known.
    """
    where = folder / CONFIG_FILE
    return fixed_of(read_json(where), str(where), skipped_blocks, lambda sizes: _pictures(folder, sizes))


def fixed_of(
    data: Mapping[str, Any],
    where: str,
    skipped_blocks: int,
    pictures: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> FixedVisionConfig:
    """The fixed-resolution encoder of a config.json.

    Args:
        data: its content.
        where: the file, for messages.
        skipped_blocks: see read_fixed.
        pictures: gives what preprocessor_config.json says, from the sizes; None takes what is usual for the family,
            where only sizes are wanted.

    Raises:
        ConfigError: see read_fixed.
    """
    ours = data.get("vision_encoder_config")
    if isinstance(ours, dict) and ours.get("model_type") in FIXED_TYPES:
        return FixedVisionConfig.from_dict(ours, f"{where}: vision_encoder_config")
    kind = WHOLE_TYPES.get(str(data.get("model_type")), str(data.get("model_type")))
    if kind not in FIXED_TYPES:
        raise ConfigError(
            f"{where}: model_type={data.get('model_type')!r} has no learned positions of a fixed resolution, but "
            "model.picture_side_px asks for one. Point model.vision_base at a CLIP or a SigLIP, or set "
            "model.picture_side_px=null to take pictures of any size."
        )
    group = data.get("vision_config")
    sizes = {**_DEFAULTS[kind], **(group if isinstance(group, dict) else data), "model_type": kind}
    missing = [name for name in _REQUIRED if name not in sizes]
    if missing:
        raise ConfigError(
            f"{where}: the vision config lacks {', '.join(missing)}. They are not filled in, because the defaults of "
            "transformers' class are not the model's sizes. Write the sizes into the file."
        )
    prepared = _USUAL[kind] if pictures is None else pictures(sizes)
    config = FixedVisionConfig.from_dict({"num_channels": 3, **sizes, **prepared}, where)
    if not 0 <= skipped_blocks < config.num_hidden_layers:
        raise ConfigError(
            f"model.skipped_blocks={skipped_blocks} leaves none of the {config.num_hidden_layers} blocks of {where}. "
            "Set 1 for the features of LLaVA, or 0."
        )
    return replace(config, num_hidden_layers=config.num_hidden_layers - skipped_blocks)


def _pictures(folder: Path, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """What preprocessor_config.json says, as fields of the config.

    CLIP's file says: resize the shorter side to 336, then cut a square of 336 from the centre. SigLIP's says: resize
    to 384 x 384. Other ways are refused, because features of pictures prepared otherwise would silently be worse.
    """
    path = folder / PICTURE_FILE
    data = read_json(path)
    for name, wanted in (("do_resize", True), ("do_normalize", True), ("resample", _BICUBIC)):
        if data.get(name, wanted) != wanted:
            raise ConfigError(
                f"{path}: {name}={data[name]!r} is not supported, only {wanted!r}. Use CLIP's or SigLIP's."
            )
    side = sizes["image_size"]
    is_cropped = bool(data.get("do_center_crop"))
    given = [data.get("size"), data.get("crop_size")] if is_cropped else [data.get("size")]
    if any(_side(one) != side for one in given):
        raise ConfigError(
            f"{path}: size={data.get('size')!r}, crop_size={data.get('crop_size')!r}, but config.json gives the "
            f"encoder image_size={side}. Its positions would not fit the pictures. Use both files of the same model."
        )
    size = data["size"]
    is_shortest = "shortest_edge" in size if isinstance(size, dict) else is_cropped
    if is_shortest and not is_cropped:
        raise ConfigError(
            f"{path}: the shorter side is resized but nothing is cropped, so pictures would be no squares."
        )
    fit = Fit.CROP if is_shortest else Fit.STRETCH
    try:
        return {"fit": str(fit), **{name: _triple(data.get(name), name) for name in ("image_mean", "image_std")}}
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _side(size: Any) -> int | None:
    """The side of a square: 336, {"shortest_edge": 336} or {"height": 384, "width": 384}; None for anything else."""
    sides = set(size.values()) if isinstance(size, dict) else {size}
    return sides.pop() if len(sides) == 1 else None


def _triple(values: Any, name: str) -> _Triple:
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise ConfigError(f"{name}={values!r:.80} is not a number for each of three colours. Restore the file.")
    return float(values[0]), float(values[1]), float(values[2])
