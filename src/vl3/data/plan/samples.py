"""The samples that a plan may draw from: the usable training rows of the indexes, as flat arrays.

Only the columns that a plan needs are read, part by part, and none of them becomes Python objects: 20 million rows take
about 1.7 GB while the stage is planned.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vl3.conventions import VIDEO_MERGE_SIZE
from vl3.data.build.index import INDEX_NAME, buffer_items, check_columns, integers, is_valid, read_summary
from vl3.data.plan.facts import PlannedDataset
from vl3.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE = np.dtype(
    [
        ("dataset", "<u2"),  # which of the plan's datasets
        ("kind", "<u2"),  # which kind of the mixture drew it
        ("shard", "<u4"),  # which of the dataset's shards
        ("row", "<u8"),  # row of the dataset's index
        ("offset_bytes", "<u8"),
        ("length_bytes", "<u8"),
        ("sha256", "V32"),
    ]
)
"""All that a rank needs to read a sample, 64 bytes."""

SIZE = np.dtype(
    [
        ("length_tokens", "<i4"),  # tokens in a row, after DiffFP
        ("visual_tokens", "<i4"),  # vision tokens after merging, before DiffFP
        ("patches", "<i4"),  # patches that the encoder sees
        ("patch_pairs", "<f4"),  # pairs of patches that attend to each other in the encoder
    ]
)
"""How large a sample is with a stage's settings."""

_SHARD = re.compile(r"shard-[0-9]{6,}\.tar")
_BATCH_ROWS = 1 << 17
MAX_BYTES = 2**50
"""More than any shard has."""
_MAX_TOKENS = 2**26
"""More than any sample has; sums of them fit into the columns of SIZE."""
_HEX = np.full(256, 255, dtype=np.uint8)
_HEX[np.frombuffer(b"0123456789abcdef", dtype=np.uint8)] = np.arange(16)


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeRule:
    """The settings of a stage that decide how large its samples are."""

    image_merge_size: int
    """Side of the square of patches that are merged into one image token."""
    difffp: bool
    """Whether video tokens that do not change are dropped."""
    prune_before_encoder: bool
    """Whether the encoder does not see the dropped ones either."""
    fixed_side_patches: int | None = None
    """Patches along the side of the square that every picture and frame becomes; None keeps their shapes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleTable:
    """The usable training samples of some datasets: S samples, each with its place, its size and its source."""

    datasets: tuple[PlannedDataset, ...]
    places: np.ndarray
    """SAMPLE (S); `kind` is 0."""
    sizes: np.ndarray
    """SIZE (S)."""
    sources: np.ndarray
    """Number of the sample's source, int32 (S)."""
    source_names: tuple[tuple[int, str, str], ...]
    """Number of the dataset, category and source by that number."""

    def __len__(self) -> int:
        return len(self.places)


def read_samples(folders: Sequence[Path], rule: SizeRule) -> SampleTable:
    """Read the indexes of built datasets.

    Raises:
        DataError: a folder is not a complete dataset, or its index cannot be read or contradicts itself.
    """
    names: dict[tuple[int, str, str], int] = {}
    datasets = []
    table = _Columns()
    for number, folder in enumerate(folders):
        read_summary(folder)
        shards: dict[str, int] = {}
        _read_index(folder / INDEX_NAME, number, rule, names, shards, table)
        datasets.append(PlannedDataset(index_sha256=_sha256(folder / INDEX_NAME), shards=tuple(shards)))
    return SampleTable(
        datasets=tuple(datasets),
        places=table.places[: table.filled],
        sizes=table.sizes[: table.filled],
        sources=table.sources[: table.filled],
        source_names=tuple(names),
    )


class _Columns:
    """The columns of a SampleTable that grow by an index at a time and are filled by a batch at a time."""

    def __init__(self) -> None:
        self.places = np.empty(0, dtype=SAMPLE)
        self.sizes = np.empty(0, dtype=SIZE)
        self.sources = np.empty(0, dtype=np.int32)
        self.filled = 0

    def reserve(self, rows: int) -> None:
        """Make room for the rows of one more index; what is not filled takes no memory."""
        for name in ("places", "sizes", "sources"):
            column = getattr(self, name)
            longer = np.empty(self.filled + rows, dtype=column.dtype)
            longer[: self.filled] = column[: self.filled]
            setattr(self, name, longer)

    def append(self, places: np.ndarray, sizes: np.ndarray, sources: np.ndarray) -> None:
        """Fill in the samples of a batch."""
        part = slice(self.filled, self.filled + len(places))
        self.places[part], self.sizes[part], self.sources[part] = places, sizes, sources
        self.filled = part.stop


