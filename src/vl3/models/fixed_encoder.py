"""A vision encoder of fixed resolution: CLIP's or SigLIP's own tower, for the ablation of arXiv 2501.13106 table 9.

Every picture or frame is a square of the same number of patches with learned positions. Its features are the output of
the last block that the config counts, without a final norm and without CLIP's class token, as LLaVA takes them.

Shapes: P patches (all items concatenated) · F pictures and frames · T patches of one, and CLIP's class token · M tokens
after merge · I visual items · C channels*patch^2 · V vision dim.
"""

import numpy as np
import torch
from torch import Tensor, nn

from vl3.errors import DataError
from vl3.models.attention import Segments
from vl3.models.encoder import (
    GROUP_PATCHES,
    PatchProjection,
    VisionBlocks,
    check_pixels,
    merge_groups,
    plan_patches,
)
from vl3.models.fixed_config import FixedVisionConfig
from vl3.models.recompute import run_block


class FixedEmbeddings(nn.Module):
    """Patches to vectors with learned positions, CLIP's class token in front; named as in transformers' towers."""

    def __init__(self, config: FixedVisionConfig) -> None:
        super().__init__()
        self.side_patches = config.picture.side_patches
        self.class_embedding = nn.Parameter(torch.zeros(config.hidden_size)) if config.has_class_token else None
        self.patch_embedding = PatchProjection(config, bias=not config.has_class_token)
        self.position_embedding = nn.Embedding(config.num_positions, config.hidden_size)

    def forward(self, pixels_PC: Tensor, positions_P2: Tensor) -> Tensor:
        """(P, C) and the row and column of each patch to (F, T, V).

        The patches may be in any order inside a picture, because each takes the position of its own row and column:
        in pictures of 3 x 3 patches, row 1 and column 2 is number 5, and with a class token, which is number 0, 6.
        """
        places_P = positions_P2[:, 0] * self.side_patches + positions_P2[:, 1]
        if self.class_embedding is None:
            hidden_PV = self.patch_embedding(pixels_PC) + self.position_embedding(places_P)
            return hidden_PV.unflatten(0, (-1, self.side_patches**2))
        hidden_PV = self.patch_embedding(pixels_PC) + self.position_embedding(places_P + 1)
        hidden_FTV = hidden_PV.unflatten(0, (-1, self.side_patches**2))
        first_V = self.class_embedding + self.position_embedding.weight[0]
        return torch.cat([first_V.expand(len(hidden_FTV), 1, -1), hidden_FTV], dim=1)


class FixedEncoder(nn.Module):
    """Patches of squares of one size to vision tokens; takes and returns what VisionEncoder does."""

    def __init__(self, config: FixedVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = FixedEmbeddings(config)
        # transformers' misspelling, which is in every checkpoint
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.has_class_token else None
        self.pre_layrnorm = norm
        self.encoder = VisionBlocks(config)
        self.recompute = "none"
        """What backward computes again: see `vl3.models.recompute`."""

    @property
    def smallest_grid(self) -> tuple[int, int]:
        """Rows and columns of patches of a picture: the same for all."""
        side = self.config.picture.side_patches
        return side, side

    def forward(
        self,
        pixels_PC: Tensor,
        grid_thw_I3: Tensor | np.ndarray,
        merge_sizes_I: Tensor | np.ndarray,
        keep_M: Tensor | np.ndarray | None = None,
    ) -> Tensor:
        """Vision tokens (M, V), item by item, frame by frame, each merged frame row by row.

        On CPU without gradients, frames go through all blocks in groups, so that memory use does not grow with them.

        Args:
            pixels_PC: patches in the order (t, h/m, w/m, m, m) inside an item: uint8 as they are in the picture, or
                normalised with the mean and standard deviation of the config.
            grid_thw_I3: frames, rows and columns of patches of each item.
            merge_sizes_I: side of the square of patches that becomes one token, for each item.
            keep_M: must keep all tokens: a square without some of its patches is nothing that the tower was made for.

        Raises:
            DataError: a grid is not that of the tower, does not match its merge size, or tokens are dropped.
        """
        grids, merges = (np.asarray(torch.as_tensor(one).cpu()) for one in (grid_thw_I3, merge_sizes_I))
        self._check_squares(grids, keep_M)
        plan = plan_patches(grids, merges, pixels_PC.device)
        check_pixels(pixels_PC, plan, self.config)
        sorted_PC = pixels_PC if plan.order_P is None else pixels_PC[plan.order_P]
        if torch.is_grad_enabled() or pixels_PC.is_cuda:
            return merge_groups(self._encode(sorted_PC, plan.positions_P2), plan)
        frame_patches = self.config.picture.side_patches**2
        group = max(1, GROUP_PATCHES // frame_patches) * frame_patches
        parts = zip(sorted_PC.split(group), plan.positions_P2.split(group), strict=True)
        return merge_groups(torch.cat([self._encode(pixels, positions) for pixels, positions in parts]), plan)

    def _encode(self, pixels_PC: Tensor, positions_P2: Tensor) -> Tensor:
        """Patch vectors (P, V) of whole pictures after the last block, in the given order."""
        dtype = self.embeddings.position_embedding.weight.dtype
        hidden_FTV = self.embeddings(self._normalise(pixels_PC).to(dtype), positions_P2)
        if self.pre_layrnorm is not None:
            hidden_FTV = self.pre_layrnorm(hidden_FTV)
        frames, tokens, width = hidden_FTV.shape
        segments = Segments.of_runs([tokens] * frames, hidden_FTV.device)
        hidden_TV, kind = hidden_FTV.reshape(frames * tokens, width), self.recompute if self.training else "none"
        for layer in self.encoder.layers:
            hidden_TV = run_block(layer, kind, hidden_TV, None, segments)
        hidden_FTV = hidden_TV.unflatten(0, (frames, tokens))
        return hidden_FTV[:, self.config.has_class_token :].reshape(-1, width)

    def _normalise(self, pixels_PC: Tensor) -> Tensor:
        """uint8 pixels to (x / 255 - mean) / std of their colour in fp32; other types are unchanged.

        The values of a patch are in the order (channel, row, column): 196 of red, of green, of blue. Mean and deviation
        are numbers in the kernels' arguments, because copying them to a GPU would make the CPU wait for it.
        """
        if pixels_PC.dtype != torch.uint8:
            return pixels_PC
        normal_PC = pixels_PC.float()
        colours = normal_PC.unflatten(1, (self.config.num_channels, -1)).unbind(1)
        for colour, mean, std in zip(colours, self.config.image_mean, self.config.image_std, strict=True):
            colour.mul_(1 / (255 * std)).sub_(mean / std)
        return normal_PC

    def _check_squares(self, grids_I3: np.ndarray, keep_M: Tensor | np.ndarray | None) -> None:
        rows, columns = self.smallest_grid
        if len(grids_I3) and ((grids_I3[:, 1] != rows) | (grids_I3[:, 2] != columns)).any():
            other = next(tuple(grid) for grid in grids_I3[:, 1:].tolist() if tuple(grid) != (rows, columns))
            raise DataError(
                f"a picture has {other[0]} x {other[1]} patches, but this encoder takes only squares of {rows} x "
                f"{columns} ({self.config.image_size} px). Prepare media with its `picture` (PrepareSettings)."
            )
        if keep_M is not None and not bool(torch.as_tensor(keep_M).all()):
            raise DataError(
                "tokens are dropped before an encoder of fixed resolution, whose positions are learned for whole "
                "squares. Switch DiffFP off for this model."
            )
