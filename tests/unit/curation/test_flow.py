"""A round tells that it is at work, however long a part or a comparison takes: silence is taken for a hang."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.curation import Brightness, file_of, photo, small_recipe, small_scorers, write_shard
from vl3.curation import flow
from vl3.curation.run import CurationPlace, clear, curate
from vl3.system.uris import file_uri

SECONDS = 0.05


class Slow(Brightness):
    """Takes longer for a chunk than a run may be silent."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(2 * SECONDS)
        return super().__call__(batch)


def test_chunks_and_comparisons_are_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "TELL_SECONDS", SECONDS)
    compare = flow.Closing.run

    def slowly(closing: Any) -> None:
        time.sleep(4 * SECONDS)
        compare(closing)

    monkeypatch.setattr(flow.Closing, "run", slowly)
    write_shard(tmp_path / "data" / "0.tar", [(f"{n:02d}.png", file_of(photo(n)), f"text {n}") for n in range(32)])
    place = CurationPlace(
        data_uri=file_uri(tmp_path / "data"), work_uri=file_uri(tmp_path / "w"), scores_uri=file_uri(tmp_path / "s")
    )
    told: list[tuple[int, int, str]] = []
    clear(tmp_path / "result")
    scorers = {**small_scorers(), "brightness": Slow()}
    curate(small_recipe(), place, {}, tmp_path / "result", scorers=scorers, progress=lambda *event: told.append(event))
    assert any("(image 16 of shard-000000-0)" in text and done == 0 for done, _, text in told)
    for name in ("equal", "similar", "spread"):
        assert any(text.endswith(f"({name})") and done == total == 1 for done, total, text in told), name


def test_a_comparison_is_interrupted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's Ctrl-C, or a pod's end, does not wait for hours of clusters."""
    monkeypatch.setattr(flow.Closing, "run", lambda _: time.sleep(60))
    monkeypatch.setattr(flow.Closing, "__init__", lambda _: None)
    timer = threading.Timer(0.3, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    started = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        flow.InThisProcess({}).close(flow.Closing(), lambda *_: None)
    assert time.monotonic() - started < 30


def test_details_are_told_now_and_then_and_finished_parts_always(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int, str]] = []
    teller = flow._Teller(lambda *event: told.append(event), "round 1", 2, 9)
    start = time.monotonic()
    for seconds in (5, 16, 17):
        monkeypatch.setattr(flow.time, "monotonic", lambda at=start + seconds: at)
        teller.scoring(0, f"at {seconds}")
        teller.scoring(1, "")
    assert [text for _, _, text in told] == ["round 1", "round 1 (at 16)", "round 1", "round 1"]
    assert {(done, total) for done, total, _ in told} == {(2, 9), (3, 9)}
