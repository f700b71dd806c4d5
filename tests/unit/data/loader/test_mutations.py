"""Damaged shards and plans through the loader: each is refused, or is what was written; nothing ends or hangs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.mutations import mutated
from tests.support.shard_mutations import samples_of, with_wrong_digests, write_mutated
from vl3.data.loader.stage_loader import StageLoader
from vl3.data.plan.stage_plan import Pack, StagePlan
from vl3.errors import ConfigError, DataError

COUNT = 150


def test_damaged_samples_whose_digest_is_right_are_refused_or_good(
    make_loader: Callable[..., StageLoader],
    videos: Path,
    video_plan: StagePlan,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plan = write_mutated(videos, samples_of(video_plan), tmp_path / "damaged", COUNT)
    with make_loader(plan, (tmp_path / "damaged").as_uri(), max_bad_fraction=1.0) as loader:
        rows = [row for step in loader for row in step.rows]
    bad = loader.ledger.bad_samples
    assert len(rows) == COUNT
    assert len([row for row in rows if not row.sample_ids]) == len(bad)
    assert COUNT / 4 < len(bad) < COUNT
    assert [message for message in caplog.messages if "left out" in message] == []  # no process was lost
    assert all(one.reason for one in bad)


def test_samples_with_another_digest_are_all_refused(
    make_loader: Callable[..., StageLoader], videos: Path, video_plan: StagePlan, tmp_path: Path
) -> None:
    plan = with_wrong_digests(write_mutated(videos, samples_of(video_plan), tmp_path / "damaged", 50))
    with make_loader(plan, (tmp_path / "damaged").as_uri(), max_bad_fraction=1.0) as loader:
        assert all(row.sample_ids == () for step in loader for row in step.rows)
    assert len(loader.ledger.bad_samples) == 50
    assert all("do not match the digest in the index" in one.reason for one in loader.ledger.bad_samples)


def packs_of(folder: Path, index_sha256: tuple[str, ...]) -> list[list[Pack]]:
    with StagePlan(folder) as plan:
        plan.check(world_size=1, index_sha256=index_sha256)
        return [plan.deal(step, 0, 1) for step in range(plan.steps)]


@pytest.mark.parametrize("name", ["plan.json", "samples.npy", "packs.npy", "drawn.npy"])
def test_a_damaged_plan_is_refused_or_gives_the_same_rows(video_plan: StagePlan, tmp_path: Path, name: str) -> None:
    folder, whole = tmp_path / "plan", (tmp_path / "plan" / name).read_bytes()
    digests = tuple(one.index_sha256 for one in video_plan.facts.datasets)
    packs, refused = packs_of(folder, digests), 0
    for seed in range(150):
        (folder / name).write_bytes(mutated(whole, whole[::-1], f"{name} {seed}"))
        try:
            found = packs_of(folder, digests)
        except (DataError, ConfigError):
            refused += 1
        else:
            assert found == packs
    assert refused > 75
