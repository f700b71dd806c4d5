"""A video whose frames arrive one by one: after each, the model stays silent or speaks (paper sec. 3.3, streaming).

The decisions are the same as in `vl3.inference.streaming`, which has all frames at once. Here only the tokens of the
new frame are computed, because the keys and values of everything before it are kept.

Shapes: H height px · W width px · C channels · T tokens · M vision tokens.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from vl3.data.sample.chat import (
    ASSISTANT_HEADER,
    Message,
    encode_messages,
    expand_images,
    render_stream_frame,
    render_text,
)
from vl3.data.sample.decoded import STREAM_MAX_FRAMES
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.geometry import fit_size
from vl3.data.sample.image import resize_image, square_image
from vl3.data.sample.patches import patchify
from vl3.data.sample.prepare import PreparedSample, PrepareSettings, kept_patches
from vl3.data.sample.tokenizer import MESSAGE_END
from vl3.errors import DataError
from vl3.inference.batch import Decoding, Prompt
from vl3.inference.generate import answer_tokens
from vl3.inference.sampling import GREEDY, Chooser, Sampling
from vl3.models.model import VideoLlama3

if TYPE_CHECKING:
    from vl3.data.sample.tokenizer import ChatTokenizer


class StreamWatcher:
    """Call `feed` with each frame; it returns what the model says after the frame, or None if it keeps watching."""

    def __init__(
        self,
        model: VideoLlama3,
        tokenizer: "ChatTokenizer",
        settings: PrepareSettings,
        *,
        expected_frames: int | None = None,
        max_new_tokens: int = 512,
        sampling: Sampling = GREEDY,
    ) -> None:
        """Start an empty stream.

        Args:
            model: the model, in evaluation mode.
            tokenizer: the model's tokenizer.
            settings: merge, DiffFP and limits.
            expected_frames: maximum number of frames; they share the vision tokens. None for the trained maximum.
            max_new_tokens: maximum tokens of an utterance.
            sampling: how the tokens of an utterance are chosen; whether to speak is always decided greedily.
        """
        self._model, self._tokenizer, self._settings = model, tokenizer, settings
        self._max_frames = expected_frames or min(settings.data.max_frames, STREAM_MAX_FRAMES)
        self._max_new_tokens = max_new_tokens
        self._choose = Chooser(sampling)
        self._decoding: Decoding | None = None
        self._before_HWC: np.ndarray | None = None
        self.num_frames = 0
        """Number of frames so far."""

    def say(self, text: str) -> None:
        """Add a message of the user, such as what to look out for.

        In training samples the first frame comes before the question: to do the same, pass the question to `feed` as
        `said`.

        Raises:
            DataError: the stream has no room for it.
        """
        self._feed(render_text("user", text), _no_media())

    @torch.inference_mode()
    def feed(self, frame_HWC: np.ndarray, seconds: float, *, said: str | None = None) -> str | None:
        """Add the next frame; returns the model's utterance after it, or None if it keeps watching.

        Args:
            frame_HWC: uint8 RGB; all frames are resized to the size of the first.
            seconds: time of the frame since the start of the stream.
            said: a user message after the frame; the model then waits for the next frame, as in its training.

        Raises:
            DataError: more frames than expected, no room for the frame, or the frame is not a picture.
        """
        if self.num_frames >= self._max_frames:
            raise DataError(
                f"the stream already has {self.num_frames} frames, its maximum, which share its vision tokens. Start a "
                "new stream, or set a larger expected_frames."
            )
        self._feed(render_stream_frame(seconds), self._prepare(frame_HWC))
        self.num_frames += 1
        assert self._decoding is not None
        if said is not None:
            self.say(said)
            return None
        scores_W = self._decoding.scores()[0]
        if not scores_W[self._tokenizer.im_start_id] > scores_W[self._tokenizer.stream_start_id]:
            return None
        for token in self._tokenizer.encode(ASSISTANT_HEADER):
            self._decoding.add([token])
        return self._speak()

    def _speak(self) -> str:
        """Generate an utterance and end its message."""
        assert self._decoding is not None
        room_tokens = self._settings.data.max_length_tokens - self._decoding.num_tokens
        ids = list(answer_tokens(self._decoding, self._tokenizer, min(self._max_new_tokens, room_tokens), self._choose))
        for token in self._tokenizer.encode(f"{MESSAGE_END}\n"):
            self._decoding.add([token])
        return self._tokenizer.decode(ids).strip()

    @torch.inference_mode()
    def _feed(self, message: Message, media: PreparedSample) -> None:
        chat = encode_messages([message], self._tokenizer)
        ids_T = expand_images(
            chat, [int(media.keep_M.sum())] * len(media.grid_thw_I3), self._tokenizer.image_id
        ).input_ids_T
        held = self._decoding.num_tokens if self._decoding is not None else 0
        if held + len(ids_T) >= self._settings.data.max_length_tokens:
            raise DataError(
                f"the stream has {held} tokens and {len(ids_T)} more do not fit into "
                f"{self._settings.data.max_length_tokens} (data.max_length_tokens). Start a new stream."
            )
        prompt = Prompt(ids_T=ids_T, media=media)
        if self._decoding is None:
            self._decoding = Decoding(self._model, [prompt], self._max_new_tokens)
        else:
            self._decoding.feed(prompt)

    def _prepare(self, frame_HWC: np.ndarray) -> PreparedSample:
        """Resize the frame, prune it against the previous one, and cut it into patches."""
        merge, data, patch_size = self._settings.video_merge_size, self._settings.data, self._settings.patch_size
        if frame_HWC.dtype != np.uint8 or frame_HWC.ndim != 3 or frame_HWC.shape[2] != 3:
            raise DataError(
                f"a frame has shape {frame_HWC.shape} and type {frame_HWC.dtype}; it must be uint8 (height, width, 3)."
            )
        if self._settings.picture is not None:
            self._settings.picture.check_merge(merge)
            frame_HWC = square_image(frame_HWC, self._settings.picture)
            size = frame_HWC.shape[:2]
        elif self._before_HWC is None:
            # Later frames are unknown, so the budget is shared by the maximum number; all frames then keep this size.
            size = fit_size(
                *frame_HWC.shape[:2],
                num_items=self._max_frames,
                merge_size=merge,
                patch_size=patch_size,
                min_tokens=data.min_item_tokens,
                max_tokens=data.visual_budget_tokens,
            )
        else:
            size = self._before_HWC.shape[:2]
        frame_HWC = resize_image(frame_HWC, *size)
        pixels_PC, grid = patchify(frame_HWC[None], merge, patch_size)
        keep_M = self._keep(frame_HWC, len(pixels_PC) // merge**2)
        self._before_HWC = frame_HWC
        if data.prune_before_encoder:
            pixels_PC = kept_patches(pixels_PC, keep_M, merge)
        return _media(pixels_PC, np.array([grid], dtype=np.int64), np.array([merge], dtype=np.int64), keep_M)

    def _keep(self, frame_HWC: np.ndarray, num_tokens: int) -> np.ndarray:
        if self._before_HWC is None or not self._settings.difffp:
            return np.ones(num_tokens, dtype=bool)
        data = self._settings.data
        keep_M = keep_mask(
            np.stack([self._before_HWC, frame_HWC]),
            patch_size=self._settings.patch_size,
            merge_size=self._settings.video_merge_size,
            threshold=data.difffp_threshold,
            min_tokens=data.difffp_min_tokens,
            scale=data.difffp_scale,
        )
        return keep_M[num_tokens:]


def _no_media() -> PreparedSample:
    return _media(
        np.zeros((0, 0), np.uint8), np.zeros((0, 3), np.int64), np.zeros(0, np.int64), np.zeros(0, dtype=bool)
    )


def _media(
    pixels_PC: np.ndarray, grid_thw_I3: np.ndarray, merge_sizes_I: np.ndarray, keep_M: np.ndarray
) -> PreparedSample:
    """A sample that has only media."""
    nothing = np.zeros(0, dtype=np.int64)
    return PreparedSample(
        sample_id="stream",
        input_ids_T=nothing,
        labels_T=nothing,
        pixels_PC=pixels_PC,
        grid_thw_I3=grid_thw_I3,
        merge_sizes_I=merge_sizes_I,
        keep_M=keep_M,
        answer_start=0,
    )
