"""A whole curation on a small collection: every image ends somewhere, and says why."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.curation import Brightness, file_of, photo, small_recipe, small_scorers, write_lines, write_shard
from vl3.curation.result import DECISIONS, RESULT_FILE
from vl3.curation.run import CurationPlace, clear, curate
from vl3.errors import DataError
from vl3.system.uris import file_uri

BRIGHT = [seed for seed in range(200) if photo(seed).mean() > 110][:20]
DARK = [seed for seed in range(200) if photo(seed).mean() < 90][:3]


def samples() -> list[tuple[str, bytes, str]]:
    """20 bright pictures, 3 dark ones, one that is stretched, a copy, a recompressed copy, a broken file."""
    good = [(f"{number:04d}.png", file_of(photo(seed)), f"picture {number}") for number, seed in enumerate(BRIGHT)]
    return [
        *good,
        *((f"01{number:02d}.png", file_of(photo(seed)), "dark") for number, seed in enumerate(DARK)),
        ("0200.png", file_of(photo(7, 200, 20)), "stretched"),
        ("0201.png", good[0][1], "a copy"),
        ("0202.jpg", file_of(photo(BRIGHT[1]), "JPEG", quality=92), "compressed again"),
        ("0203.png", b"\x89PNG not a picture", "broken\x00text"),
    ]


def run(data: Path, out: Path, **changes: object) -> tuple[dict, dict[str, list]]:
    place = CurationPlace(data_uri=file_uri(data), work_uri=file_uri(out / "work"), scores_uri=file_uri(out / "scores"))
    scorers = changes.pop("scorers", None) or small_scorers()
    clear(out / "result")
    facts = curate(small_recipe(**changes), place, {}, out / "result", scorers=scorers)  # type: ignore[arg-type]
    table = pq.read_table(out / "result" / DECISIONS)
    return facts, table.to_pydict()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    everything = samples()
    write_shard(tmp_path / "data" / "00000.tar", everything[:15])
    write_shard(tmp_path / "data" / "00001.tar", everything[15:])
    return tmp_path / "data"


def test_every_image_ends_somewhere_and_says_why(shards: Path, tmp_path: Path) -> None:
    facts, rows = run(shards, tmp_path)
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


def test_the_funnel_adds_up(shards: Path, tmp_path: Path) -> None:
    facts, _ = run(shards, tmp_path)
    rows = facts["funnel"]
    assert [row["step"] for row in rows] == ["read", "shape", "equal", "similar", "light", "spread"]
    for before, after in zip(rows, rows[1:], strict=False):
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


def test_lines_of_annotations_give_the_same_selection_as_shards(shards: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "lines", samples())
    of_shards, _ = run(shards, tmp_path / "a")
    of_lines, _ = run(tmp_path / "lines", tmp_path / "b")
    assert [row["left"] for row in of_lines["funnel"]] == [row["left"] for row in of_shards["funnel"]]


def test_a_changed_threshold_runs_no_scorer_again(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path)
    steps = dict(small_recipe().steps)
    del steps["spread"]
    steps["light"] = steps["light"].__class__(kind="filter", column="brightness", minimum=150, source="ours: stricter")
    brightness = Brightness()
    facts, _ = run(shards, tmp_path, steps=steps, scorers={**small_scorers(), "brightness": brightness})
    assert brightness.seen == 0
    assert facts["funnel"][-1]["dropped"] > 3


def test_another_version_of_a_scorer_runs_again(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path)
    brightness = Brightness(version="2")
    run(shards, tmp_path, scorers={**small_scorers(), "brightness": brightness})
    assert brightness.seen == 23  # what the steps before it left


def test_the_result_is_the_same_bytes_after_kills(shards: Path, tmp_path: Path) -> None:
    class Killed(Brightness):
        def __call__(self, batch):
            if self.seen >= 8:
                raise KeyboardInterrupt
            return super().__call__(batch)

    run(shards, tmp_path / "a")
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(shards, tmp_path / "b", scorers={**small_scorers(), "brightness": Killed()})
    run(shards, tmp_path / "b")
    files = sorted(
        path.relative_to(tmp_path / "a/result") for path in (tmp_path / "a/result").rglob("*") if path.is_file()
    )
    assert len(files) > 8
    for name in files:
        assert (tmp_path / "a/result" / name).read_bytes() == (tmp_path / "b/result" / name).read_bytes(), name


def test_the_corpus_can_be_trained_on(shards: Path, tmp_path: Path) -> None:
    facts, _ = run(shards, tmp_path)
    result = tmp_path / "result"
    assert (result / "corpus.yaml").read_text() == "datasets:\n  short: short\n"
    lines = [json.loads(line) for line in (result / "short/annotations/train.jsonl").read_text().splitlines()]
    assert len(lines) == facts["kept"]
    for line in lines:
        assert (result / "short" / line["image"][0]).is_file()
        assert line["conversations"][1]["value"].startswith("picture ")
        assert line["source"] == "short"
    assert json.loads((result / RESULT_FILE).read_text())["kept"] == facts["kept"]


def test_too_many_failures_refuse_the_result(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 27 images failed, more than max_failed_fraction=0\.01.*1 x facts"):
        run(shards, tmp_path, max_failed_fraction=0.01)


def test_a_model_that_gives_nan_is_named_and_counted(shards: Path, tmp_path: Path) -> None:
    class Broken(Brightness):
        def __call__(self, batch):
            made = super().__call__(batch)
            made["brightness"][0] = float("nan")
            return made

    facts, _ = run(shards, tmp_path, scorers={**small_scorers(), "brightness": Broken()})
    assert {one["reason"]: one["count"] for one in facts["failures"]}["brightness gave no brightness (NaN)"] >= 3
