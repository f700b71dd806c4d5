"""The videos of a collection, in a folder or a bucket: their names, and each as a file of this machine."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from vl3.curation.source import held_out_records
from vl3.data.sample.media import resolve_media_path
from vl3.errors import DataError
from vl3.store.objects import open_s3
from vl3.store.uris import scheme_of
from vl3.system.files import storage_errors
from vl3.system.uris import file_path


def find_videos(uri: str, pattern: str) -> list[str]:
    """The videos whose names fit, in order, without those that are measured on.

    Args:
        uri: the data folder or bucket.
        pattern: a name for each folder on the way, as `videos/*.mp4`.

    Raises:
        DataError: there is none.
        StorageError: the store fails.
    """
    names = _in_folder(file_path(uri), pattern) if scheme_of(uri) == "file" else _in_bucket(uri, pattern)
    held_out = {clip.path for record in held_out_records(uri) for clip in record.clips}
    found = sorted(name for name in names if name not in held_out)
    if not found:
        left = f" besides the {len(held_out)} that are measured on" if held_out else ""
        raise DataError(f"{uri} has no video {pattern!r}{left}. Correct videos.pattern or DATA, or set videos=null.")
    return found


@contextmanager
def local_video(uri: str, name: str) -> Iterator[Path]:
    """A video as a file of this machine, while the block lasts.

    Raises:
        SampleProblem: there is no such file, or it leads out of the folder.
        StorageError: the store fails, or the disk is full.
    """
    if scheme_of(uri) == "file":
        yield resolve_media_path(file_path(uri), name, name)
        return
    with tempfile.TemporaryDirectory(prefix="vl3-video-") as folder:
        path = Path(folder, PurePosixPath(name).name)
        with storage_errors(path):
            open_s3(uri).get_file(name, path)
        yield path


def _in_folder(folder: Path, pattern: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file()]


def _in_bucket(uri: str, pattern: str) -> list[str]:
    """Keys that fit part by part: `videos/*` has `videos/a.mp4` and not `videos/a/b.mp4`."""
    wanted = pattern.split("/")
    start = pattern[: min((pattern.index(one) for one in "*?[" if one in pattern), default=len(pattern))]
    return [key for key in open_s3(uri).list(start) if _fits(key.split("/"), wanted)]


def _fits(parts: list[str], wanted: list[str]) -> bool:
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
