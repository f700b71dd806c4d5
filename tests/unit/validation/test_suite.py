"""A good index passes; each broken property is found, with its severity and the rows that it concerns."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from vl3.config.overrides import apply_overrides
from vl3.config.run import RunConfig
from vl3.data.build.index import IndexRow
from vl3.data.build.parts import parts_of_table
from vl3.data.sample.problems import ProblemKind
from vl3.errors import DataError, StorageError
from vl3.recipes.catalog import get_recipe
from vl3.validation.result import ValidationResult
from vl3.validation.suite import profile_of, validate_index

Rows = list[IndexRow]
Validate = Callable[[Rows], ValidationResult]


@pytest.fixture
def validate(make_table: Callable[[Rows], pa.Table], config: RunConfig, tmp_path: Path) -> Validate:
    return lambda rows: validate_index(parts_of_table(make_table(rows)), config, tmp_path)


def _checks(result: ValidationResult) -> dict[str, str]:
    return {finding.check: finding.severity for finding in (*result.critical, *result.warnings)}


def _finding(result: ValidationResult, check: str):
    return next(finding for finding in (*result.critical, *result.warnings) if finding.check == check)


def test_validate_index_passes_good_data_and_writes_docs(
    validate: Validate, rows: Rows, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = validate(rows)
    assert result.passed
    assert (result.critical, result.warnings, result.left_out) == ((), (), ())
    assert {name: result.facts[name] for name in ("lines", "refused", "train", "heldout")} == {
        "lines": 130,
        "refused": 0,
        "train": 100,
        "heldout": 30,
    }
    assert result.facts["by_category"]["heldout"]["streaming"] == 3
    result.require_passed()
    assert result.docs_folder == tmp_path / "data_docs"
    assert "samples" in (result.docs_folder / "index.html").read_text()
    tables = {"schema", "lines", "samples", "dataset", "mixture", "stages", "heldout"}
    assert {page.stem for page in result.docs_folder.glob("*.html")} == {"index", *tables}
    assert {page.stem for page in result.docs_folder.glob("great_expectations/*.json")} == tables
    assert json.loads((tmp_path / "validation.json").read_text()) == json.loads(json.dumps(result.to_dict()))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


BROKEN = {
    "aspect_ratio": ("critical", "scene_image", {"aspect_ratio": 250.0}, "250"),
    "aspect_ratio_wide": ("warning", "scene_text", {"aspect_ratio": 40.0}, "250.0, 40"),
    "side_px": ("critical", "scene_image", {"min_side_px": 0}, "0"),
    "side_px_small": ("warning", "scene_text", {"min_side_px": 8}, "0.0, 8"),
    "side_px_limit": ("critical", "scene_image", {"max_side_px": 20000}, "20000"),
    "duration": ("critical", "general_video", {"duration_seconds": 0.0}, "0"),
    "frames_sparse": ("warning", "general_video", {"duration_seconds": 400.0}, "100"),
    "frame_rate": ("critical", "general_video", {"source_fps": 0.0}, "0"),
    "frame_rate_high": ("warning", "general_video", {"source_fps": 1000.0}, "1000"),
    "length_tokens": ("critical", "chart", {"text_tokens": 700}, "716"),
    "visual_tokens": ("critical", "chart", {"image_tokens_m1": 300}, "300"),
    "supervised_tokens": ("critical", "chart", {"supervised_tokens": 0}, "0"),
    "chance": ("critical", "chart", {"chance": 1.0}, "1"),
    "corrected": ("warning", "chart", {"warning": "tag added"}, "tag added"),
    "turns_alternate": ("critical", "text_only", {"turns_alternate": False}, "False"),
    "boxes_in_range": ("critical", "fine_grained", {"boxes_in_range": False}, "False"),
    "timestamps_ordered": ("critical", "streaming", {"timestamps_ordered": False}, "False"),
    "tags_match": ("critical", "multi_image", {"tags_match": False}, "False"),
    "media_present": ("critical", "multi_image", {"media_present": False}, "False"),
    "media_decodable": ("critical", "multi_image", {"media_decodable": False}, "False"),
    "path_inside": ("critical", "multi_image", {"path_inside": False}, "False"),
    "split_known": ("critical", "document", {"split": "test"}, "test"),
}
"""Check -> severity, category of the row that is broken, its broken values, values that the finding observes."""
ALSO = {"aspect_ratio_wide": "aspect_ratio", "side_px_small": "side_px"}
"""Warnings that the row of the stricter check trips as well."""


@pytest.fixture(scope="module")
def broken(
    make_rows: Callable[[], Rows], make_table: Callable[[Rows], pa.Table], config: RunConfig, tmp_path_factory
) -> tuple[ValidationResult, dict[str, str]]:
    """One dataset with one broken row for each check, and where that row is."""
    rows, places = make_rows(), {}
    for check, (_, category, values, _) in BROKEN.items():
        row = next(
            row
            for row in rows
            if row.category == category and row.split == "train" and row.where not in places.values()
        )
        places[check] = row.where
        for name, value in values.items():
            setattr(row, name, value)
    return validate_index(parts_of_table(make_table(rows)), config, tmp_path_factory.mktemp("broken")), places


def test_validate_index_finds_nothing_but_what_is_broken(broken: tuple[ValidationResult, dict[str, str]]) -> None:
    result, _ = broken
    assert not result.passed
    assert _checks(result) == {check: severity for check, (severity, *_) in BROKEN.items()}


@pytest.mark.parametrize("check", BROKEN)
def test_validate_index_finds_broken_property(broken: tuple[ValidationResult, dict[str, str]], check: str) -> None:
    result, places = broken
    finding = _finding(result, check)
    expected = [places[name] for name in (ALSO.get(check), check) if name]
    assert [row.where for row in finding.rows] == expected
    assert finding.count == len(expected)
    assert finding.observed.startswith(BROKEN[check][3])
    assert finding.message.startswith(f"{len(expected)} of 130 rows of samples: ")


def test_validate_index_finds_repeated_ids(validate: Validate, rows: Rows) -> None:
    rows[4].sample_id = rows[9].sample_id
    result = validate(rows)
    assert _checks(result) == {"sample_id_unique": "critical"}
    assert [row.where for row in _finding(result, "sample_id_unique").rows] == [rows[4].where, rows[9].where]


def test_validate_index_names_copies(validate: Validate, rows: Rows) -> None:
    charts = [row for row in rows if row.category == "chart" and row.split == "train"]
    held_out = next(row for row in rows if row.split == "heldout")
    charts[3].content_sha256 = charts[0].content_sha256
    held_out.content_sha256 = charts[5].content_sha256
    result = validate(rows)
    assert _checks(result) == {"duplicates": "warning", "splits_disjoint": "critical"}
    duplicate, leak = _finding(result, "duplicates"), _finding(result, "splits_disjoint")
    assert [(row.where, row.reason) for row in duplicate.rows] == [(charts[3].where, f"first_copy={charts[0].where}")]
    assert [(row.where, row.reason) for row in leak.rows] == [(held_out.where, f"held_out_copy={charts[5].where}")]
    with pytest.raises(DataError, match=r"(?s)held-out samples are also trained on.*Drop them from one split"):
        result.require_passed()


def test_validate_index_finds_a_shared_file(validate: Validate, rows: Rows) -> None:
    """Another question about a picture that is trained on, whose digest is the second of two."""
    trained = next(row for row in rows if row.category == "multi_image" and row.split == "train")
    held_out = next(row for row in rows if row.category == "scene_image" and row.split == "heldout")
    trained.media_sha256, held_out.media_sha256 = "one shared", "shared"
    result = validate(rows)
    assert not result.passed
    assert _checks(result) == {"splits_disjoint": "critical"}
    (leak,) = _finding(result, "splits_disjoint").rows
    assert (leak.where, leak.reason) == (held_out.where, f"held_out_copy={trained.where}")


FACTS = {
    "turns_alternate": "turns_alternate",
    "tags_match": "tags_match",
    "timestamps_ordered": "timestamps_ordered",
    "boxes_in_range": "boxes_in_range",
    "path_inside": "path_inside",
    "media_present": "media_present",
    "media_decodable": "media_decodable",
    "split": "split_known",
    "category": "category_known",
}
"""Column -> the check of its own that fails if it is null in a sample that was kept."""
MEASURED = {
    "supervised_tokens": "supervised_tokens",
    "text_tokens": "text_tokens, longest_tokens",
    "image_tokens_m1": "image_tokens_m1, longest_tokens, visual_tokens",
    "kept_tokens_m2": "kept_tokens_m2, longest_tokens",
    "num_images": "num_images",
    "min_side_px": "min_side_px",
    "aspect_ratio": "aspect_ratio",
    "duration_seconds": "duration_seconds, seconds_per_frame",
    "source_fps": "source_fps",
    "sample_id": "sample_id",
    "source": "source",
    "sha256": "sha256",
    "media_sha256": "media_sha256",
    "content_sha256": "content_sha256",
}
"""Column -> what `facts_known` says if it is null in a video that was kept."""


@pytest.fixture(scope="module")
def unknown(
    make_rows: Callable[[], Rows], make_table: Callable[[Rows], pa.Table], config: RunConfig, tmp_path_factory
) -> tuple[ValidationResult, dict[str, str]]:
    """One dataset in which each needed fact is unknown in another row, and where that row is."""
    rows, places = make_rows(), {}
    videos = (row for row in rows if row.category in ("general_video", "streaming", "temporal_grounding"))
    for column, row in zip((*FACTS, *MEASURED), videos, strict=False):
        setattr(row, column, None)
        places[column] = row.where
    return validate_index(parts_of_table(make_table(rows)), config, tmp_path_factory.mktemp("unknown")), places


@pytest.mark.parametrize("column", FACTS)
def test_validate_index_refuses_a_fact_that_was_not_established(
    unknown: tuple[ValidationResult, dict[str, str]], column: str
) -> None:
    result, places = unknown
    assert not result.passed
    (found,) = [finding for finding in result.critical if finding.check == FACTS[column]]
    assert [(row.where, row.reason) for row in found.rows] == [(places[column], f"{column}=unknown")]


def test_validate_index_refuses_a_value_that_was_not_measured(
    unknown: tuple[ValidationResult, dict[str, str]],
) -> None:
    result, places = unknown
    found = _finding(result, "facts_known")
    assert {row.where: row.reason for row in found.rows} == {
        places[column]: f"unknown_facts={names}" for column, names in MEASURED.items()
    }
    assert {finding.check for finding in result.critical} == {"facts_known", *FACTS.values()}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_validate_index_refuses_what_is_not_finite(validate: Validate, rows: Rows, value: float) -> None:
    video = next(row for row in rows if row.category == "general_video")
    video.duration_seconds = value
    result = validate(rows)
    assert _checks(result) == {"facts_known": "critical"}


def test_validate_index_refuses_a_sample_without_a_place(validate: Validate, rows: Rows) -> None:
    rows[0].where = None
    assert _checks(validate(rows)) == {"facts_known": "critical"}


def test_validate_index_refuses_a_column_without_any_value(
    make_table: Callable[[Rows], pa.Table], rows: Rows, config: RunConfig, tmp_path: Path
) -> None:
    table = make_table(rows)
    place = table.column_names.index("media_decodable")
    table = table.set_column(place, "media_decodable", pa.nulls(len(rows)))
    assert [finding.check for finding in validate_index(parts_of_table(table), config, tmp_path).critical] == [
        "media_decodable"
    ]


def test_validate_index_refuses_a_problem_without_its_kind(validate: Validate, rows: Rows) -> None:
    rows[3].problem_kind = "tags"
    rows[7].problem = "no reason"
    result = validate(rows)
    assert not result.passed
    found = _finding(result, "problem_known")
    assert [row.where for row in found.rows] == [rows[3].where, rows[7].where]
    assert result.facts["train"] == 98


def test_validate_index_warns_about_unread_keys(validate: Validate, rows: Rows) -> None:
    rows[0].unknown_keys, rows[1].unknown_keys = "page, licence", "licence"
    result = validate(rows)
    assert result.passed
    assert _checks(result) == {"unknown_keys": "warning"}
    assert _finding(result, "unknown_keys").rows[1].reason == "unknown_keys=licence"
    assert result.facts["unread_keys"] == {"licence": 2, "page": 1}


def test_a_summary_says_equal_refusals_once(validate: Validate, rows: Rows) -> None:
    for row in rows[:30]:
        row.refuse(ProblemKind.TAGS, "2 <image> tag(s) for 1 file(s)")
    for number, row in enumerate(rows[30:60]):
        row.refuse(ProblemKind.MISSING_FILE, f"media file 'p{number}.png' is missing")
    lines = validate(rows).summary().splitlines()
    places = ", ".join(row.where for row in rows[:3])
    assert f"  {places} and 27 more (30 lines): 2 <image> tag(s) for 1 file(s)" in lines
    assert sum("is missing" in line for line in lines) == 1


def test_validate_index_tells_problem_kinds_apart(validate: Validate, rows: Rows) -> None:
    refused = rows[::10]  # one of each category, and some that are held out
    for row, kind in zip(refused, ProblemKind, strict=True):
        row.refuse(kind, f"the reason of {kind}")
    result = validate(rows)
    assert [finding.severity for finding in result.critical] == ["critical"] * len(ProblemKind)
    assert {finding.check: [(row.where, row.reason) for row in finding.rows] for finding in result.critical} == {
        f"refused_{kind}": [(row.where, f"the reason of {kind}")]
        for row, kind in zip(refused, ProblemKind, strict=True)
    }
    assert [(line.where, line.kind, line.reason) for line in result.left_out] == [
        (row.where, kind.value, f"the reason of {kind}") for row, kind in zip(refused, ProblemKind, strict=True)
    ]
    with pytest.raises(DataError, match=rf"(?s)refused_tags.*  {refused[5].where}: the reason of tags"):
        result.require_passed()


def test_validate_index_tolerates_few_bad_lines_by_name(validate: Validate, rows: Rows) -> None:
    rows[0].refuse(ProblemKind.MISSING_FILE, "images/0.png is missing")  # 1 of 130 is below 1 %
    result = validate(rows)
    assert result.passed
    assert _checks(result) == {"refused_missing_file": "warning"}
    assert result.left_out[0].where == rows[0].where
    assert result.facts["refused"] == 1
    (finding,) = result.warnings
    assert (
        finding.message == "1 of 130 rows of lines: media files are missing. They are left out; correct or drop them."
    )
    assert [(row.where, row.reason) for row in finding.rows] == [(rows[0].where, "images/0.png is missing")]


def test_validate_index_bounds_bad_lines_by_configuration(
    make_table: Callable[[Rows], pa.Table], rows: Rows, config: RunConfig, tmp_path: Path
) -> None:
    rows[0].refuse(ProblemKind.JSON, "no JSON")
    none = apply_overrides(config, ["data.max_bad_fraction=0"])
    assert not validate_index(parts_of_table(make_table(rows)), none, tmp_path).passed


def test_validate_index_refuses_a_stage_that_lacks_what_it_asks_for(validate: Validate, rows: Rows) -> None:
    for row in rows:
        row.source = "qa"
    result = validate([row for row in rows if row.category != "streaming"])
    assert not result.passed
    assert [row.where for row in _finding(result, "mixture_served").rows] == [
        *(f"vision_adaptation/{category}:caption" for category in ("scene_image", "scene_text", "document")),
        "video/streaming",
    ]


def test_validate_index_reports_what_is_dropped_and_few_held_out(
    make_table: Callable[[Rows], pa.Table], rows: Rows, config: RunConfig, tmp_path: Path
) -> None:
    kept = [row for row in rows if row.category != "streaming"]
    result = validate_index(
        parts_of_table(make_table(kept)), apply_overrides(config, ["stages.video.missing=drop"]), tmp_path
    )
    assert result.passed
    assert _checks(result) == {"mixture_present": "warning", "heldout_samples": "warning"}
    assert _finding(result, "mixture_present").rows[0].where == "video/streaming"
    assert _finding(result, "heldout_samples").rows[0].reason == "samples=0"


def test_validate_index_reports_shares_that_differ(validate: Validate, rows: Rows) -> None:
    charts = [row for row in rows if row.split == "train" and row.category == "chart"]
    clones = [
        replace(charts[0], sample_id=f"c{n}", content_sha256=f"c{n}", where=f"annotations/c.jsonl:{n}")
        for n in range(990)
    ]
    result = validate(rows + clones)
    assert _checks(result) == {"mixture_share": "warning"}
    share = next(row for row in _finding(result, "mixture_share").rows if row.where == "video/streaming")
    mixture = get_recipe("tiny").stages["video"].mixture
    asked, held = mixture["streaming"] / sum(mixture.values()), 0.00925926
    assert share.reason == f"asked_share={asked:.6g}, data_share={held:.6g}, oversampling={asked / held:.6g}"


def test_validate_index_refuses_stage_without_samples(validate: Validate, rows: Rows) -> None:
    kept = [row for row in rows if row.category not in ("scene_image", "scene_text", "document")]
    result = validate(kept)
    assert not result.passed
    assert [row.where for row in _finding(result, "stage_has_samples").rows] == ["vision_adaptation"]


def test_validate_index_warns_about_unknown_chance(validate: Validate, rows: Rows) -> None:
    next(row for row in rows if row.split == "heldout").chance = None
    result = validate(rows)
    assert _checks(result) == {"heldout_chance": "warning"}
    assert _finding(result, "heldout_chance").rows[0].where == "scene_image"


def test_validate_index_refuses_missing_column_and_wrong_type(
    make_table: Callable[[Rows], pa.Table], rows: Rows, config: RunConfig, tmp_path: Path
) -> None:
    table = make_table(rows).drop_columns(["sha256"])
    table = table.set_column(table.column_names.index("num_turns"), "num_turns", pa.array(["two"] * len(rows)))
    result = validate_index(parts_of_table(table), config, tmp_path)
    assert not result.passed
    assert {row.where: row.reason for row in result.critical[0].rows} == {
        "sha256": "asked=text, found=missing, fits=no",
        "num_turns": "asked=number, found=text, fits=no",
    }
    assert result.facts == {"expectations": 1}


def test_validate_index_refuses_empty_dataset(validate: Validate) -> None:
    result = validate([])
    assert _checks(result) == {"has_samples": "critical"}
    assert "there is no usable sample" in result.summary()


def test_validate_index_says_why_it_cannot_write(
    make_table: Callable[[Rows], pa.Table], rows: Rows, config: RunConfig, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file, not a folder")
    with pytest.raises(StorageError, match="file"):
        validate_index(parts_of_table(make_table(rows)), config, blocked)


def test_data_serve_the_stages_that_are_trained_and_no_others(
    make_table: Callable[[Rows], pa.Table], rows: Rows, config: RunConfig, tmp_path: Path
) -> None:
    texts = make_table([row for row in rows if row.category == "text_only"])
    mixture = replace(config.stages["video"], mixture={"text_only": 1.0})
    config = replace(config, stages=config.stages | {"video": mixture})
    everything = validate_index(parts_of_table(texts), config, tmp_path / "all")
    assert _checks(everything)["mixture_served"] == "critical"
    alone = validate_index(parts_of_table(texts), config, tmp_path / "video", stages=["video"])
    assert alone.passed
    assert not {"mixture_served", "heldout_samples"} & set(_checks(alone)), "other stages' categories are not missed"
    trained = [row for row in rows if row.category == "text_only" and row.split == "heldout"]
    evaluated = validate_index(parts_of_table(make_table(trained)), config, tmp_path / "none", stages=[])
    assert evaluated.passed
    pages = {page.stem for page in evaluated.docs_folder.glob("*.html")}
    assert pages == {"index", "schema", "lines", "samples", "dataset", "heldout"}


def test_drift_from_the_former_build_is_a_warning(
    make_table: Callable[[Rows], pa.Table], rows: Rows, config: RunConfig, tmp_path: Path
) -> None:
    before = profile_of(parts_of_table(make_table(rows)), config.stages)
    same = validate_index(parts_of_table(make_table(rows)), config, tmp_path / "same", before=before)
    assert (same.critical, same.warnings) == ((), ())
    for row in rows:
        if row.split == "train":
            row.text_tokens = 4 * row.text_tokens
    longer = validate_index(parts_of_table(make_table(rows)), config, tmp_path / "longer", before=before)
    assert _checks(longer) == {"drift": "warning"}
    (finding,) = longer.warnings
    assert [row.where for row in finding.rows] == ["train/longest_tokens"]
    assert finding.rows[0].reason.startswith("samples_before=100, samples_now=100, stability_index=")
    assert "drift" in (longer.docs_folder / "drift.html").read_text()


def test_what_a_dataset_consists_of_is_asked_only_of_an_index(config: RunConfig) -> None:
    with pytest.raises(DataError, match="the index has no column sample_id of the type"):
        profile_of(parts_of_table(pa.table({"where": ["t:1"]})), config.stages)


@pytest.mark.parametrize("merge", [1, 2])
def test_images_and_clips_of_one_sample_are_counted_by_the_image_merge_of_the_stage(
    make_table: Callable[[Rows], pa.Table], rows: Rows, config: RunConfig, tmp_path: Path, merge: int
) -> None:
    """They share a budget, so that the video tokens depend on the image merge too."""
    stage = replace(config.stages["video"], image_merge_size=merge)
    config = replace(config, stages=config.stages | {"video": stage})
    setattr(rows[3], f"video_tokens_m{3 - merge}", 100_000)
    setattr(rows[4], f"video_tokens_m{merge}", 100_000)
    result = validate_index(parts_of_table(make_table(rows)), config, tmp_path, stages=["video"])
    assert [row.where for row in _finding(result, "visual_tokens").rows] == [rows[4].where]


HOSTILE = "<script>window.owned = 1</script><img src=x onerror=alert(1)>\u202e\x1b[2J"


def test_hostile_text_is_text_in_every_file(validate: Validate, rows: Rows, tmp_path: Path) -> None:
    """Names, places, reasons and keys with markup, a change of direction and a command to a terminal."""
    for row in rows[:4]:
        row.where, row.source, row.category, row.split = HOSTILE, HOSTILE, HOSTILE, HOSTILE
        row.unknown_keys = row.warning = row.sample_id = HOSTILE
    rows[5].problem, rows[5].problem_kind = HOSTILE, HOSTILE
    result = validate(rows)
    assert {"sample_id_unique", "split_known", "category_known"} <= set(_checks(result))
    for line in result.summary().splitlines():
        assert line.isprintable()
    pages = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(pages) > 10
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert "\u202e" not in text, path
        assert "\x1b" not in text, path
        if path.suffix == ".html" or path.parent.name == "great_expectations":
            assert not re.search("<script|<img", text), path
