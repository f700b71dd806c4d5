"""Cached samples: bounded whatever is written at once, the oldest in use go first, a broken folder only costs reads."""

import os
import threading
import time
from pathlib import Path

import pytest

from vl3.data.loader.cache import SampleCache

LIMIT_BYTES = 1000


def put(cache: SampleCache, name: str, length_bytes: int) -> None:
    with cache.add(name, length_bytes, lambda file: file.write(name[:1].encode() * length_bytes)) as file:
        assert file.read(1) == name.encode()[:1]


def kept(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.name != ".total"}


def age(folder: Path, name: str, seconds: float) -> None:
    past = time.time() - seconds
    os.utime(folder / name, (past, past))


def test_what_was_added_is_found_and_dropped(tmp_path: Path) -> None:
    cache = SampleCache(tmp_path, LIMIT_BYTES)
    assert cache.open("a") is None
    put(cache, "a", 100)
    file = cache.open("a")
    assert file is not None
    cache.drop("a")
    cache.drop("a")
    assert file.read() == b"a" * 100  # still readable
    file.close()
    assert cache.open("a") is None


def test_the_oldest_in_use_goes_first(tmp_path: Path) -> None:
    cache = SampleCache(tmp_path, LIMIT_BYTES)
    for seconds, name in enumerate("dcba", start=1):
        put(cache, name, 240)
        age(tmp_path, name, 100 * seconds)
    used = cache.open("a")  # the oldest, but in use
    assert used is not None
    used.close()
    put(cache, "e", 240)
    assert kept(tmp_path) == {"a": 240, "c": 240, "d": 240, "e": 240}


def test_a_sample_that_is_too_large_is_read_and_not_kept(tmp_path: Path) -> None:
    cache = SampleCache(tmp_path, LIMIT_BYTES)
    put(cache, "a", 800)
    assert kept(tmp_path) == {}


def test_what_a_killed_writer_left_goes_with_the_oldest(tmp_path: Path) -> None:
    cache = SampleCache(tmp_path, LIMIT_BYTES)
    (tmp_path / "writing-x").write_bytes(bytes(700))
    age(tmp_path, "writing-x", 1e6)
    put(cache, "a", 300)  # no total is written yet: the folder is looked at
    put(cache, "b", 400)
    assert kept(tmp_path) == {"a": 300, "b": 400}


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise KeyError("store")

    with pytest.raises(KeyError):
        SampleCache(tmp_path, LIMIT_BYTES).add("a", 10, fail)
    assert kept(tmp_path) == {}


def test_a_folder_that_is_gone_costs_the_cache_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(SampleCache(tmp_path / "gone", LIMIT_BYTES), "a", 10)
    assert "nothing is cached" in caplog.text


def test_many_writers_stay_below_the_limit(tmp_path: Path) -> None:
    caches = [SampleCache(tmp_path, LIMIT_BYTES) for _ in range(8)]
    most = 0

    def work(number: int) -> None:
        for round_ in range(30):
            put(caches[number], f"{number}{round_}", 70)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, 70 * sum(path.name.isdigit() for path in tmp_path.iterdir()))
    assert 70 <= most <= LIMIT_BYTES
    assert 70 <= sum(kept(tmp_path).values()) <= LIMIT_BYTES
