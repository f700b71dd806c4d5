"""Captions, instructions, Parquet with pictures, web-dataset pairs and documents of several pages."""

import io
import json

from PIL import Image

from tests.support.samples import image_bytes
from tests.unit.data.catalogue.conftest import PICTURE, read_refused, talk, tar_bytes
from vl3.data.catalogue.entry import Entry


def test_textcaps(imported):
    """Layout: textvqa.org/textcaps/dataset."""
    data = {"dataset_type": "train", "data": [{"image_id": "0054c91397f2fe05", "caption_str": "A bottle.", "id": 1}]}
    lines, _ = imported("textcaps", {"TextCaps_0.1_train.json": data, "train_images/0054c91397f2fe05.jpg": PICTURE})
    assert lines[0]["image"] == ["train_images/0054c91397f2fe05.jpg"]
    assert talk(lines[0])[1] == "A bottle."


def test_the_caption_follows_the_stage(imported, tmp_path):
    entry = Entry(
        name="two",
        format="captions",
        options={"files": ["*.jsonl"]},
        by_stage={1: {"caption": "short", "prompt": "Describe the image briefly."}, 2: {"caption": "detailed"}},
    )
    item = {"image": "a.jpg", "short": "A cat.", "detailed": "A black cat on a mat."}
    files = {"a.jsonl": json.dumps(item), "a.jpg": PICTURE}
    first, _ = imported(entry, files, stage=1)
    assert talk(first[0]) == ["Describe the image briefly.", "A cat."]
    (tmp_path / "out").rename(tmp_path / "out1")
    second, card = imported(entry, files, stage=2)
    assert (talk(second[0])[1], card.stage) == ("A black cat on a mat.", 2)


def test_instructions(imported):
    """Layout: migtissera/Synthia-v1.3, dataset card."""
    lines, _ = imported(
        "synthia", {"Synthia-v1.3.json": '{"system": "Think.", "instruction": "2+2?", "response": "4"}\n'}
    )
    assert [(turn["from"], turn["value"]) for turn in lines[0]["conversations"]] == [
        ("system", "Think."),
        ("human", "2+2?"),
        ("gpt", "4"),
    ]


def test_alpaca_with_input_and_history(imported):
    entry = Entry(name="own", format="instructions", options={"files": ["a.json"]})
    data = [{"instruction": "Sort", "input": "3 1", "output": "1 3", "history": [["Hi", "Yo"]]}]
    lines, _ = imported(entry, {"a.json": data})
    assert talk(lines[0]) == ["Hi", "Yo", "Sort\n3 1", "1 3"]


def test_synthdog(imported, tmp_path):
    """Layout: naver-clova-ix/synthdog-en, dataset card; clovaai/donut, README."""
    truth = json.dumps({"gt_parse": {"text_sequence": "Once upon"}})
    rows = [
        {"image": {"bytes": PICTURE, "path": "0.jpg"}, "ground_truth": truth},
        {"image": None, "ground_truth": "{}"},
    ]
    lines, card = imported("synthdog_en", {"data/train-00000-of-00001.parquet": rows})
    assert lines[0]["image"] == ["extracted/000000/000000000.jpg"]
    assert (tmp_path / "out" / lines[0]["image"][0]).read_bytes() == PICTURE
    assert (talk(lines[0])[1], card.refused) == ("Once upon", 1)


def test_docmatix_has_several_pages_and_questions(imported):
    """Layout: HuggingFaceM4/Docmatix, dataset card."""
    pages = [{"bytes": image_bytes(20, 30, seed=seed), "path": None} for seed in range(2)]
    texts = [
        {"user": "Title?", "assistant": "A.", "source": "PDFA"},
        {"user": "Year?", "assistant": "1999.", "source": "PDFA"},
    ]
    lines, _ = imported("docmatix", {"data/train-00000.parquet": [{"images": pages, "texts": texts}]})
    assert lines[0]["image"] == ["extracted/000000/000000000.png", "extracted/000000/000000001.png"]
    assert talk(lines[0]) == ["Title?", "A.", "Year?", "1999."]


def test_llava_onevision_has_rows_without_a_picture(imported):
    """Layout: lmms-lab/LLaVA-OneVision-Data, dataset card."""
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    rows = [
        {"id": "a", "image": {"bytes": PICTURE, "path": "a.png"}, "conversations": turns, "data_source": "x"},
        {"id": "b", "image": None, "conversations": turns, "data_source": "x"},
    ]
    lines, _ = imported("llava_ov_si", {"ai2d/train-00000.parquet": rows})
    assert ["image" in line for line in lines] == [True, False]


def test_pairs_of_img2dataset(imported, tmp_path):
    """Layout: rom1504/img2dataset, README."""
    entry = Entry(name="laion", format="webdataset", options={"text": "json:caption"})
    members = {
        "0.jpg": PICTURE,
        "0.txt": b"x",
        "0.json": b'{"caption": "A cat."}',
        "1.jpg": PICTURE,
        "1.txt": b"x",
        "2.json": b'{"caption": "no picture"}',
    }
    lines, card = imported(entry, {"00000.tar": tar_bytes(members)})
    assert (talk(lines[0])[1], card.items, card.refused) == ("A cat.", 3, 2)
    assert [entry["reason"] for entry in read_refused(tmp_path / "out")] == [
        "there is no text .json, only jpg, txt.",
        "there is no picture, only json.",
    ]


def test_idl_has_pages_as_tiff(imported, tmp_path):
    """Layout: pixparse/idl-wds, dataset card."""
    first, *rest = [Image.new("L", (60, 80), level) for level in (10, 120, 250)]
    buffer = io.BytesIO()
    first.save(buffer, "TIFF", save_all=True, append_images=rest)
    words = {"pages": [{"text": ["PHILIP", "MORRIS"], "bbox": [], "score": []}, {"text": []}, {"text": ["END"]}]}
    members = {"fpff0.json": json.dumps(words).encode(), "fpff0.pdf": b"%PDF", "fpff0.tif": buffer.getvalue()}
    broken = {"b.json": json.dumps(words).encode(), "b.tif": b"II*\0 no picture"}
    lines, card = imported("idl", {"idl-train-00000.tar": tar_bytes({**members, **broken})})
    assert [talk(line)[1] for line in lines] == ["PHILIP\nMORRIS", "END"]
    with Image.open(tmp_path / "out" / lines[1]["image"][0]) as page:
        assert (page.size, page.getpixel((0, 0))) == ((60, 80), 250)
    assert card.refused == 1


def test_pixmo_docs_has_lists_of_questions(imported):
    """Layout: allenai/pixmo-docs as NVIDIA/Megatron-LM, examples/multimodal_dev/data/pixmo_docs.py reads it."""
    row = {"image": {"bytes": PICTURE, "path": None}, "questions": {"question": ["Max?", "Min?"], "answer": ["9", "1"]}}
    uneven = {**row, "questions": {"question": ["Max?"], "answer": ["9", "1"]}}
    lines, card = imported("pixmo", {"charts/train-00000-of-00001.parquet": [row, uneven]})
    assert talk(lines[0]) == ["Max?", "9", "Min?", "1"]
    assert (len(lines), card.refused) == (1, 1)
