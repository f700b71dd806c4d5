"""A benchmark's local copy: its published files, checked against the entry, with its media unpacked.

    chartqa/
      benchmark.json     which benchmark, how many questions, what is missing
      repository/        README.md and data files as on the hub; lmms-eval's task loads this folder
      media/videomme/... what lmms-eval looks for below HF_HOME

Nothing is downloaded: `root` is a folder, or a copy of an S3 one, that somebody has brought in.
"""

import json
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from vl3.errors import DataError
from vl3.evaluation.catalogue.card import DataFiles, columns_of, find_files, rows_of, values_of
from vl3.evaluation.catalogue.entry import Benchmark, Part
from vl3.system.files import atomic_write_text, read_record

COPY_FILE = "benchmark.json"
REPOSITORY_FOLDER = "repository"
MEDIA_FOLDER = "media"
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_DATA = (".parquet", ".json", ".jsonl", ".csv", ".arrow")
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkCopy:
    """What a copy has."""

    benchmark: str
    items: int
    """Questions it has."""
    expected: int
    """Questions of the published benchmark."""
    missing_media: int = 0
    """Files that questions name and the copy lacks."""
    problems: tuple[str, ...] = field(default=())
    """How it differs from the published benchmark; empty if it does not."""

    @property
    def is_complete(self) -> bool:
        """Whether scores of this copy are the benchmark's."""
        return not self.problems


