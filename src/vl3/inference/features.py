"""Vision tokens that several prompts share: the media of a key are encoded once and kept while there is room.

Shapes: K kept vision tokens · D text dim · P patches.
"""

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vl3.data.sample.prepare import PreparedMedia, PreparedSample
from vl3.models.model import VideoLlama3

ENCODED_PATCHES = 65536
"""Patches that the encoder takes at once; a larger video goes alone."""
FEATURE_BYTES = 2 << 30
"""Vision tokens that are kept on the device."""


class FeatureCache:
    """The vision tokens of the media that were encoded last, by key."""

    def __init__(self, model: VideoLlama3, limit_bytes: int = FEATURE_BYTES) -> None:
        """Keep nothing yet."""
        self._model, self._limit_bytes = model, limit_bytes
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._size_bytes = 0
        self.num_encoded = 0
        """How many media were encoded so far."""

    def features(self, media: Mapping[str, PreparedMedia | PreparedSample]) -> dict[str, Tensor]:
        """The kept vision tokens (K, D) of media by key; those that are not kept are encoded, several at once.

        Raises:
            DataError: grids, pixels and the mask of a medium do not match.
        """
        found = {key: self._kept[key] for key in media if key in self._kept}
        for key in found:
            self._kept.move_to_end(key)
        missing = [key for key in media if key not in found]
        for keys in _groups({key: len(media[key].pixels_PC) for key in missing}):
            found |= self._encode({key: media[key] for key in keys})
        self._drop()
        return {key: found[key] for key in media}

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self._size_bytes = 0

    def _encode(self, media: Mapping[str, PreparedMedia | PreparedSample]) -> dict[str, Tensor]:
        features_KD = self._model.encode_visual(
            np.concatenate([one.pixels_PC for one in media.values()]),
            np.concatenate([one.grid_thw_I3 for one in media.values()]),
            np.concatenate([one.merge_sizes_I for one in media.values()]),
            np.concatenate([one.keep_M for one in media.values()]),
        )
        counts = [int(one.keep_M.sum()) for one in media.values()]
        self.num_encoded += len(media)
        # Copies: a view of what was encoded together would keep all of it.
        encoded = {key: part.clone() for key, part in zip(media, features_KD.split(counts), strict=True)}
        for key, part in encoded.items():
            self._kept[key] = part
            self._size_bytes += part.numel() * part.element_size()
        return encoded

    def _drop(self) -> None:
        while self._size_bytes > self._limit_bytes and len(self._kept) > 1:
            _, part = self._kept.popitem(last=False)
            self._size_bytes -= part.numel() * part.element_size()


def used_features(features_KD: Tensor, ids_T: np.ndarray, image_token_id: int) -> Tensor:
    """The vision tokens that have an `<image>` in a prompt: media after its end have none."""
    return features_KD[: int((ids_T == image_token_id).sum())]


def no_features(model: VideoLlama3) -> Tensor:
    """The vision tokens of a prompt without media."""
    return torch.empty(0, model.config.text.hidden_size, device=model.device)


def _groups(patches: Mapping[str, int]) -> list[list[str]]:
    """Keys that are encoded together: sizes 40000, 20000, 30000 give the first two and the last."""
    groups: list[list[str]] = []
    size = 0
    for key, count in patches.items():
        if groups and size + count <= ENCODED_PATCHES:
            groups[-1].append(key)
            size += count
        else:
            groups.append([key])
            size = count
    return groups
