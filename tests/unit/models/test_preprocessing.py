"""Merges and limits of pictures, from one form to another."""

import json

import pytest

from vl3.config.codec import to_dict
from vl3.errors import ConfigError
from vl3.models.layouts.names import Layout
from vl3.models.preprocessing import Preprocessing
from vl3.recipes.catalog import get_recipe

SETTINGS = Preprocessing(
    image_merge_size=2, video_merge_size=2, min_tokens=4, max_tokens=10240, fps=2, max_frames=60, difffp=False
)


@pytest.mark.parametrize("layout", [Layout.OFFICIAL, Layout.TRANSFORMERS])
def test_what_is_written_is_read_again(tmp_path, layout):
    for name, content in SETTINGS.files(layout, 14).items():
        (tmp_path / name).write_text(json.dumps(content))
    assert Preprocessing.read(tmp_path, {"use_token_compression": False}, layout, 14) == SETTINGS


def test_transformers_counts_pixels():
    files = Preprocessing().files(Layout.TRANSFORMERS, 14)
    assert files["preprocessor_config.json"]["size"] == {"shortest_edge": 3136, "longest_edge": 3211264}
    assert files["video_preprocessor_config.json"]["size"] == {"shortest_edge": 12544, "longest_edge": 12845056}


def test_a_checkpoint_of_ours_says_it_in_run_json(tmp_path):
    run = {"stage": "video", "config": to_dict(get_recipe("vl3_2b"))}
    (tmp_path / "run.json").write_text(json.dumps(run))
    found = Preprocessing.read(tmp_path, {}, Layout.OFFICIAL, 14)
    assert found == Preprocessing(image_merge_size=2, max_tokens=10240)
    (tmp_path / "run.json").write_text('{"stage": "video"}')
    with pytest.raises(ConfigError, match=r"run.json: 'config' is missing"):
        Preprocessing.read(tmp_path, {}, Layout.OFFICIAL, 14)


def test_a_folder_that_says_nothing_is_prepared_as_the_released_models(tmp_path):
    for layout in (Layout.OFFICIAL, Layout.TRANSFORMERS):
        assert Preprocessing.read(tmp_path, {}, layout, 14) == Preprocessing()


def test_another_normalisation_is_refused(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.48, 0.46, 0.41]}')
    with pytest.raises(ConfigError, match=r"image_mean=\[0.48, 0.46, 0.41\], but the encoder was trained on .* 0.5"):
        Preprocessing.read(tmp_path, {}, Layout.OFFICIAL, 14)