def make_copy(benchmark: Benchmark, root: Path, out: Path, *, partial: bool = False) -> BenchmarkCopy:
    """Check a published layout and write the copy that evaluations use.

    Args:
        benchmark: the entry.
        root: the published repository's files.
        out: empty folder to write into.
        partial: accept another number of questions and missing media; scores are then marked as of a part.

    Raises:
        DataError: files or columns are missing, an archive is damaged or would write outside, or the copy is not
            complete and `partial` is not set. All that is wrong is named.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder, so there is no {benchmark.title} to bring. Correct --root.")
    found = {part.task: find_files(root, part) for part in benchmark.parts}
    problems = [problem for part in benchmark.parts for problem in _check_part(benchmark, part, found[part.task])]
    items = sum(rows_of(files) for files in found.values())
    _bring_repository(root, out / REPOSITORY_FOLDER)
    missing = 0
    if benchmark.layout.media:
        media = out / MEDIA_FOLDER / benchmark.layout.media
        _bring_media(root, media)
        gone = sorted(set(_absent(benchmark, found, media)))
        missing = len(gone)
        if gone:
            named = ", ".join(gone[:_SHOWN])
            problems.append(f"{missing} of the media that its questions name are missing, such as {named}")
    copy = BenchmarkCopy(
        benchmark=benchmark.name,
        items=items,
        expected=benchmark.items,
        missing_media=missing,
        problems=tuple(problems),
    )
    if problems and not partial:
        raise DataError(
            f"{root} is not the whole of {benchmark.title} as lmms-eval reads it ({benchmark.layout.repository}): "
            f"{'; '.join(problems)}. A score of it would not be the benchmark's. Bring the missing files, or give "
            "--partial to use it as it is, with every score marked."
        )
    content = {
        "benchmark": copy.benchmark,
        "items": items,
        "expected": copy.expected,
        "missing_media": missing,
        "problems": problems,
        "repository": benchmark.layout.repository,
    }
    atomic_write_text(out / COPY_FILE, json.dumps(content, indent=1) + "\n")
    return copy


def read_copy(folder: Path, benchmark: Benchmark) -> BenchmarkCopy:
    """What a folder that `make_copy` has written contains.

    Raises:
        DataError: it is not such a folder, or of another benchmark.
    """
    path = folder / COPY_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} has no {COPY_FILE}, so it is no copy of {benchmark.title}. Make one: vl3 eval data "
            f"{benchmark.name} --root DIR --out URI."
        )
    data = read_record(path)
    if data.get("benchmark") != benchmark.name:
        raise DataError(
            f"{folder} is a copy of {data.get('benchmark')!r}, not of {benchmark.name!r}. Name another one."
        )
    return BenchmarkCopy(
        benchmark=benchmark.name,
        items=int(data["items"]),
        expected=int(data["expected"]),
        missing_media=int(data["missing_media"]),
        problems=tuple(data["problems"]),
    )


def show_media(home: Path, benchmark: Benchmark, copy: Path) -> None:
    """Let lmms-eval's task find a copy's media where it looks for them: below `home`, its HF_HOME."""
    if benchmark.layout.media is None:
        return
    link = home / benchmark.layout.media
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to((copy / MEDIA_FOLDER / benchmark.layout.media).resolve())


def _check_part(benchmark: Benchmark, part: Part, files: DataFiles) -> Iterator[str]:
    columns = columns_of(files)
    absent = [name for name in benchmark.layout.columns if name not in columns]
    if absent:
        raise DataError(
            f"{files.folder}: the questions of {part.task} have the columns {', '.join(sorted(columns))} and lack "
            f"{', '.join(absent)}. It is another version than the one that lmms-eval's task reads. Bring "
            f"{benchmark.layout.repository}."
        )
    rows = rows_of(files)
    if rows != part.items:
        yield f"{part.task} has {rows} questions instead of {part.items}"


def _bring_repository(root: Path, out: Path) -> None:
    """The card and the data files, without media and archives."""
    out.mkdir(parents=True, exist_ok=True)
    for path in _files(root):
        if path.name == "README.md" or path.suffix in _DATA:
            target = out / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _bring_media(root: Path, out: Path) -> None:
    """Unpack every archive; everything else that is no data file is copied where it is."""
    out.mkdir(parents=True, exist_ok=True)
    parts: dict[Path, list[Path]] = {}
    for path in _files(root):
        whole = _whole_archive(path)
        if whole is not None:
            parts.setdefault(whole, []).append(path)
        elif path.name != "README.md" and path.suffix not in (".parquet", ".arrow", ".md"):
            target = out / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    for whole, several in sorted(parts.items()):
        _unpack(whole, sorted(several), out)


def _whole_archive(path: Path) -> Path | None:
    """The archive that a file is, or is a piece of: `videos.tar.part01` of `videos.tar`; None for other files."""
    for suffix in _ARCHIVES:
        if path.name.endswith(suffix):
            return path
    for suffix in _ARCHIVES:
        head, found, tail = path.name.rpartition(suffix + ".")
        if found and tail and len(tail) <= 8:
            return path.with_name(head + suffix)
    return None


def _unpack(whole: Path, pieces: list[Path], out: Path) -> None:
    try:
        with _joined(pieces) as stream:
            if whole.name.endswith(".zip"):
                with zipfile.ZipFile(stream) as archive:
                    for name in archive.namelist():
                        _check_name(name, whole)
                    archive.extractall(out)  # noqa: S202 (names are checked)
            else:
                with tarfile.open(fileobj=stream) as packed:
                    packed.extractall(out, filter="data")  # nothing outside, no devices, no links out of it
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise DataError(
            f"{whole}: the archive cannot be unpacked ({error}). It is damaged or only half copied; bring it again."
        ) from error


def _check_name(name: str, archive: Path) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise DataError(
            f"{archive}: contains {name!r}, which would be written outside the copy. Do not use this archive."
        )


@contextmanager
def _joined(pieces: list[Path]) -> Iterator[IO[bytes]]:
    """Pieces of a file, read as one."""
    if len(pieces) == 1:
        with pieces[0].open("rb") as only:
            yield only
        return
    with tempfile.TemporaryFile(dir=pieces[0].parent) as whole:
        for piece in pieces:
            with piece.open("rb") as source:
                shutil.copyfileobj(source, whole)
        whole.seek(0)
        yield whole


def _absent(benchmark: Benchmark, found: dict[str, DataFiles], media: Path) -> Iterator[str]:
    layout = benchmark.layout
    if layout.media_column is None:
        return
    folder = media / layout.media_folder
    for files in found.values():
        for value in values_of(files, layout.media_column):
            name = layout.media_pattern.format(value)
            stem = folder / name
            if not stem.is_file() and not any(stem.with_suffix(s).is_file() for s in (".mkv", ".webm", ".MP4")):
                yield f"{layout.media_folder}/{name}".lstrip("/")


def _files(root: Path) -> list[Path]:
    """Files of a folder, without git's own."""
    return [path for path in sorted(root.rglob("*")) if path.is_file() and ".git" not in path.relative_to(root).parts]
