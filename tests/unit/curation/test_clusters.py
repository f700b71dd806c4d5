"""Centres, assignment, neighbours, and which images of a cluster are kept."""

import numpy as np
import pytest

from vl3.config.curation import SelectionStep
from vl3.curation.clusters import _record, assign, chosen, find_centres, neighbours, normalised

pytest.importorskip("faiss")


def groups(count: int = 60) -> np.ndarray:
    """Three groups of unit features in 8 dimensions."""
    random = np.random.default_rng(0)
    centres = np.eye(8, dtype=np.float32)[:3]
    return normalised(np.concatenate([one + 0.05 * random.normal(size=(count // 3, 8)) for one in centres]))


def test_groups_are_found_and_found_again() -> None:
    features = groups()
    centres = find_centres(features, 3, seed=0)
    clusters, similarity = assign(features, centres)
    assert [len(set(clusters[at : at + 20])) for at in (0, 20, 40)] == [1, 1, 1]
    assert len(set(clusters)) == 3
    assert similarity.min() > 0.9
    np.testing.assert_array_equal(find_centres(features, 3, seed=0), centres)


def test_more_clusters_than_images_are_as_many_as_images() -> None:
    assert find_centres(groups()[:4], 100, seed=0).shape == (4, 8)


def test_probing_all_clusters_is_exact_search() -> None:
    features = groups()
    places, similarity = neighbours(features, features[:5], find_centres(features, 3, seed=0), 4, 3)
    expected = np.argsort(-(features[:5] @ features.T), axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_allclose(similarity[:, 0], 1.0, rtol=1e-5)


def test_images_that_are_nearly_the_same_are_left_out() -> None:
    members = np.zeros(4, dtype=_record(2))
    members["features"] = [[1, 0], [0.999, 0.045], [0, 1], [-1, 0]]
    step = SelectionStep(kind="clusters", column="f", per_cluster=2, max_similarity=0.95, source="test")
    assert chosen(members, step).tolist() == [True, False, True, False]
