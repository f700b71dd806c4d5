"""A short look at what `make chaos` does for longer: kills, other numbers of ranks, damaged checkpoints."""

from pathlib import Path

import pytest

from benchmarks.chaos_training import SHORT, torment

pytestmark = pytest.mark.slow
SEED = 14


def test_training_ends_with_the_same_weights_whatever_is_done_to_it(tmp_path: Path) -> None:
    rows = torment(SHORT, SEED, tmp_path)
    assert [row[:2] for row in rows] == [
        ["kills", str(SHORT.kills)],
        ["changes of the number of ranks", str(SHORT.worlds)],
        ["damaged checkpoints", str(SHORT.damaged)],
    ]
    assert rows[0][2] == "weights of 1 stage(s) bit-identical"
