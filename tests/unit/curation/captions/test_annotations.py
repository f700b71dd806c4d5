"""The annotations of published sets become marks."""

import json
from pathlib import Path

from vl3.curation.captions.annotations import coco_annotations, parse_marks, sa1b_annotations
from vl3.data.catalogue.adapter import Folder


def test_coco_boxes_become_corners_with_names(tmp_path: Path) -> None:
    file = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 640, "height": 480},
            {"id": 2, "file_name": "b.jpg", "width": 10, "height": 10},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 18, "bbox": [10, 20, 190, 280]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [0, 0, 640, 480], "iscrowd": 1},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(file))
    found = dict(coco_annotations(Folder(tmp_path), "instances.json"))
    assert list(found) == ["a.jpg", "b.jpg"]
    (mark,) = parse_marks(found["a.jpg"], "a.jpg")
    assert (mark.name, mark.box) == ("dog", (15, 41, 312, 625))
    assert parse_marks(found["b.jpg"], "b.jpg") == ()


def test_sa1b_masks_have_areas_and_no_names(tmp_path: Path) -> None:
    file = {
        "image": {"image_id": 1, "file_name": "sa_1.jpg", "width": 100, "height": 50},
        "annotations": [
            {
                "bbox": [0, 0, 10, 10],
                "area": 50,
                "predicted_iou": 0.9,
                "segmentation": {"size": [50, 100], "counts": "x"},
            },
            {"bbox": [50, 0, 50, 50], "area": 2000, "predicted_iou": 0.9, "segmentation": {}},
        ],
    }
    (tmp_path / "sa_1.json").write_text(json.dumps(file))
    ((name, text),) = sa1b_annotations(Folder(tmp_path))
    marks = parse_marks(text, name)
    assert name == "sa_1.jpg"
    assert [(mark.name, mark.box, mark.share) for mark in marks] == [
        ("", (500, 0, 1000, 1000), 0.4),
        ("", (0, 0, 100, 200), 0.01),
    ]
