"""Which stages a run trains and from which model, as text from a user."""

import pytest

from vl3.config.part import check_model_uri, check_start, choose_stages, split_hub, split_registered
from vl3.errors import ConfigError

STAGES = ["vision_adaptation", "alignment", "multitask", "video"]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", STAGES),
        ("  ", STAGES),
        ("video", ["video"]),
        (" multitask , video ", ["multitask", "video"]),
        ("alignment..video", ["alignment", "multitask", "video"]),
        ("alignment .. multitask,video", ["alignment", "multitask", "video"]),
        ("video..video", ["video"]),
        ("vision_adaptation..video", STAGES),
        ("none", []),
    ],
)
def test_stages_are_named_or_a_range(text: str, chosen: list[str]) -> None:
    assert choose_stages(STAGES, text) == chosen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vidoe", r"names 'vidoe', which is no stage. The nearest is 'video'; the recipe's stages are vision_adapt"),
        ("alignment..vidoe", r"The nearest is 'video'"),
        ("Video", r"The nearest is 'video'"),
        ("video,", "has an empty name"),
        ("..video", "has an empty name"),
        ("alignment..", "has an empty name"),
        ("alignment...video", r"names '\.video'"),
        ("video..alignment", r"goes backwards: alignment is trained before video. Write alignment\.\.video"),
        ("video,multitask", "is not in the order of training; the recipe's order is vision_adaptation, alignment"),
        ("video,video", "has video twice"),
        ("alignment..video,multitask", "has multitask twice"),
        ("alignment,video", r"leaves out multitask, whose weights video would start from.*Use alignment\.\.video"),
        ("vision_adaptation,video", "leaves out alignment, multitask"),
        ("none,video", "names 'none'"),
    ],
)
def test_other_texts_are_refused_by_what_is_wrong_with_them(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_stages(STAGES, text)


def test_a_later_stage_needs_a_model() -> None:
    check_start(STAGES, ["vision_adaptation", "alignment"], "")
    check_start(STAGES, ["video"], "file:///model")
    with pytest.raises(ConfigError, match=r"video starts from the weights of multitask.*with FROM: a folder, s3://"):
        check_start(STAGES, ["video"], "")
    with pytest.raises(ConfigError, match="trains nothing"):
        check_start(STAGES, [], "file:///model")


@pytest.mark.parametrize(
    "uri",
    ["file:///a%20b/c", "s3://bucket/key", "hf://owner/name", "hf://name@main", "hf://o/n.v2@refs/pr/3", "models:/m@a"],
)
def test_models_have_names_of_four_kinds(uri: str) -> None:
    check_model_uri(uri)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://bucket/key", "cannot be found by that name. Use a folder, s3://"),
        ("runs/tiny", "cannot be found by that name"),
        ("package://vl3.recipes/bases", "cannot be found by that name"),
        ("file:///a\nb", "cannot be found by that name"),
        ("s3:/bucket/key", "model 's3:/bucket/key' is not an address of a folder"),
        ("s3:///key", "is not an address of a folder"),
        ("s3://key:secret@bucket/m", "model 'bucket/m' is not an address"),
        ("file://host/m", "is not an address of a folder"),
        ("hf://owner", None),
        ("hf://a/b/c", "does not name a model of the hub"),
        ("hf://a/b@", "does not name a model of the hub"),
        ("hf:/a/b", "does not name a model of the hub"),
        ("hf://../b", None),
        ("models:/vl3-tiny", "does not name a version of a registered model"),
        ("models:/vl3-tiny/champion", "does not name a version of a registered model"),
        ("models://vl3-tiny@champion", "does not name a version of a registered model"),
        ("models:/a/b@champion", "does not name a version of a registered model"),
        ("models:/it's@champion/3", "does not name a version of a registered model"),
    ],
)
def test_names_that_lead_nowhere_are_refused(uri: str, message: str | None) -> None:
    if message is None:
        check_model_uri(uri)  # of the right form: the hub says that there is no such model
        return
    with pytest.raises(ConfigError, match=message):
        check_model_uri(uri)


def test_the_parts_of_a_name() -> None:
    assert split_hub("hf://owner/name@v1.0") == ("owner/name", "v1.0")
    assert split_hub("hf://owner/name") == ("owner/name", "")
    assert split_registered("models:/vl3-tiny@champion") == ("vl3-tiny", "champion")
    assert split_registered("models:/vl3 tiny/12") == ("vl3 tiny", "12")
