"""How an encoder of fixed resolution takes pictures: every one becomes a square of the same number of patches."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from vl3.config.checks import Range, check_fields
from vl3.conventions import PATCH_SIZE_PX
from vl3.errors import ConfigError


class Fit(StrEnum):
    """How a picture of any shape becomes a square."""

    CROP = "crop"
    """Its shorter side gets the square's length, and what stands out at both ends of the longer one is cut (CLIP)."""
    STRETCH = "stretch"
    """Both sides get the square's length, whatever the shape was (SigLIP)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedPicture:
    """The square that an encoder was trained on.

    384 px and patches of 14 px: 27 x 27 patches cover 378 px, so the last 6 rows and columns are not seen, as with the
    convolution of transformers' SigLIP.
    """

    side_px: Annotated[int, Range(at_least=PATCH_SIZE_PX, at_most=4096)]
    """Side of the square to which a picture is resized."""
    fit: Fit
    """How."""

    def __post_init__(self) -> None:
        check_fields(self, "picture")

    @property
    def side_patches(self) -> int:
        """Patches along a side."""
        return self.side_px // PATCH_SIZE_PX

    @property
    def seen_px(self) -> int:
        """Side of the square that the patches cover."""
        return self.side_patches * PATCH_SIZE_PX

    def num_tokens(self, merge_size: int) -> int:
        """Tokens of a picture or frame whose patches are merged merge_size x merge_size: 24 x 24 patches, 2: 144.

        Raises:
            ConfigError: the patches cannot be merged without a rest.
        """
        self.check_merge(merge_size)
        return (self.side_patches // merge_size) ** 2

    def check_merge(self, merge_size: int) -> None:
        """Raise ConfigError unless the patches can be merged merge_size x merge_size without a rest."""
        if self.side_patches % merge_size:
            raise ConfigError(
                f"an encoder of {self.side_px} px has {self.side_patches} x {self.side_patches} patches, which cannot "
                f"be merged {merge_size} x {merge_size}. Set image_merge_size=1, and leave out videos, whose patches "
                "are always merged 2 x 2, or take an encoder with an even number of patches, such as CLIP of 336 px."
            )
