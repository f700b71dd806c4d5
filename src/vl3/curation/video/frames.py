"""The frames of a clip as a model is shown them: each after its time, decoded once, and only if they are really sent.

A clip of 20 s at 1 frame per second and at most 16: 16 frames, one every 1.25 s, called `Time 0.0s:`, `Time 1.2s:`, ...
"""

import hashlib
import math
import threading
from pathlib import Path

from vl3.curation.captions.pictures import as_jpeg
from vl3.curation.video.guarded import GuardedProcess
from vl3.curation.video.rules import VideoRules
from vl3.data.sample.problems import SampleProblem
from vl3.data.sample.video import open_video
from vl3.endpoint.question import Part, Picture

_KIND = "image/jpeg"


class ClipFrames:
    """The frames of one clip. How many there are follows from its length: nothing is opened to ask again."""

    def __init__(
        self,
        path: Path,
        sha256: str,
        start_seconds: float,
        end_seconds: float,
        rules: VideoRules,
        guard: GuardedProcess,
    ) -> None:
        """Nothing is decoded.

        Args:
            path: the video.
            sha256: its digest.
            start_seconds: of the clip.
            end_seconds: of the clip.
            rules: how many frames, and how large.
            guard: decodes them.
        """
        length = end_seconds - start_seconds
        self.count = max(1, min(rules.max_frames, math.ceil(length * rules.frames_per_second - 1e-9)))
        self._step_seconds = length / self.count
        self._arguments = (path, start_seconds, end_seconds, self.count, rules.frame_side_px, rules.jpeg_quality)
        self._digest = hashlib.sha256(repr((sha256, *self._arguments[1:])).encode()).hexdigest()
        self._guard, self._lock = guard, threading.Lock()
        self._made: list[bytes] | SampleProblem | None = None

    def parts(self) -> tuple[Part, ...]:
        """Time and picture of each frame, for a question."""
        parts: list[Part] = []
        for index in range(self.count):
            picture_digest = hashlib.sha256(f"{self._digest} {index}".encode()).hexdigest()
            parts.append(f"Time {index * self._step_seconds:.1f}s:")
            parts.append(Picture(sha256=picture_digest, load=lambda index=index: (_KIND, self._jpeg(index))))  # type: ignore[misc]
        return tuple(parts)

    def _jpeg(self, index: int) -> bytes:
        with self._lock:
            if self._made is None:
                path, start = self._arguments[:2]
                where = f"{path.name} from {start:g} s"
                try:
                    self._made = self._guard.call(clip_jpegs, *self._arguments, where, where=where)
                except SampleProblem as problem:
                    self._made = problem
            if isinstance(self._made, SampleProblem):
                raise self._made
            return self._made[min(index, len(self._made) - 1)]


def clip_jpegs(
    path: Path, start_seconds: float, end_seconds: float, count: int, side_px: int, quality: int, where: str
) -> list[bytes]:
    """About `count` frames of a clip at equal distances, as JPEG.

    Raises:
        SampleProblem: the video cannot be decoded, or has no frame there.
    """
    with open_video(path, where) as source:
        fps = count / (end_seconds - start_seconds)
        plan = source.plan(fps=fps, max_frames=count, start_seconds=start_seconds, end_seconds=end_seconds)
        return [as_jpeg(frame_HWC, side_px, quality) for frame_HWC in source.frames(plan)]
