"""A whole curation on a small collection: every image ends somewhere, and says why."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.curation import Brightness, file_of, photo, small_recipe, small_scorers, write_lines, write_shard
from vl3.curation.result import DECISIONS, RESULT_FILE
from vl3.curation.run import CurationPlace, clear, curate
from vl3.errors import DataError
from vl3.system.uris import file_uri


def samples() -> list[tuple[str, bytes, str]]:
    """20 bright pictures, 3 dark ones, one that is stretched, a copy, a recompressed copy, a broken file."""
    bright = [photo(seed) // 2 + 110 for seed in range(20)]
    good = [(f"{number:04d}.png", file_of(one), f"picture {number}") for number, one in enumerate(bright)]
    return [
        *good,
        *((f"01{number:02d}.png", file_of(photo(50 + number) // 3), "dark") for number in range(3)),
        ("0200.png", file_of(photo(7, 200, 20)), "stretched"),
        ("0201.png", good[0][1], "a copy"),
        ("0202.jpg", file_of(bright[1], "JPEG", quality=92), "compressed again"),
        ("0203.png", b"\x89PNG not a picture", "broken\x00text"),
    ]


def run(data: Path, out: Path, name: str = "result", **changes: object) -> tuple[dict, dict[str, list]]:
    place = CurationPlace(data_uri=file_uri(data), work_uri=file_uri(out / "work"), scores_uri=file_uri(out / "scores"))
    scorers = changes.pop("scorers", None) or small_scorers()
    clear(out / name)
    facts = curate(small_recipe(**changes), place, {}, out / name, scorers=scorers)  # type: ignore[arg-type]
    table = pq.read_table(out / name / DECISIONS)
    return facts, table.to_pydict()


@dataclass(frozen=True)
class Finished:
    """A curation that was run once for all tests."""

    data: Path
    out: Path
    facts: dict
    rows: dict[str, list]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("curation")
    everything = samples()
    write_shard(folder / "data" / "00000.tar", everything[:15])
    write_shard(folder / "data" / "00001.tar", everything[15:])
    return Finished(folder / "data", folder / "out", *run(folder / "data", folder / "out"))


def test_every_image_ends_somewhere_and_says_why(finished: Finished) -> None:
    facts, rows = finished.facts, finished.rows
    ended = {
        where.partition(":")[2]: (step, rule)
        for where, step, rule in zip(rows["where"], rows["step"], rows["rule"], strict=True)
    }
    assert len(ended) == len(samples()) == facts["images"]
    assert ended["0200.png"] == ("shape", "0.5 to 2")
    assert ended["0201.png"] == ("equal", "the same file as shard-000000-00000 row 0")
    assert ended["0202.jpg"][0] == "similar"
    assert ended["0202.jpg"][1].endswith("of 64 bits from shard-000000-00000 row 1")
    assert {ended[f"01{number:02d}.png"] for number in range(3)} == {("light", ">= 100")}
    assert ended["0203.png"][0] == "facts"
    assert "cannot be decoded" in ended["0203.png"][1]
    assert facts["kept"] == sum(step == "" for step, _ in ended.values()) <= 12
    dropped_by_clusters = [rule for step, rule in ended.values() if step == "spread"]
    assert len(dropped_by_clusters) == 20 - facts["kept"]
    assert all(rule.endswith("of which 4 are kept") for rule in dropped_by_clusters)


def test_the_funnel_adds_up(finished: Finished) -> None:
    facts = finished.facts
    rows = facts["funnel"]
    assert [row["step"] for row in rows] == ["read", "shape", "equal", "similar", "light", "spread"]
    for before, after in pairwise(rows):
        assert after["came"] == before["left"]
    assert rows[0]["came"] == 27
    assert rows[1] | {"source": ""} == {
        "step": "shape",
        "column": "aspect_ratio",
        "rule": "0.5 to 2",
        "source": "",
        "came": 27,
        "dropped": 1,
        "failed": 1,
        "left": 25,
    }
    assert rows[-1]["left"] == facts["kept"]
    assert facts["failures"] == [{"step": "facts", "reason": facts["failures"][0]["reason"], "count": 1}]


def test_lines_of_annotations_give_the_same_selection_as_shards(finished: Finished, tmp_path: Path) -> None:
    write_lines(tmp_path / "lines", samples())
    of_lines, _ = run(tmp_path / "lines", tmp_path / "b")
    assert [row["left"] for row in of_lines["funnel"]] == [row["left"] for row in finished.facts["funnel"]]


def test_a_changed_threshold_runs_no_scorer_again(finished: Finished) -> None:
    steps = dict(small_recipe().steps)
    del steps["spread"]
    steps["light"] = steps["light"].__class__(kind="filter", column="brightness", minimum=180, source="ours: stricter")
    brightness = Brightness()
    facts, _ = run(
        finished.data, finished.out, "stricter", steps=steps, scorers={**small_scorers(), "brightness": brightness}
    )
    assert brightness.seen == 0
    assert facts["funnel"][-1]["dropped"] > 3


def test_another_version_of_a_scorer_runs_again(finished: Finished) -> None:
    brightness = Brightness(version="2")
    run(finished.data, finished.out, "newer", scorers={**small_scorers(), "brightness": brightness})
    assert brightness.seen == 23  # what the steps before it left


def test_the_result_is_the_same_bytes_after_kills(finished: Finished, tmp_path: Path) -> None:
    class Killed(Brightness):
        def __call__(self, batch):
            if self.seen:  # after one chunk
                raise KeyboardInterrupt
            return super().__call__(batch)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(finished.data, tmp_path, scorers={**small_scorers(), "brightness": Killed()})
    run(finished.data, tmp_path)
    first, again = finished.out / "result", tmp_path / "result"
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) > 8
    for name in files:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name


def test_the_samples_can_be_trained_on(finished: Finished) -> None:
    facts, result = finished.facts, finished.out / "result"
    lines = [json.loads(line) for line in (result / "short/annotations/train.jsonl").read_text().splitlines()]
    assert len(lines) == facts["kept"]
    for line in lines:
        assert (result / "short" / line["image"][0]).is_file()
        assert line["conversations"][1]["value"].startswith("picture ")
        assert line["source"] == "short"
    assert json.loads((result / RESULT_FILE).read_text())["kept"] == facts["kept"]


def test_too_many_failures_refuse_the_result(finished: Finished) -> None:
    with pytest.raises(DataError, match=r"1 of 27 images failed, more than max_failed_fraction=0\.01.*1 x facts"):
        run(finished.data, finished.out, "refused", max_failed_fraction=0.01)


def test_a_model_that_gives_nan_is_named_and_counted(finished: Finished, tmp_path: Path) -> None:
    class Broken(Brightness):
        def __call__(self, batch):
            made = super().__call__(batch)
            made["brightness"][0] = float("nan")
            return made

    facts, _ = run(finished.data, tmp_path, scorers={**small_scorers(), "brightness": Broken()})
    assert {one["reason"]: one["count"] for one in facts["failures"]}["brightness gave no brightness (NaN)"] >= 3
