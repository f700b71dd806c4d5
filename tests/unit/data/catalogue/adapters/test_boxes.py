"""COCO, scene text, forms, regions, grounded captions, referring expressions and VCR; boxes in thousandths."""

import json

import pytest

from tests.unit.data.catalogue.conftest import PICTURE, read_refused, talk
from vl3.data.catalogue.entry import Entry

IMAGE = {"id": 7, "file_name": "a.jpg", "width": 200, "height": 100}


def test_objects365(imported, tmp_path):
    """Layout: cocodataset.org, "Data format"; Objects365 v2 has the same."""
    data = {
        "licenses": [],
        "categories": [{"id": 1, "name": "Person"}, {"id": 2, "name": "Lamp"}],
        "images": [
            {**IMAGE, "file_name": "images/v1/patch8/a.jpg"},
            {"id": 8, "file_name": "b.jpg", "width": 9, "height": 9},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [20, 10, 40, 80], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [100, 0, 150, 50]},
            {"id": 3, "image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 10]},
        ],
    }
    lines, card = imported("objects365", {"zhiyuan_objv2_train.json": data, "train/images/v1/patch8/a.jpg": PICTURE})
    assert lines[0]["image"] == ["train/images/v1/patch8/a.jpg"]
    assert talk(lines[0])[1] == "<ref>Person</ref>[[100,100,300,900],[0,0,50,100]], <ref>Lamp</ref>[[500,0,1000,500]]"
    assert (card.items, card.refused) == (2, 1)
    assert read_refused(tmp_path / "out")[0] == {
        "where": "zhiyuan_objv2_train.json:image 8",
        "kind": "structure",
        "reason": "the image has no annotation.",
    }


def test_coco_captions(imported):
    entry = Entry(name="coco", format="coco_captions", options={"file": "c.json", "images": "train2017/"})
    annotations = [{"id": 1, "image_id": 7, "caption": "A dog."}, {"id": 2, "image_id": 7, "caption": "It runs."}]
    files = {"c.json": {"annotations": annotations, "images": [IMAGE]}, "train2017/a.jpg": PICTURE}
    lines, _ = imported(entry, files)
    assert [talk(line)[1] for line in lines] == ["A dog.", "It runs."]


@pytest.mark.parametrize(
    ("entry", "file", "picture"),
    [
        ("coco_text", "cocotext.v2.json", "train2014/COCO_1.jpg"),
        ("textocr", "TextOCR_0.1_train.json", "train_images/train/1.jpg"),
    ],
)
def test_coco_text_and_textocr(imported, entry, file, picture):
    """Layouts: andreasveit/coco-text, coco_text.py; textvqa.org/textocr/dataset."""
    name = picture.removeprefix("train2014/").removeprefix("train_images/")
    data = {
        "cats": {},
        "anns": {
            "1_1": {
                "id": "1_1",
                "image_id": "1",
                "bbox": [10.0, 20.0, 40.0, 20.0],
                "utf8_string": "STOP",
                "points": [],
            },
            "1_2": {"id": "1_2", "image_id": "1", "bbox": [0, 0, 5, 5], "utf8_string": "."},
            "1_3": {"id": "1_3", "image_id": "1", "bbox": [0, 0, 5, 5], "utf8_string": "x", "legibility": "illegible"},
        },
        "imgs": {"1": {"id": "1", "width": 200, "height": 100, "set": "train", "file_name": name}},
        "imgToAnns": {"1": ["1_1", "1_2", "1_3"]},
    }
    lines, _ = imported(entry, {file: data, picture: PICTURE})
    assert lines[0]["image"] == [picture]
    assert talk(lines[0])[1] == "The texts in this image are STOP<box>[[50,200,250,400]]</box>."


def test_lsvt_measures_its_pictures(imported):
    """Layout: rrc.cvc.uab.es, challenge 16."""
    texts = [
        {"transcription": "店", "points": [[8, 4], [40, 4], [40, 20], [8, 20]], "illegibility": False},
        {"transcription": "###", "points": [[0, 0], [1, 0], [1, 1], [0, 1]], "illegibility": True},
    ]
    lines, _ = imported("lsvt", {"train_full_labels.json": {"gt_0": texts}, "train_full_images_1/gt_0.jpg": PICTURE})
    assert lines[0]["image"] == ["train_full_images_1/gt_0.jpg"]
    assert talk(lines[0])[1] == "The texts in this image are 店<box>[[100,100,500,500]]</box>."


def test_rects(imported):
    """Layout: rrc.cvc.uab.es, challenge 12."""
    lines_ = [{"ignore": 0, "transcription": "面", "points": [8, 4, 40, 4, 40, 20, 8, 20]}]
    files = {"gt/train_ReCTS_000001.json": {"chars": [], "lines": lines_}, "img/train_ReCTS_000001.jpg": PICTURE}
    lines, _ = imported("rects", files)
    assert talk(lines[0])[1] == "The texts in this image are 面<box>[[100,100,500,500]]</box>."


