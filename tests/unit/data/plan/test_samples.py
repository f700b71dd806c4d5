"""The samples of an index as a plan sees them: sizes with the settings of a stage, and places."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from tests.support.plans import SIZES, make_rows, write_dataset
from vl3.data.plan.samples import read_samples
from vl3.errors import DataError


def test_sizes_follow_the_settings(tmp_path):
    rows = make_rows(10)
    dataset = write_dataset(tmp_path, rows)
    video, image = rows[3], rows[1]
    sizes = read_samples([dataset], SIZES).sizes  # row 0 is held out
    assert sizes[2]["length_tokens"] == video.text_tokens + video.kept_tokens_m1
    assert sizes[2]["visual_tokens"] == video.video_tokens_m1
    assert sizes[2]["patches"] == 4 * video.video_tokens_m1
    assert sizes[2]["patch_pairs"] == (4 * video.video_tokens_m1) ** 2 / 6
    assert sizes[0]["length_tokens"] == image.text_tokens + image.image_tokens_m1
    assert sizes[0]["patch_pairs"] == image.image_tokens_m1**2
    plain = read_samples([dataset], replace(SIZES, difffp=False)).sizes
    assert plain[2]["length_tokens"] == video.text_tokens + video.video_tokens_m1
    pruned = read_samples([dataset], replace(SIZES, prune_before_encoder=True)).sizes
    assert pruned[2]["patches"] == 4 * video.kept_tokens_m1


def test_images_and_clips_of_one_sample_are_counted_by_the_image_merge(tmp_path):
    """They share a budget: with larger tokens of images, more are left for the clips."""
    (row,) = rows = [row for row in make_rows(10) if row.sample_id == "s3"]
    row.text_tokens, row.num_images, row.num_frames = 5, 1, 4
    row.image_tokens_m1, row.video_tokens_m1, row.kept_tokens_m1 = 54, 12, 9
    row.image_tokens_m2, row.video_tokens_m2, row.kept_tokens_m2 = 6, 48, 30
    dataset = write_dataset(tmp_path, rows)
    for merge, length, visual, patches in ((1, 5 + 54 + 9, 54 + 12, 54 + 4 * 12), (2, 5 + 6 + 30, 6 + 48, 4 * 54)):
        (size,) = read_samples([dataset], replace(SIZES, image_merge_size=merge)).sizes
        assert (size["length_tokens"], size["visual_tokens"], size["patches"]) == (length, visual, patches)


def test_rows_keep_their_numbers_and_sources(tmp_path):
    rows = make_rows(62)
    table = read_samples([write_dataset(tmp_path, rows)], SIZES)
    usable = [number for number, row in enumerate(rows) if row.split == "train" and row.problem is None]
    assert table.places["row"].tolist() == usable
    names = [table.source_names[source] for source in table.sources]
    assert names == [(0, rows[number].category, rows[number].source) for number in usable]
    assert table.datasets[0].shards == ("shard-000000.tar",)
    assert table.places["sha256"][5].tobytes().hex() == rows[usable[5]].sha256


def test_an_index_of_another_version_is_refused(tmp_path):
    """Its `video_tokens_m1` was counted at video merge 1: read as it is, rows would be planned too short."""
    dataset = write_dataset(tmp_path, make_rows(10))
    path = dataset / "index.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("video_tokens_m12", table.column("video_tokens_m1")), path)
    with pytest.raises(DataError) as caught:
        read_samples([dataset], SIZES)
    assert str(caught.value) == (
        f"{path} was written by another version of vl3, whose token counts may mean something else (columns that "
        "differ: video_tokens_m12). Build the dataset again with `vl3 data build`."
    )


def test_squares_are_counted_by_pictures_and_frames(tmp_path):
    """Of an encoder of fixed resolution the sizes follow from the numbers of pictures and frames alone."""
    (row,) = rows = [row for row in make_rows(10) if row.sample_id == "s3"]
    row.text_tokens, row.num_images, row.num_frames = 5, 2, 3
    dataset = write_dataset(tmp_path, rows)
    rule = replace(SIZES, difffp=False, fixed_side_patches=24)
    (size,) = read_samples([dataset], rule).sizes
    assert size["visual_tokens"] == 2 * 576 + 3 * 144
    assert size["length_tokens"] == 5 + 2 * 576 + 3 * 144
    assert size["patches"] == 5 * 576
    assert size["patch_pairs"] == 5 * 576**2
    (merged,) = read_samples([dataset], replace(rule, image_merge_size=2)).sizes
    assert (merged["visual_tokens"], merged["patches"]) == (5 * 144, 5 * 576)
    (odd,) = read_samples([dataset], replace(rule, fixed_side_patches=27)).sizes
    assert odd["visual_tokens"] == 2 * 729 + 2**26  # frames cannot be merged, so that no row holds the sample
    row.num_frames = 0
    (pictures,) = read_samples([write_dataset(tmp_path / "pictures", rows)], replace(rule, fixed_side_patches=27)).sizes
    assert pictures["length_tokens"] == 5 + 2 * 729
