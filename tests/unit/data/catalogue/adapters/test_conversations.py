"""LLaVA's, ShareGPT's and messages layouts: haotian-liu/LLaVA docs/Data.md; LLaMA-Factory data/README.md."""

import json

from tests.unit.data.catalogue.conftest import PICTURE, read_refused, talk
from vl3.data.catalogue.entry import Entry, find_entry

TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]


def test_llava_pretrain(imported):
    lines, card = imported(
        "llava_pretrain",
        {
            "blip_laion_cc_sbu_558k.json": [{"id": "004", "image": "00453/004539375.jpg", "conversations": TURNS}],
            "images/00453/004539375.jpg": PICTURE,
        },
    )
    assert lines == [{"category": "scene_image", "image": ["images/00453/004539375.jpg"], "conversations": TURNS}]
    assert (card.items, card.samples, card.refused) == (1, 1, 0)


def test_llava_665k_has_lines_without_a_picture(imported):
    text = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    data = [{"id": "a", "conversations": text, "model": ""}, {"id": "b", "image": "vg/1.jpg", "conversations": TURNS}]
    lines, card = imported("llava_sft_665k", {"llava_v1_5_mix665k.json": data, "vg/1.jpg": PICTURE})
    assert [line.get("image") for line in lines] == [None, ["vg/1.jpg"]]
    assert card.categories == {"scene_image": 1, "text_only": 1}


def test_cambrian_is_lines_with_a_system_prompt(imported):
    item = {"image": "coco/1.jpg", "conversations": [{"from": "system", "value": "Be brief."}, *TURNS]}
    lines, _ = imported(
        "cambrian", {"jsons/Cambrian7M_withsystemprompt.jsonl": json.dumps(item) + "\n", "coco/1.jpg": PICTURE}
    )
    assert [turn["from"] for turn in lines[0]["conversations"]] == ["system", "human", "gpt"]


def test_llava_video(imported):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It rains."}]
    item = {"id": "1", "video": "academic_source/a.mp4", "conversations": turns}
    files = {"0_30_s/cap.json": [{**item, "conversations": [{**turns[0], "value": "<video>\nWhat?"}, turns[1]]}, item]}
    lines, card = imported("llava_video_178k", {**files, "academic_source/a.mp4": b"video"})
    assert lines[0]["video"] == ["academic_source/a.mp4"]
    # The set calls its videos <image> as well: the adapter says what the tag stands for.
    assert talk(lines[1])[0] == "<video>\nWhat?"
    assert card.refused == 0


def test_vcg_plus_names_a_video_by_its_id(imported):
    turns = [{"from": "human", "value": "What?\n<video>"}, {"from": "gpt", "value": "Rain."}]
    path = "instruction_tuning/Activity_Videos/v_1.mp4"
    files = {"annotations/vcg-plus_112K.json": [{"id": "v_1", "conversations": turns}], path: b"video"}
    lines, _ = imported("vcg_plus", files)
    assert lines == [{"category": "general_video", "video": [path], "conversations": turns}]


def test_text_in_sharegpt_and_messages(imported):
    talk_ = [{"from": "human", "value": "Sort 3 1"}, {"from": "gpt", "value": "1 3"}]
    lines, _ = imported(
        "evol_instruct_143k", {"WizardLM_evol_instruct_V2_143k.json": [{"idx": "a", "conversations": talk_}]}
    )
    assert lines == [{"category": "text_only", "conversations": talk_}]


def test_messages_in_parquet(imported):
    rows = [
        {
            "id": "a",
            "source": "x",
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}],
        }
    ]
    lines, _ = imported("tulu3", {"data/train-00000.parquet": rows})
    assert talk(lines[0]) == ["Hi", "Yo"]


def test_own_names_of_columns(imported, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        """
format: sharegpt
licence: ours
category: chart
options:
  files: [data.json]
  images: pics/
  columns: {messages: dialogue, images: pictures}
  tags: {role_tag: who, content_tag: says, user_tag: Q, assistant_tag: A}
"""
    )
    item = {
        "dialogue": [{"who": "Q", "says": "Two <image><image>?"}, {"who": "A", "says": "Yes."}],
        "pictures": ["1.jpg", "2.jpg"],
    }
    strange = {"dialogue": [{"who": "X", "says": "?"}]}
    files = {"data.json": [item, strange, {"talk": []}], "pics/1.jpg": PICTURE, "pics/2.jpg": PICTURE}
    lines, card = imported(str(path), files)
    assert lines[0]["image"] == ["pics/1.jpg", "pics/2.jpg"]
    assert (card.name, card.licence, card.categories, card.refused) == ("mine", "ours", {"chart": 1}, 2)
    reasons = [entry["reason"] for entry in read_refused(tmp_path / "out")]
    assert reasons[0] == "who: 'X' is none of Q, A, system."
    assert reasons[1] == "the item is not as the layout of mine says (key 'dialogue' is missing). Correct or drop it."


def test_every_entry_with_a_format_has_options_that_its_adapter_takes():
    from vl3.data.catalogue.entry import make_adapter, read_catalogue

    entries = read_catalogue().datasets
    for entry in entries.values():
        if entry.format is not None:
            make_adapter(entry)
    assert isinstance(find_entry("coin"), Entry)


def test_sharegpt4o(imported):
    """Layout: huggingface/smollm, vision data scripts; OpenGVLab/ShareGPT-4o, dataset card."""
    item = {"image": "1.jpg", "width": 80, "height": 40, "conversations": TURNS}
    files = {"image_conversations/gpt-4o.jsonl": json.dumps(item), "images/1.jpg": PICTURE}
    lines, _ = imported("sharegpt4o_image", files)
    assert (lines[0]["image"], lines[0]["conversations"]) == (["images/1.jpg"], TURNS)
