"""What is held out: groups by content, of which few move when samples are added."""

import hashlib
import random

import numpy as np
import pytest

from vl3.data.build.splits import Groups, choose_heldout, group_by_content


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def grouped(samples: list[str]) -> Groups:
    """Groups of samples, each given as the names of its contents with spaces between."""
    contents = [sample.split() for sample in samples]
    rows = [np.frombuffer(digest(name), np.uint8) for names in contents for name in names]
    starts = np.cumsum([0, *(len(names) for names in contents)])[:-1]
    return group_by_content(np.array(rows, np.uint8).reshape(-1, 32), starts)


def names_of(groups: Groups) -> list[bytes]:
    return [groups.names_G[group].tobytes() for group in groups.of_S]


def heldout(samples: list[str], fraction: float) -> list[bool]:
    groups = grouped(samples)
    return choose_heldout(groups, fraction)[groups.of_S].tolist()


def test_samples_that_share_files_over_others_are_one_group():
    names = names_of(grouped(["cat", "dog cat", "dog", "car", "text", "text"]))
    shared = min(digest("cat"), digest("dog"))
    assert names == [shared, shared, shared, digest("car"), digest("text"), digest("text")]


def test_groups_do_not_depend_on_the_order():
    edges = [f"d{n} d{n + 1 if n % 10 else n}" for n in range(200)]
    groups = []
    for seed in range(3):
        samples = random.Random(seed).sample(edges, len(edges))
        groups.append(dict(zip(samples, names_of(grouped(samples)), strict=True)))
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups[0].values())) == 21


def test_a_long_chain_is_one_group_in_no_time():
    chain = [f"d{n} d{n + 1}" for n in range(50_000)]
    random.Random(0).shuffle(chain)
    assert set(names_of(grouped(chain))) == {min(digest(f"d{n}") for n in range(50_001))}


def test_groups_are_those_of_a_plain_search():
    """Against a search over all pairs, on random small sets with many shared contents."""
    for seed in range(30):
        rng = random.Random(seed)
        samples = [" ".join(f"c{rng.randrange(25)}" for _ in range(rng.choice([1, 1, 2, 3]))) for _ in range(20)]
        sets = [set(sample.split()) for sample in samples]
        changed = True
        while changed:
            changed = False
            for one in sets:
                for other in sets:
                    if one != other and one & other:
                        one |= other
                        other |= one
                        changed = True
        assert names_of(grouped(samples)) == [min(digest(name) for name in one) for one in sets]


def test_no_sample_is_no_group():
    groups = grouped([])
    assert (len(groups.names_G), len(groups.of_S)) == (0, 0)
    assert not choose_heldout(groups, 0.5).any()


@pytest.mark.parametrize(("fraction", "count", "held"), [(0.0, 4, 0), (0.0001, 4, 1), (1.0, 4, 3), (0.5, 1, 0)])
def test_at_least_one_sample_is_held_out_and_one_kept(fraction, count, held):
    assert sum(heldout([f"{n}" for n in range(count)], fraction)) == held


def test_a_group_larger_than_the_share_stays_in_training():
    """Whatever its hash: 60 of 100 samples share one picture under 40 seeds of names."""
    for seed in range(40):
        split = heldout([f"{seed}-{max(n, 60)}" for n in range(101)], 0.1)
        assert not any(split[:61])
        assert 1 <= sum(split) <= 15


def test_where_all_share_one_file_nothing_is_held_out():
    assert not any(heldout([f"d{n} d{(n + 1) % 40}" for n in range(40)], 0.1))


def test_new_samples_move_no_others():
    samples = [f"d{n // 2}" for n in range(2000)]
    before, after = heldout(samples[:1000], 0.1), heldout(samples, 0.1)
    assert after[:1000] == before
    assert 0.07 < sum(after) / 2000 < 0.13
