"""The page of the stages."""

from vl3.recipes.catalog import get_recipe
from vl3.recipes.effective import stage_view
from vl3.recipes.stage_table import stage_page


def rows_of(recipe: str) -> dict[str, list[str]]:
    section = stage_page().split(f"## {recipe}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells}


def test_table_shows_what_differs_between_the_stages() -> None:
    rows = rows_of("vl3_2b")
    assert rows["learning rate, language model"] == ["frozen", "1e-05", "1e-05", "1e-05"]
    assert rows["DiffFP"] == ["off", "off", "on", "on"]
    assert rows["mixture, llava_sft_665k"] == ["", "", "665,000", "440,000"]
    assert rows["mixture, youcook2:streaming"] == ["", "", "", "9,050"]


def test_table_follows_the_order_of_the_categories() -> None:
    kinds = [title.removeprefix("mixture, ") for title in rows_of("tiny") if title.startswith("mixture, ")]
    assert kinds[:3] == ["scene_image", "scene_image:caption", "scene_text"]
    assert kinds[-1] == "temporal_grounding"


def test_table_has_datasets_as_the_mixtures_have_them() -> None:
    kinds = [title.removeprefix("mixture, ") for title in rows_of("vl3_2b") if title.startswith("mixture, ")]
    assert kinds[:2] == list(get_recipe("vl3_2b").stages["vision_adaptation"].mixture)[:2]
    assert kinds[-1] == "tulu3"


def test_stage_view_leaves_the_other_stages_out() -> None:
    view = stage_view(get_recipe("tiny"), "video")
    assert (view["stage"], view["stage_number"], view["image_merge_size"]) == ("video", 4, 2)
    assert "stages" not in view
    assert view["data"]["max_frames"] == 16