def test_funsd(imported):
    """Layout: guillaumejaume.github.io/FUNSD/description."""
    form = [{"box": [0, 0, 9, 9], "text": "DATE:", "label": "question", "words": [], "linking": [], "id": 0}]
    form += [{"box": [0, 0, 9, 9], "text": " "}, {"box": [9, 0, 19, 9], "text": "May 3"}]
    files = {"training_data/annotations/1.json": {"form": form}, "training_data/images/1.png": PICTURE}
    lines, _ = imported("funsd", files)
    assert talk(lines[0])[1] == "DATE:\nMay 3"


def test_osprey(imported, tmp_path):
    """Layout: CircleRadon/Osprey, osprey/datasets/osprey_724k.py."""
    region = {"segmentation": [[20, 10, 60, 10, 60, 90], [20, 10, 30, 20, 30, 10]]}
    head = {"file_name": "COCO_train2014_000000000009.jpg", "height": 100, "width": 200, "annotation": [region]}
    turns = [{"from": "human", "value": "What is <region1>?"}, {"from": "gpt", "value": "A bowl."}]
    mask = {**head, "annotation": [{"segmentation": {"counts": "aX", "size": [100, 200]}}], "conversations": turns}
    files = {
        "osprey_short_form.json": [{**head, "conversations": turns}, mask],
        "osprey_conversation.json": [],
        "osprey_detail_description.json": [{**head, "description": ["<region1>: A bowl of soup."]}],
        "train2017/000000000009.jpg": PICTURE,
    }
    lines, card = imported("osprey", files)
    assert talk(lines[0]) == ["What is the region [[100,100,300,900]]?", "A bowl."]
    assert talk(lines[1]) == ["Describe the region [[100,100,300,900]] in detail.", "A bowl of soup."]
    assert (lines[0]["image"], card.refused) == (["train2017/000000000009.jpg"], 1)
    assert "run-length mask" in read_refused(tmp_path / "out")[0]["reason"]


def test_flickr30k(imported):
    """Layout: ashkamath/mdetr, .github/flickr.md."""
    caption = "A man in a hat runs."
    annotations = [
        {"image_id": 7, "bbox": [20, 10, 40, 80], "tokens_positive": [[0, 5]]},
        {"image_id": 7, "bbox": [0, 0, 10, 10], "tokens_positive": [[9, 14]]},
        {"image_id": 7, "bbox": [0, 0, 20, 10], "tokens_positive": [[11, 14]]},
    ]
    data = {"images": [{**IMAGE, "caption": caption}], "annotations": annotations}
    name = "mdetr_annotations/final_flickr_separateGT_train.json"
    lines, _ = imported("flickr30k", {name: data, "flickr30k-images/a.jpg": PICTURE})
    assert talk(lines[0])[1] == "<ref>A man</ref>[[100,100,300,900]] in <ref>a hat</ref>[[0,0,50,100]] runs."


def test_refcoco(imported):
    """Layout: ashkamath/mdetr, .github/refexp.md."""
    data = {
        "images": [{**IMAGE, "caption": "the man in red", "original_id": 1, "dataset_name": "refcoco"}],
        "annotations": [{"image_id": 7, "bbox": [20, 10, 40, 80], "tokens_positive": [[0, 7]]}],
    }
    empty = {"images": [], "annotations": []}
    files = {f"mdetr_annotations/finetune_refcoco{kind}_train.json": empty for kind in ("+", "g")}
    lines, _ = imported(
        "refcoco", {**files, "mdetr_annotations/finetune_refcoco_train.json": data, "train2014/a.jpg": PICTURE}
    )
    assert talk(lines[0]) == ["Where is the man in red? Answer in [[x0,y0,x1,y1]] format.", "[[100,100,300,900]]"]


def test_vcr(imported):
    """Layout: rowanz/r2c, data/README.md."""
    item = {
        "img_fn": "movie/1.jpg",
        "metadata_fn": "movie/1.json",
        "objects": ["person", "person"],
        "question": ["Why", "is", [0], "here", "?"],
        "answer_choices": [["x"], [[0, 1], "do", "n't", "wait", "."]],
        "answer_label": 1,
        "rationale_choices": [["Two", "chairs", "."]],
        "rationale_label": 0,
    }
    metadata = {"boxes": [[0, 0, 100, 50, 0.9], [100, 50, 200, 100, 0.8]], "width": 200, "height": 100}
    files = {"train.jsonl": json.dumps(item), "vcr1images/movie/1.json": metadata, "vcr1images/movie/1.jpg": PICTURE}
    lines, _ = imported("vcr", files)
    first = "<ref>person</ref>[[0,0,500,500]]"
    second = "<ref>person</ref>[[500,500,1000,1000]]"
    assert talk(lines[0]) == [f"Why is {first} here?", f"{first} and {second} don't wait.", "Why?", "Two chairs."]
