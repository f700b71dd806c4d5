"""Where a video cuts from one shot to the next: PySceneDetect's detector, fed by our own decoder.

A frame is a cut if it changes by a least amount and several times as much as its neighbours, so that a pan or a flash
light, which change many frames alike, is none.
"""

import numpy as np

from vl3.curation.video.rules import VideoRules


class CutFinder:
    """Takes frames one by one. Frames 0 to 9 red and 10 to 19 blue: the cuts are [10]."""

    def __init__(self, rules: VideoRules) -> None:
        """No frame has been seen."""
        from scenedetect.common import FrameTimecode
        from scenedetect.detectors import AdaptiveDetector

        self._timecode = FrameTimecode
        self._detector = AdaptiveDetector(
            adaptive_threshold=rules.cut_ratio,
            min_content_val=rules.cut_min_content,
            window_width=rules.cut_window_frames,
            min_scene_len=1,  # short shots are dropped, not joined with what they cut to
        )
        self._count = 0
        self.cuts: list[int] = []
        """The first frame of each shot but the first, by its number."""

    def add(self, image_HWC: np.ndarray) -> None:
        """The next frame, uint8 BGR."""
        found = self._detector.process_frame(self._timecode(self._count, 1.0), image_HWC)
        self.cuts += [int(timecode.frame_num) for timecode in found]
        self._count += 1
