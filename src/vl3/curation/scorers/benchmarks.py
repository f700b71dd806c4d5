"""How near an image stands to the benchmarks that the model is measured on: by perceptual hash, and by text.

The index is one Parquet file (`vl3.curation.benchmark_index`): a row for each image, and one for each text.

    bench_distance   bits in which its hash differs from the nearest benchmark image; 64 without any
    bench_text       share of the text's runs of 8 words that stand in a benchmark; a shorter text counts whole
    bench_item       which item that is: `docvqa/17`

    "what is the total amount of the invoice shown here" has 10 words, so 3 runs; if 2 stand in DocVQA: 0.67
"""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from vl3.curation.scorer import Batch, version_digest
from vl3.errors import ConfigError
from vl3.store.manifest import file_sha256

_VERSION = 1
INDEX_FILE = "benchmarks.parquet"
RUN_WORDS = 8
"""Words of a run. GPT-3 took 13 (arXiv 2005.14165, app. C); captions are shorter than web pages."""
LEAST_WORDS = 4
"""A text with fewer words says too little: `a red car` stands everywhere."""
_WORD = re.compile(r"\w+")
_BLOCK = 1 << 16


class BenchmarkNearness:
    """Distance to the nearest benchmark image, share of text in benchmarks, and the item."""

    inputs = ("phash", "text")

    def __init__(self, name: str, folder: Path) -> None:
        """Read the index.

        Args:
            name: its name, prefix of its columns.
            folder: has benchmarks.parquet.

        Raises:
            ConfigError: it is missing or is no index.
        """
        path = folder / INDEX_FILE
        self.name = name
        self.outputs = (f"{name}_distance", f"{name}_text", f"{name}_item")
        try:
            table = pq.read_table(path, columns=["item", "phash", "text"])
            self.version = version_digest({"kind": "benchmarks", "code": _VERSION, "index": file_sha256(path)})
        except (OSError, KeyError, ValueError) as error:
            raise ConfigError(
                f"{path}: cannot be read as an index of benchmarks ({error}). Without it benchmark images could be "
                "trained on. Make it with `vl3 curate benchmarks`."
            ) from error
        items, hashes, texts = (table.column(column).to_pylist() for column in ("item", "phash", "text"))
        of_images = [(one, item) for one, item in zip(hashes, items, strict=True) if one]
        self._hashes = np.array([int(one, 16) for one, _ in of_images], dtype=np.uint64)
        self._image_items = [item for _, item in of_images]
        self._runs: dict[int, str] = {}
        for text, item in zip(texts, items, strict=True):
            for run in runs_of(text or ""):
                self._runs.setdefault(run, str(item))

    def __call__(self, batch: Batch) -> Batch:
        """See Scorer."""
        length = len(batch["sha256"])
        distances, shares = np.full(length, 64, dtype=np.float32), np.zeros(length, dtype=np.float32)
        items = np.full(length, "", dtype=object)
        hashes = np.array([int(one, 16) for one in batch["phash"]], dtype=np.uint64)
        for start in range(0, len(self._hashes), _BLOCK):
            bits = np.bitwise_count(hashes[:, None] ^ self._hashes[None, start : start + _BLOCK])
            nearest = bits.argmin(axis=1)
            for row in np.flatnonzero(bits[np.arange(length), nearest] < distances).tolist():
                distances[row] = bits[row, nearest[row]]
                items[row] = self._image_items[start + int(nearest[row])]
        for row, text in enumerate(batch["text"]):
            runs = runs_of(text or "")
            there = [self._runs[run] for run in runs if run in self._runs]
            if there:
                shares[row] = len(there) / len(runs)
                items[row] = items[row] or there[0]
        return dict(zip(self.outputs, (distances, shares, items), strict=True))


def runs_of(text: str) -> list[int]:
    """Hashes of the runs of words of a text, without case and punctuation; none of a text of fewer than four words."""
    import hashlib

    words = _WORD.findall(text.casefold())
    if len(words) < LEAST_WORDS:
        return []
    runs = [words[at : at + RUN_WORDS] for at in range(max(1, len(words) - RUN_WORDS + 1))]
    return [int.from_bytes(hashlib.blake2b(" ".join(run).encode(), digest_size=8).digest()) for run in runs]
