"""Questions about pictures, charts and documents."""

import pytest

from tests.unit.data.catalogue.conftest import PICTURE, read_refused, talk

SHORT = "\nAnswer the question with a single word or phrase."


@pytest.mark.parametrize(
    ("entry", "files", "image", "texts"),
    [
        (
            "docvqa",
            {
                "train_v1.0_withQT.json": {
                    "dataset_name": "SP-DocVQA",
                    "data": [
                        {
                            "questionId": 337,
                            "question": "What date?",
                            "image": "documents/x_1.png",
                            "answers": ["1/8/93", "a"],
                        }
                    ],
                }
            },
            "documents/x_1.png",
            ["What date?", "1/8/93"],
        ),
        (
            "infovqa",
            {
                "infographicsVQA_train_v1.0.json": {
                    "data": [{"questionId": 1, "question": "How many?", "image_local_name": "3.jpeg", "answers": ["5"]}]
                }
            },
            "infographicsvqa_images/3.jpeg",
            ["How many?", "5"],
        ),
        (
            "chartqa",
            {
                "train/train_human.json": [{"imgname": "4.png", "query": "Max?", "label": "0.57"}],
                "train/train_augmented.json": [],
            },
            "train/png/4.png",
            ["Max?", "0.57"],
        ),
        (
            "dvqa",
            {"train_qa.json": [{"question": "Bars?", "answer": "no", "image": "bar_1.png", "template_id": "s"}]},
            "images/bar_1.png",
            ["Bars?", "no"],
        ),
        (
            "plotqa",
            {"qa_pairs_V2.json": {"qa_pairs": [{"image_index": 0, "question_string": "Sum?", "answer": 3.5}]}},
            "png/0.png",
            ["Sum?", "3.5"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_question_about_one_picture(imported, entry, files, image, texts):
    """Layouts: rrc.cvc.uab.es, challenge 17; vis-nlp/ChartQA; kushalkafle/DVQA_dataset; NiteshMethani/PlotQA."""
    lines, card = imported(entry, {**files, image: PICTURE})
    assert lines[0]["image"] == [image]
    assert talk(lines[0]) == [texts[0] + SHORT, texts[1]]
    assert card.refused == 0


def test_a_question_without_answer_is_refused(imported, tmp_path):
    questions = [
        {"question": "a?", "image": "documents/x.png", "answers": []},
        {"question": "b?", "image": "documents/x.png", "answers": ["b"]},
        {"question": "c?", "image": "documents/missing.png", "answers": ["c"]},
        {"question": "d?", "image": "../x.png", "answers": ["d"]},
    ]
    _, card = imported("docvqa", {"train_v1.0_withQT.json": {"data": questions}, "documents/x.png": PICTURE})
    refused = read_refused(tmp_path / "out")
    assert [(entry["where"], entry["kind"]) for entry in refused] == [
        ("train_v1.0_withQT.json:0", "structure"),
        ("train_v1.0_withQT.json:2", "missing_file"),
        ("train_v1.0_withQT.json:3", "outside_folder"),
    ]
    assert (card.items, card.samples, card.refused) == (4, 1, 3)
    assert card.reasons["missing_file"][0] == 1


def test_chart_to_text(imported):
    """Layout: vis-nlp/Chart-to-text, README."""
    base = "statista_dataset/dataset"
    files = {f"{base}/captions/7.txt": "Sales rose.", f"{base}/imgs/7.png": PICTURE}
    deep = {f"{base}/multiColumn/captions/8.txt": "Two lines.", f"{base}/multiColumn/imgs/8.png": PICTURE}
    lines, _ = imported("chart_to_text", {**files, **deep})
    assert [(line["image"][0].removeprefix(base), talk(line)[1]) for line in lines] == [
        ("/imgs/7.png", "Sales rose."),
        ("/multiColumn/imgs/8.png", "Two lines."),
    ]


def test_dude_shows_all_pages(imported):
    """Layout: jordyvl/DUDE_loader; nttmdlab-nlp/InstructDoc, its converter of DUDE."""
    entry = {"docId": "a1", "question": "Who?", "answers": ["Ada"], "answer_type": "extractive", "data_split": "train"}
    questions = [
        entry,
        {**entry, "answers": [""], "answer_type": "not-answerable"},
        {**entry, "data_split": "val"},
        {**entry, "docId": "b2"},
    ]
    folder = "DUDE_train-val-test_binaries/images/train"
    files = {f"{folder}/a1_{page}.jpg": PICTURE for page in (0, 1)}
    lines, card = imported("dude", {"2023-03-23_DUDE_gt_test_PUBLIC.json": {"data": questions}, **files})
    assert lines[0]["image"] == [f"{folder}/a1_0.jpg", f"{folder}/a1_1.jpg"]
    assert [talk(line) for line in lines] == [["Who?", "Ada"], ["Who?", "The document does not answer this question."]]
    assert (card.items, card.refused) == (3, 1)


def test_lrv_asks_for_whole_sentences(imported):
    """Layout: TRI-ML/prismatic-vlms, scripts/additional-datasets/lrv_instruct.py."""
    data = [{"image_id": "1.png", "question": "What rises?", "answer": "Sales rise."}]
    lines, _ = imported("lrv_instruction", {"chart_release_update.json": data, "chart_image/1.png": PICTURE})
    assert (lines[0]["image"], talk(lines[0])) == (["chart_image/1.png"], ["What rises?", "Sales rise."])
