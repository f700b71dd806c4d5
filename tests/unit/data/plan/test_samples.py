"""The samples of an index as a plan sees them: sizes with the settings of a stage, and places."""

from dataclasses import replace

from tests.support.plans import SIZES, make_rows, write_dataset
from vl3.data.plan.samples import read_samples


def test_sizes_follow_the_settings(tmp_path):
    rows = make_rows(10)
    dataset = write_dataset(tmp_path, rows)
    video, image = rows[3], rows[1]
    sizes = read_samples([dataset], SIZES).sizes  # row 0 is held out
    assert sizes[2]["length_tokens"] == video.text_tokens + video.kept_tokens_m2
    assert sizes[2]["visual_tokens"] == video.video_tokens_m2
    assert sizes[2]["patches"] == 4 * video.video_tokens_m2
    assert sizes[2]["patch_pairs"] == (4 * video.video_tokens_m2) ** 2 / 6
    assert sizes[0]["length_tokens"] == image.text_tokens + image.image_tokens_m1
    assert sizes[0]["patch_pairs"] == image.image_tokens_m1**2
    plain = read_samples([dataset], replace(SIZES, difffp=False)).sizes
    assert plain[2]["length_tokens"] == video.text_tokens + video.video_tokens_m2
    pruned = read_samples([dataset], replace(SIZES, prune_before_encoder=True)).sizes
    assert pruned[2]["patches"] == 4 * video.kept_tokens_m2


def test_rows_keep_their_numbers_and_sources(tmp_path):
    rows = make_rows(62)
    table = read_samples([write_dataset(tmp_path, rows)], SIZES)
    usable = [number for number, row in enumerate(rows) if row.split == "train" and row.problem is None]
    assert table.places["row"].tolist() == usable
    names = [table.source_names[source] for source in table.sources]
    assert names == [(0, rows[number].category, rows[number].source) for number in usable]
    assert table.datasets[0].shards == ("shard-000000.tar",)
    assert table.places["sha256"][5].tobytes().hex() == rows[usable[5]].sha256
