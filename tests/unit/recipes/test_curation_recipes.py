"""The recipes of curation: every column has a maker, every threshold a source, and overrides reach them."""

import json

import pytest

from vl3.config.codec import from_dict, to_dict
from vl3.config.curation import CurationConfig, SelectionStep
from vl3.config.overrides import apply_overrides
from vl3.errors import ConfigError
from vl3.recipes.catalog import all_recipe_names, get_any_recipe, get_recipe

NAMES = ["curate_tiny", "vl3_syn7m", "laion_ocr"]
"""Recipes that select images."""


@pytest.mark.parametrize("name", [*NAMES, "video_synthesis"])
def test_a_recipe_survives_json(name: str) -> None:
    config = get_any_recipe(name)
    assert config.name == name
    assert from_dict(CurationConfig, to_dict(config)) == config


def test_recipes_of_other_workflows_are_not_trained() -> None:
    assert set(NAMES) <= set(all_recipe_names())
    with pytest.raises(ConfigError, match="recipe 'curate_tiny' is unknown"):
        get_recipe("curate_tiny")


def test_a_threshold_is_an_override() -> None:
    config = apply_overrides(get_any_recipe("curate_tiny"), ["steps.aesthetic.minimum=5.5"])
    assert config.steps["aesthetic"].minimum == 5.5
    assert config.steps["aesthetic"].source


@pytest.mark.parametrize("name", NAMES)
def test_dear_scorers_come_after_cheap_steps(name: str) -> None:
    steps = list(get_any_recipe(name).steps)
    assert steps[0] == "aspect_ratio"
    assert steps.index("equal") < steps.index("clusters") == len(steps) - 1


def test_syn7m_keeps_seven_million_and_laion_ocr_three() -> None:
    for name, images in (("vl3_syn7m", 7_000_000), ("laion_ocr", 3_000_000)):
        clusters = get_any_recipe(name).steps["clusters"]
        assert clusters.num_clusters * clusters.per_cluster == images


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "filter", "source": "x"}, "a step of kind filter has no column"),
        ({"kind": "filter", "column": "a", "source": " "}, "the threshold of a has no source"),
        ({"kind": "sort", "source": "x"}, "kind='sort' is unknown"),
        ({"kind": "near_duplicates", "column": "phash", "max_distance": 16, "source": "x"}, "max_distance=16"),
    ],
)
def test_a_step_that_cannot_be_is_refused(given: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SelectionStep(**given)


def test_videos_alone_are_a_recipe_and_nothing_at_all_is_none() -> None:
    config = get_any_recipe("video_synthesis")
    with pytest.raises(ConfigError, match="steps or datasets are empty"):
        apply_overrides(config, ["videos=null"])


@pytest.mark.parametrize("pattern", ["../*.mp4", "/videos/*", "**/*.mp4", "videos//*", "./a"])
def test_a_pattern_stays_in_the_collection(pattern: str) -> None:
    with pytest.raises(ConfigError, match="no pattern of files in the collection"):
        apply_overrides(get_any_recipe("video_synthesis"), [f"videos.pattern={pattern}"])


def test_datasets_of_images_and_videos_have_names_of_their_own() -> None:
    videos = {"captioner": {"url": "http://a:1/v1", "model": "m", "version": "1"}, "dataset": "syn_short"}
    with pytest.raises(ConfigError, match=r"videos\.dataset=syn_short is the name of a dataset of images"):
        apply_overrides(get_any_recipe("curate_tiny"), [f"videos={json.dumps(videos)}"])
