"""Paths of media files: relative to the data folder and never outside it."""

from pathlib import Path

from vl3.data.sample.problems import ProblemKind, SampleProblem, shown


def resolve_media_path(root: Path, relative: str, where: str) -> Path:
    """The file that an annotation names, with symbolic links resolved.

    Raises:
        SampleProblem: the path leaves the data folder (`..`, an absolute path or a link), or there is no such file.
    """
    folder = root.resolve()
    try:
        path = (folder / relative).resolve()
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a circle of links, a folder without access
        detail = getattr(error, "strerror", None) or "no system takes it as a path"
        raise _missing(relative, where, f"is not a usable path ({detail})") from error
    if not path.is_relative_to(folder):
        raise SampleProblem(
            ProblemKind.OUTSIDE_FOLDER,
            f"{shown(relative)} leads outside the data folder. A dataset may read only its own files: put the file "
            "into the folder and write its path relative to the folder.",
            where,
        )
    if not is_file:
        what = "is a folder, not a file" if is_folder else "does not exist in the data folder"
        raise _missing(relative, where, what)
    return path


def read_media(path: Path, relative: str, where: str) -> bytes:
    """Bytes of a resolved media file.

    Raises:
        SampleProblem: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _missing(relative, where, f"cannot be read ({error.strerror})") from error


def _missing(relative: str, where: str, what: str) -> SampleProblem:
    return SampleProblem(
        ProblemKind.MISSING_FILE, f"media file {shown(relative)} {what}. Restore the file or drop the sample.", where
    )
