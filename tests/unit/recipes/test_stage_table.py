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
    assert rows["mixture weight, scene_image"] == ["11,840,000", "12,560,000", "9,870,000", "880,000"]
    assert rows["mixture weight, streaming"] == ["", "", "", "36,200"]


def test_table_follows_the_order_of_the_categories() -> None:
    kinds = [title.removeprefix("mixture weight, ") for title in rows_of("tiny") if title.startswith("mixture weight")]
    assert kinds[:3] == ["scene_image", "scene_image:caption", "scene_text"]
    assert kinds[-1] == "temporal_grounding"


def test_stage_view_leaves_the_other_stages_out() -> None:
    view = stage_view(get_recipe("tiny"), "video")
    assert (view["stage"], view["stage_number"], view["image_merge_size"]) == ("video", 4, 2)
    assert "stages" not in view
    assert view["data"]["max_frames"] == 16
