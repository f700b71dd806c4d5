"""How much a video moves: dense optical flow between small frames (OpenCV's DIS, arXiv 1603.03590)."""

import numpy as np


class MotionMeter:
    """Takes frames one by one.

    A picture of 256 px that moves 8 px to the right from one frame to the next, 0.125 s later: 8 / 256 / 0.125, so 0.25
    widths per second.
    """

    def __init__(self) -> None:
        """No frame has been seen."""
        import cv2

        self._grey = lambda image_HWC: cv2.cvtColor(image_HWC, cv2.COLOR_BGR2GRAY)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: tuple[float, np.ndarray] | None = None

    def add(self, time_seconds: float, image_HWC: np.ndarray) -> float | None:
        """Mean speed since the frame before, in widths of the picture per second; None for the first frame.

        Args:
            time_seconds: of the frame, later than the one before.
            image_HWC: uint8 BGR, of the same size each time.
        """
        now = (time_seconds, self._grey(image_HWC))
        before, self._before = self._before, now
        if before is None:
            return None
        flow_HW2 = self._flow.calc(before[1], now[1], None)  # type: ignore[call-overload]  # the stubs want the result's array
        pixels = float(np.hypot(flow_HW2[..., 0], flow_HW2[..., 1]).mean())
        return pixels / image_HWC.shape[1] / (now[0] - before[0])
