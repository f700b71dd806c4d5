"""A prepared sample in memory without a name, which one process fills and another maps: its pixels are not copied.

The memory (memfd) lives as long as a process has it open, so that nothing is left of processes that are killed. Unlike
/dev/shm, which a container limits to 64 MiB by default, it counts only as memory.
"""

import mmap
import os
from dataclasses import dataclass

import numpy as np

from vl3.data.sample.prepare import PreparedSample

_ALIGNED_BYTES = 64
_ARRAYS = ("input_ids_T", "labels_T", "pixels_PC", "grid_thw_I3", "merge_sizes_I", "keep_M")


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedArray:
    """Where an array is in the memory."""

    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedSample:
    """What the memory holds; sent beside its descriptor."""

    sample_id: str
    answer_start: int
    arrays: tuple[SharedArray, ...]
    length_bytes: int


def share_sample(sample: PreparedSample) -> tuple[SharedSample, int]:
    """Copy the arrays of a sample into new memory; returns what is where, and the descriptor, to be closed.

    Ids of 80 bytes are at 0, labels of 80 bytes at 128, the next multiple of 64, and pixels at 256.
    """
    descriptor = os.memfd_create("vl3-sample", os.MFD_CLOEXEC)
    arrays, at = [], 0
    with open(descriptor, "wb", buffering=0, closefd=False) as memory:
        for name in _ARRAYS:
            array = np.ascontiguousarray(getattr(sample, name))
            arrays.append(SharedArray(dtype=array.dtype.str, shape=array.shape, offset_bytes=at))
            memory.seek(at)
            left = memoryview(array.data).cast("B") if array.size else memoryview(b"")
            while left:
                left = left[memory.write(left) :]
            at += -(-array.nbytes // _ALIGNED_BYTES) * _ALIGNED_BYTES
        length_bytes = max(at, 1)
        memory.truncate(length_bytes)
    shared = SharedSample(
        sample_id=sample.sample_id, answer_start=sample.answer_start, arrays=tuple(arrays), length_bytes=length_bytes
    )
    return shared, descriptor


def open_shared(shared: SharedSample, descriptor: int) -> PreparedSample:
    """The sample in the memory of a descriptor, which is closed; its arrays cannot be written to."""
    try:
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        memory = mmap.mmap(descriptor, shared.length_bytes, flags=flags, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
    arrays = {name: _view(memory, array) for name, array in zip(_ARRAYS, shared.arrays, strict=True)}
    return PreparedSample(sample_id=shared.sample_id, answer_start=shared.answer_start, **arrays)


def _view(memory: mmap.mmap, array: SharedArray) -> np.ndarray:
    count = int(np.prod(array.shape))
    return np.frombuffer(memory, dtype=array.dtype, count=count, offset=array.offset_bytes).reshape(array.shape)