def _read_index(
    path: Path,
    dataset: int,
    rule: SizeRule,
    names: dict[tuple[int, str, str], int],
    shards: dict[str, int],
    table: _Columns,
) -> None:
    """Read an index batch by batch; `names` and `shards` grow with what is found."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [*_PLACE, *_SOURCE, *_SIZES, *_vision_columns(rule.image_merge_size)]
    first_row = 0
    try:
        with pq.ParquetFile(path) as file:
            check_columns(file.schema_arrow.names, path)
            table.reserve(file.metadata.num_rows)
            for batch in file.iter_batches(_BATCH_ROWS, columns=columns, use_threads=False):
                table.append(*_read_batch(batch, first_row, dataset, rule, names, shards))
                first_row += batch.num_rows
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Build the dataset again with `vl3 data build`.") from error


_PLACE = ("shard", "offset_bytes", "length_bytes", "sha256")
_SOURCE = ("split", "problem_kind", "category", "source")
_SIZES = ("text_tokens", "num_images", "num_frames")


def _read_batch(
    batch: "pa.RecordBatch",
    first_row: int,
    dataset: int,
    rule: SizeRule,
    names: dict[tuple[int, str, str], int],
    shards: dict[str, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, sizes and source numbers of the usable training samples of a batch."""
    usable = (_texts(batch, "split") == "train") & ~is_valid(batch.column("problem_kind"))
    places = np.zeros(int(usable.sum()), dtype=SAMPLE)
    places["dataset"], places["row"] = dataset, first_row + np.flatnonzero(usable)
    places["shard"] = _shard_numbers(batch, usable, shards)
    for name in ("offset_bytes", "length_bytes"):
        places[name] = _counts(batch, name, usable)
    places["sha256"] = _digests(batch.column("sha256"), usable)
    return places, _sizes(batch, usable, rule), _source_numbers(batch, usable, dataset, names)


def _sizes(batch: "pa.RecordBatch", usable: np.ndarray, rule: SizeRule) -> np.ndarray:
    """Sizes (S) of the usable rows of a batch.

    A video of 6 frames with 24 tokens each at merge 2, of which DiffFP keeps 100: 144 vision tokens, 100 of the row's
    length; the encoder sees 576 patches, and 6 * 96 * 96 pairs of them.
    """
    if rule.fixed_side_patches is None:
        image, video, kept = (_counts(batch, name, usable) for name in _vision_columns(rule.image_merge_size))
    else:
        image, video = _of_squares(batch, usable, rule)
        kept = video
    kept = kept if rule.difffp else video
    sizes = np.zeros(len(image), dtype=SIZE)
    sizes["length_tokens"] = _counts(batch, "text_tokens", usable) + image + kept
    sizes["visual_tokens"] = image + video
    encoded = kept if rule.prune_before_encoder else video
    for tokens, pictures, merge in (
        (image, "num_images", rule.image_merge_size),
        (encoded, "num_frames", VIDEO_MERGE_SIZE),
    ):
        patches = tokens * merge**2
        sizes["patches"] += patches.astype(np.int32)
        pairs = patches.astype(np.float64) ** 2 / np.maximum(_counts(batch, pictures, usable), 1)
        sizes["patch_pairs"] += pairs.astype(np.float32)
    return sizes


