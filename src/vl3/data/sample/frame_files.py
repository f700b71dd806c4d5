"""Pictures shown at a rate as a clip: the same facts, plan and frames as a video file has (`VideoSource`).

Legend: F frames, H height, W width, C channels.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np

from vl3.data.sample.clips import Clip
from vl3.data.sample.image import decode_image, image_size
from vl3.data.sample.media import MediaContent
from vl3.data.sample.picture_damage import check_picture
from vl3.data.sample.problems import MAX_PATH_CHARACTERS, ProblemKind, SampleProblem, printable
from vl3.data.sample.sampling import choose_frames
from vl3.data.sample.video import FramePlan, VideoFacts


class FrameFiles:
    """The pictures of a clip. Picture i is shown from i/fps to (i+1)/fps seconds."""

    def __init__(self, clip: Clip, media: Mapping[str, MediaContent], where: str, *, whole: bool = False) -> None:
        """Read the size of the first picture.

        Args:
            clip: names the pictures and their rate.
            media: content of each picture.
            where: the sample, for messages.
            whole: decode also the pictures that are not planned, to find damage.

        Raises:
            SampleProblem: it cannot be read.
        """
        assert clip.frames_fps is not None
        self._clip, self._media, self._where, self._whole = clip, media, where, whole
        self._rate = Fraction(clip.frames_fps).limit_denominator(100_000)
        height_px, width_px = image_size(media[clip.frames[0]], self._place(clip.frames[0]))
        self.facts = VideoFacts(
            duration_seconds=float(len(clip.frames) / self._rate),
            fps=clip.frames_fps,
            width_px=width_px,
            height_px=height_px,
            num_frames=len(clip.frames),
        )

    def plan(
        self, *, fps: float, max_frames: int, start_seconds: float | None = None, end_seconds: float | None = None
    ) -> FramePlan:
        """Choose the frames by the rule of videos; `pts_F` are indices of pictures.

        Seven pictures at 3 per second, sampled at fps=1: pictures 2 and 5, called 0.0 and 1.0 s.

        Raises:
            SampleProblem: there is no picture between start and end.
        """
        start = Fraction(start_seconds or 0.0)
        first = -int(-start * self._rate // 1)  # rounded up: the first picture that begins at the start or later
        end = Fraction(end_seconds) if end_seconds is not None else None
        last = self.facts.num_frames if end is None else min(self.facts.num_frames, -int(-end * self._rate // 1))
        if first >= last:
            until = "the end" if end_seconds is None else f"{end_seconds} s"
            raise SampleProblem(
                ProblemKind.TIMES,
                f"the {self.facts.num_frames} pictures, {self.facts.duration_seconds:.2f} s, have none between "
                f"{float(start):g} s and {until}. Correct the times.",
                self._where,
            )
        scale = Fraction(fps).limit_denominator(100_000)
        slots = np.array([int((index / self._rate - start) * scale) for index in range(first, last)], dtype=np.int64)
        end_slot = int((last / self._rate - start) * scale)
        chosen, wanted = choose_frames(slots, end_slot, max_frames)
        return FramePlan(pts_F=first + chosen, timestamps_F=float(start) + wanted / float(scale))

    def frames(self, plan: FramePlan) -> Iterator[np.ndarray]:
        """The planned pictures in order, uint8 RGB (H, W, 3), all with the size of `facts`.

        Raises:
            SampleProblem: a picture cannot be decoded, is damaged, or has another size than the first.
        """
        for index, repeats in zip(*np.unique(plan.pts_F, return_counts=True), strict=True):
            yield from [self._shown(self._clip.frames[index])] * int(repeats)
        if self._whole:
            for path in self._clip.frames:
                check_picture(self._media[path], self._place(path))

    def _shown(self, path: str) -> np.ndarray:
        picture_HWC = decode_image(self._media[path], self._place(path))
        if picture_HWC.shape[:2] != (self.facts.height_px, self.facts.width_px):
            height_px, width_px = picture_HWC.shape[:2]
            raise SampleProblem(
                ProblemKind.UNDECODABLE,
                f"the frame has {width_px}x{height_px} px, the first one {self.facts.width_px}x{self.facts.height_px}. "
                "Give all frames of a clip one size, or list them as images.",
                self._place(path),
            )
        return picture_HWC

    def _place(self, path: str) -> str:
        return f"{self._where}: {printable(path, MAX_PATH_CHARACTERS)}"
