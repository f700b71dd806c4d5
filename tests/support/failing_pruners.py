"""Pruners that die, hang or take all memory on a dark video; worker processes import this file by its folder."""

import os
import signal
import time
from pathlib import Path

import numpy as np

DARK_LEVEL = 60


def keep_all(frames_FHWC: np.ndarray, *, patch_size: int, merge_size: int, threshold: float, min_tokens: int, **_):
    side = patch_size * merge_size
    frames, height, width, _ = frames_FHWC.shape
    return np.ones(frames * (height // side) * (width // side), dtype=bool)


def crash_on_dark(frames_FHWC: np.ndarray, **limits):
    if frames_FHWC.mean() < DARK_LEVEL:
        os.kill(os.getpid(), signal.SIGSEGV)
    return keep_all(frames_FHWC, **limits)


def hang_on_dark(frames_FHWC: np.ndarray, **limits):
    if frames_FHWC.mean() < DARK_LEVEL:
        time.sleep(1000)
    return keep_all(frames_FHWC, **limits)


def fill_memory_on_dark(frames_FHWC: np.ndarray, **limits):
    if frames_FHWC.mean() < DARK_LEVEL:
        np.ones(3 << 30, dtype=np.uint8)
    return keep_all(frames_FHWC, **limits)


def count(frames_FHWC: np.ndarray, **limits):
    """Add a byte to the file that the environment names."""
    with Path(os.environ["PRUNER_CALLS"]).open("ab") as file:
        file.write(b".")
    return keep_all(frames_FHWC, **limits)


_kept: list[np.ndarray] = []


def leak(frames_FHWC: np.ndarray, **limits):
    """Keep four tenths of the memory that a process may have with each call."""
    _kept.append(np.ones(420 << 20, dtype=np.uint8))
    return keep_all(frames_FHWC, **limits)