def _of_squares(batch: "pa.RecordBatch", usable: np.ndarray, rule: SizeRule) -> tuple[np.ndarray, np.ndarray]:
    """Image and video tokens of squares of one size, which follow from the numbers of pictures and frames.

    24 patches a side, image merge 1: 576 tokens a picture, and 12 * 12 = 144 a frame. With 27 a side a frame cannot be
    merged 2 x 2; a sample with frames then gets more tokens than any row has, so that it is left out by name.
    """
    side = rule.fixed_side_patches or 0
    images, frames = (_counts(batch, name, usable) for name in ("num_images", "num_frames"))
    image = images * (side // rule.image_merge_size) ** 2
    if side % VIDEO_MERGE_SIZE:
        return image, np.where(frames > 0, _MAX_TOKENS, 0)
    return image, frames * (side // VIDEO_MERGE_SIZE) ** 2


def _vision_columns(image_merge_size: int) -> list[str]:
    """The columns of image tokens, video tokens, and those that DiffFP keeps, for an image merge."""
    return [f"{kind}_tokens_m{image_merge_size}" for kind in ("image", "video", "kept")]


def _counts(batch: "pa.RecordBatch", name: str, usable: np.ndarray) -> np.ndarray:
    """A column of numbers that cannot be negative; null is 0."""
    numbers = integers(batch.column(name))[usable]
    limit = MAX_BYTES if name.endswith("_bytes") else _MAX_TOKENS
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() <= limit):
        raise ValueError(f"its column {name} has values from {numbers.min()} to {numbers.max()}")
    return numbers


def _shard_numbers(batch: "pa.RecordBatch", usable: np.ndarray, shards: dict[str, int]) -> np.ndarray:
    names, inverse = _distinct(batch, "shard", usable)
    for name in names:
        if not _SHARD.fullmatch(name):
            raise ValueError(f"it names the shard {name!r:.200}, which is no file of a dataset")
    return np.array([shards.setdefault(name, len(shards)) for name in names], dtype=np.uint32)[inverse]


def _source_numbers(
    batch: "pa.RecordBatch", usable: np.ndarray, dataset: int, names: dict[tuple[int, str, str], int]
) -> np.ndarray:
    """Number of each sample's (dataset, category, source): the pairs of a batch are few, whatever its length."""
    categories, category_codes = _distinct(batch, "category", usable)
    sources, source_codes = _distinct(batch, "source", usable)
    pairs, inverse = np.unique(category_codes * len(sources) + source_codes, return_inverse=True)
    found = [(dataset, categories[pair // len(sources)], sources[pair % len(sources)]) for pair in pairs.tolist()]
    return np.array([names.setdefault(name, len(names)) for name in found], dtype=np.int32)[inverse]


def _texts(batch: "pa.RecordBatch", name: str) -> np.ndarray:
    """A column of texts, object (rows,); equal ones are one object, and null is the empty text."""
    encoded = batch.column(name).dictionary_encode()
    texts = np.array(["", *encoded.dictionary.to_pylist()], dtype=object)
    return texts[(integers(encoded.indices) + 1) * is_valid(encoded.indices)]


def _distinct(batch: "pa.RecordBatch", name: str, usable: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The texts of the usable rows of a column, in the order of their first row, and the number of each row's."""
    encoded = batch.column(name).dictionary_encode()
    texts = ["", *encoded.dictionary.to_pylist()]
    codes = ((integers(encoded.indices) + 1) * is_valid(encoded.indices))[usable]
    found, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    by_first = np.argsort(first, kind="stable")
    rank = np.empty_like(by_first)
    rank[by_first] = np.arange(len(by_first))
    return [texts[code] for code in found[by_first].tolist()], rank[inverse]


def _digests(column: "pa.Array", usable: np.ndarray) -> np.ndarray:
    """The bytes of the usable rows' hexadecimal digests, V32 (S)."""
    _, starts, text = column.buffers()
    offsets = buffer_items(starts, "int32")[column.offset : column.offset + len(column) + 1]
    lengths = np.diff(offsets)
    if (lengths[usable] != 64).any() or not np.isin(lengths, (0, 64)).all():
        raise ValueError("its column sha256 has no digest for some usable sample")
    digits = _HEX[buffer_items(text, "uint8")[offsets[0] : offsets[-1]]].reshape(-1, 64)
    digits = digits[(np.cumsum(lengths) // 64 - 1)[usable]]
    if digits.max(initial=0) > 15:
        raise ValueError("its column sha256 has a text that is no digest")
    return (digits[:, 0::2] << 4 | digits[:, 1::2]).astype(np.uint8).view("V32").ravel()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
