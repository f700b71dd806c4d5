"""Clusters of CLIP features, and a fixed number of images from each (paper sec. 2.3), with FAISS.

The paper clusters features "with the k-nearest-neighbours method to find cluster centres" and takes a fixed number of
images from each. Here k-means on a sample finds the centres, and of each centre the nearest neighbours are kept.
Neighbours that are nearly the same picture can be left out (max_similarity), as in SemDeDup (arXiv 2303.09540).

Legend: N images · D features · K clusters.
"""

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vl3.config.curation import SelectionStep
from vl3.curation.whole import NO_OTHER, Drops, Whole
from vl3.errors import ConfigError
from vl3.store.objects import open_store
from vl3.store.uris import join_uri
from vl3.validation.spill import Spill

_ITERATIONS = 20
_BUCKETS = 64
CENTRES_FILE, MEMBERS = "centres.npy", "members"


def select_of_clusters(whole: Whole, name: str, step: SelectionStep, seed: int) -> None:
    """Keep the `per_cluster` images nearest to the centre of each cluster; drop the others."""
    centres_KD = _find_centres(whole, step, seed)
    words = f"rank {{value}} in its cluster, of which {step.per_cluster} are kept"
    kind = _record(centres_KD.shape[1] if step.max_similarity < 1 else 0)
    with (
        whole.dropping(name, words) as drops,
        tempfile.TemporaryDirectory(prefix="vl3-clusters-") as folder,
        Spill(Path(folder, "members"), kind, _BUCKETS) as spill,
    ):
        for live in whole.live(step.column):
            records = np.zeros(len(live.positions_N), dtype=kind)
            if len(records):
                features_ND = normalised(live.values_N)
                records["cluster"], records["similarity"] = assign(features_ND, centres_KD)
                records["position"] = live.positions_N
                if step.max_similarity < 1:
                    records["features"] = features_ND
            spill.add(records, records["cluster"].astype(np.int64) % _BUCKETS)
            _note(whole, live.part.name, records)
        for bucket in range(_BUCKETS):
            _select_in(spill.read(bucket), step, drops)


def find_centres(features_ND: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Centres (K, D) of normalised features by spherical k-means; K is at most N.

    Raises:
        ConfigError: FAISS is not installed.
    """
    faiss = _faiss()
    count = min(num_clusters, len(features_ND))
    kmeans = faiss.Kmeans(
        features_ND.shape[1],
        count,
        niter=_ITERATIONS,
        seed=seed + 1,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=max(256, len(features_ND) // count + 1),
    )
    kmeans.train(features_ND)
    return kmeans.centroids


def assign(features_ND: np.ndarray, centres_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre (N,) of each image and the cosine similarity to it (N,), by exact search."""
    faiss = _faiss()
    index = faiss.IndexFlatIP(centres_KD.shape[1])
    index.add(centres_KD)
    similarity, cluster = index.search(features_ND, 1)
    return cluster[:, 0], similarity[:, 0]


def neighbours(
    features_ND: np.ndarray, queries_QD: np.ndarray, centres_KD: np.ndarray, count: int, num_probed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest images of each query, looked for in its `num_probed` nearest clusters: places (Q, count) and
    similarities. All clusters probed is exact search.
    """
    faiss = _faiss()
    quantizer = faiss.IndexFlatIP(centres_KD.shape[1])
    quantizer.add(centres_KD)
    index = faiss.IndexIVFFlat(quantizer, centres_KD.shape[1], len(centres_KD), faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    index.add(features_ND)
    index.nprobe = num_probed
    similarity, places = index.search(queries_QD, count)
    return places, similarity


def normalised(features_ND: np.ndarray) -> np.ndarray:
    """Features of length 1 as float32; a row of zeros stays."""
    features = np.ascontiguousarray(features_ND, dtype=np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1.0)


def _find_centres(whole: Whole, step: SelectionStep, seed: int) -> np.ndarray:
    """The centres, which are kept: a restart assigns to the same ones."""
    store = open_store(join_uri(whole.places.uri, "clusters", whole.closed_key))
    kept = store.read(CENTRES_FILE)
    if kept is not None:
        return np.load(io.BytesIO(kept), allow_pickle=False)
    total = sum(len(live.positions_N) for live in whole.live("sha256"))
    sample = [one for one in _evenly(whole, step, total) if len(one)]
    if not sample:
        raise ConfigError(
            f"no image is left for the clusters of {step.column}: the steps before it drop all "
            f"{int(whole.offsets[-1])}. Look at the funnel, and lower a threshold."
        )
    centres_KD = find_centres(normalised(np.concatenate(sample)), step.num_clusters, seed)
    file = io.BytesIO()
    np.save(file, centres_KD, allow_pickle=False)
    store.write(CENTRES_FILE, [file.getvalue()])
    return centres_KD


def _evenly(whole: Whole, step: SelectionStep, total: int) -> list[np.ndarray]:
    """Features of at most `train_images` images, evenly drawn: of 10 for 4 the images 0, 2, 5 and 7."""
    wanted, before, taken = min(step.train_images, total), 0, []
    for live in whole.live(step.column):
        numbers = np.arange(before, before + len(live.positions_N), dtype=np.int64)
        is_taken = (numbers * wanted + total - 1) // total < ((numbers + 1) * wanted + total - 1) // total
        taken.append(live.values_N[is_taken] if len(numbers) else live.values_N[:0])
        before += len(numbers)
    return taken


def _record(num_features: int) -> np.dtype:
    fields: list = [("cluster", "<u4"), ("similarity", "<f4"), ("position", "<u8")]
    return np.dtype([*fields, ("features", "<f2", (num_features,))] if num_features else fields)


def _note(whole: Whole, part: str, records: np.ndarray) -> None:
    """Keep the cluster of each image, for the pages."""
    noted = np.zeros(len(records), dtype=_record(0))
    for name in ("cluster", "similarity", "position"):
        noted[name] = records[name]
    file = io.BytesIO()
    np.save(file, noted, allow_pickle=False)
    open_store(join_uri(whole.places.uri, "clusters", whole.closed_key, "members")).write(
        f"{part}.npy", [file.getvalue()]
    )


def _select_in(records: np.ndarray, step: SelectionStep, drops: Drops) -> None:
    """Rank the members of each cluster by similarity to its centre, the earlier image first, and drop the rest."""
    records = records[np.lexsort((records["position"], -records["similarity"], records["cluster"]))]
    edges = np.flatnonzero(np.diff(records["cluster"])) + 1
    for members in np.split(records, edges):
        if not len(members):
            continue
        kept = chosen(members, step) if step.max_similarity < 1 else np.arange(len(members)) < step.per_cluster
        others = np.full(int((~kept).sum()), NO_OTHER, dtype=np.uint64)
        drops.add(members["position"][~kept], others, np.flatnonzero(~kept) + 1)


def chosen(members: np.ndarray, step: SelectionStep) -> np.ndarray:
    """Which members of a cluster are kept, (N,) bool: from the nearest to the centre on, those that are not too similar
    to one that is kept already, up to the number.
    """
    kept = np.zeros(len(members), dtype=bool)
    features = members["features"].astype(np.float32)
    for place in range(len(members)):
        if kept.sum() == step.per_cluster:
            break
        near = features[kept] @ features[place] if kept.any() else np.zeros(1)
        kept[place] = near.max() <= step.max_similarity
    return kept


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError("FAISS is not installed here. Install vl3[curation], or run in the curator image.") from error
    return faiss
