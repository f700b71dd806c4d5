"""Random faults on every fifth request: artifacts are complete or not there (the seed is printed on failure)."""

import os
import random
from pathlib import Path

import pytest

from tests.support.fault_proxy import Fault, FaultProxy, Request
from tests.unit.store.conftest import PART_BYTES
from vl3.errors import StorageError
from vl3.store.artifacts import delete, fetch, find, is_intact, publish
from vl3.store.objects import open_s3
from vl3.store.s3.connection import S3Connection

ACTIONS = {
    "reset": 0,
    "cut": 1000,
    "shorten": 1000,
    "flip": 50,
    "flip_sent": 0,
    "lose_answer": 0,
    "refuse": "503 SlowDown",
    "delay": 0.02,
}
ROUNDS = int(os.environ.get("VL3_TEST_CHAOS_ROUNDS", "6"))
SEED = int(os.environ.get("VL3_TEST_CHAOS_SEED", "0"))


class RandomFault(Fault):
    """Another fault each time, with a share of all requests."""

    def __init__(self, chance: random.Random, share: float) -> None:
        super().__init__("none")
        self.chance, self.share = chance, share

    def takes(self, request: Request) -> bool:
        if self.chance.random() > self.share:
            return False
        self.action = self.chance.choice(list(ACTIONS))
        self.value = ACTIONS[self.action]
        self.hits += 1
        return True


def test_artifacts_are_whole_or_not_there(
    faulty: S3Connection, s3: S3Connection, proxy: FaultProxy, root_uri: str, tmp_path: Path
) -> None:
    print(f"seed {SEED}, {ROUNDS} rounds")
    chance, hits, failed = random.Random(SEED), 0, 0
    for turn in range(ROUNDS):
        uri, content = f"{root_uri}/{turn}", _content(chance)
        fault = RandomFault(random.Random(SEED * 10_000 + turn), share=chance.choice((0.1, 0.2, 0.5)))
        try:
            with proxy.fault(fault):
                reference = publish(
                    _write(tmp_path / f"w{turn}", content), uri, kind="checkpoint", created_by={}, s3=faulty
                )
                folder = fetch(reference, cache=tmp_path / "cache", s3=faulty)
            assert _read(folder) == content
        except StorageError:
            failed += 1
        hits += fault.hits
        standing = find(uri, s3)  # from here on nothing breaks
        if standing is not None:
            assert is_intact(standing, s3=s3)
            assert _read(fetch(standing, cache=tmp_path / "direct", s3=s3)) == content
        delete(uri, s3=s3)
        assert open_s3(uri, s3).list() == []
    print(f"{hits} faults, {failed} rounds gave up")
    assert hits >= ROUNDS
    assert failed <= ROUNDS // 2, f"{failed} of {ROUNDS} rounds gave up"
    assert not list((tmp_path / "cache").glob(".*.partial"))


def _content(chance: random.Random) -> dict[str, bytes]:
    sizes = [0, 17, 4000, 300_000, chance.choice((1, PART_BYTES + 1, 2 * PART_BYTES))]
    return {f"folder {index % 2}/file {index}": chance.randbytes(size) for index, size in enumerate(sizes)}


def _write(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def _read(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("action", ["flip", "flip_sent"])
def test_a_line_that_flips_bits_everywhere_never_gives_a_wrong_artifact(
    action: str, faulty: S3Connection, proxy: FaultProxy, root_uri: str, s3: S3Connection, tmp_path: Path
) -> None:
    """Every third body is damaged, on the way up or down; headers, listings and manifests included."""
    fault, content = RandomFault(random.Random(7), share=0.33), _content(random.Random(7))
    fault.takes = lambda request: _every_third(fault, action)
    with proxy.fault(fault):
        try:
            reference = publish(_write(tmp_path / "w", content), root_uri, kind="x", created_by={}, s3=faulty)
            assert _read(fetch(reference, cache=tmp_path / "cache", s3=faulty)) == content
        except StorageError:  # to give up is allowed
            pass
    standing = find(root_uri, s3)
    if standing is not None:
        assert _read(fetch(standing, cache=tmp_path / "direct", s3=s3)) == content


def _every_third(fault: Fault, action: str) -> bool:
    fault.seen += 1
    fault.action, fault.value = action, 99
    return fault.seen % 3 == 0
