"""Which frames of a video are taken: the rule of the released code, for files and for pictures shown at a rate.

Frame k is the last source frame of the interval [k/fps, (k+1)/fps), as ffmpeg's `fps` filter with round=down has it.
"""

import numpy as np


def choose_frames(slots_F: np.ndarray, end_slot: int, max_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the source frames to take, and the interval of each, which gives it its timestamp.

    Five source frames at 0.0, 0.2, 0.4, 0.6 and 0.8 s, sampled at fps=2; a slot is an interval of 0.5 s:

        slots   0 0 0 1 1       wanted 0 1       chosen 2 4, called 0.0 s and 0.5 s
        20 wanted frames and max_frames=6 give the wanted frames 0, 3, 7, 11, 15 and 19

    Args:
        slots_F: the interval in which each source frame is shown, ascending.
        end_slot: the interval in which the last one ends.
        max_frames: how many to take at most, evenly spread.
    """
    first_slot = int(slots_F[0])
    # A window shorter than one slot gives its first frame.
    count = max(end_slot - first_slot, 1)
    wanted = np.linspace(0, count - 1, max_frames).astype(np.int64) if count > max_frames else np.arange(count)
    wanted = wanted + first_slot
    chosen = np.searchsorted(slots_F, wanted, side="right") - 1 if end_slot > first_slot else np.zeros(1, np.int64)
    return chosen, wanted
