"""Three items of each of the paper's benchmarks, in the layout in which it is published: card, data files, archives."""

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import yaml
from PIL import Image
from pyarrow import parquet

from vl3.evaluation.catalogue.entry import Benchmark, read_benchmarks

Row = dict[str, Any]
UNREADABLE = "I do not know"


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What the task gives three answers: a right one, a wrong one, and one in which there is nothing to read."""

    answers: dict[str, tuple[str, ...]]
    """By task."""
    scores: dict[str, tuple[float | str | None, ...]]
    """By task; `guess ABCD A`: the task draws one of these letters, and the last one is right."""
    score: float | None
    """Of the benchmark, on the paper's scale; None if drawn letters decide it, or a server."""


def build(name: str, folder: Path) -> tuple[Benchmark, Expected]:
    """Write a benchmark's published layout; returns its entry with the fixture's numbers of items, and its scores."""
    entry = read_benchmarks()[name]
    # One of BLINK's 14 and MVBench's 20 equal tasks is enough, and all of TempCompass's four, whose rules differ.
    parts = entry.parts[:1] if name in ("blink", "mvbench") else entry.parts
    items = 4 if name == "mme" else 3
    expected = _BUILDERS[name](folder)
    return replace(entry, parts=tuple(replace(part, items=items) for part in parts)), expected


def picture(shade: int) -> bytes:
    """A small PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((28, 28, 3), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def video(seconds: int = 4) -> bytes:
    """A small MP4 with one frame a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(seconds):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * number, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def write_parquet(path: Path, rows: Sequence[Row], images: Sequence[str] = ()) -> None:
    """Rows as the hub has them; columns named in `images` are pictures, given by their bytes or None."""
    shown = [
        {
            key: {"bytes": value, "path": None} if key in images and value is not None else value
            for key, value in row.items()
        }
        for row in rows
    ]
    picture_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.Table.from_pylist(shown)
    for name in images:
        column = table.column(name)
        table = table.set_column(table.schema.get_field_index(name), name, column.cast(picture_type))
    features = {
        field.name: {"_type": "Image"} if field.name in images else _feature(field.type) for field in table.schema
    }
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


def _feature(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def card(folder: Path, configs: Sequence[tuple[str, str, str]]) -> None:
    """A card that names (configuration, split, path) of the data files."""
    found = [{"config_name": name, "data_files": [{"split": split, "path": path}]} for name, split, path in configs]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': found})}---\n# A benchmark\n")


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """An archive of files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _one(folder: Path, split: str, rows: Sequence[Row], images: Sequence[str] = (), config: str = "default") -> None:
    name = "data" if config == "default" else config.replace(" ", "_")
    card(folder, [(config, split, f"{name}/{split}-*")])
    write_parquet(folder / name / f"{split}-00000-of-00001.parquet", rows, images)


def _expect(task: str, answers: Sequence[str], scores: Sequence[float | str | None], score: float | None) -> Expected:
    return Expected(answers={task: tuple(answers)}, scores={task: tuple(scores)}, score=score)


def _chartqa(folder: Path) -> Expected:
    kinds = ["human_test", "augmented_test", "human_test"]
    rows = [{"type": kind, "question": "How many?", "answer": "10", "image": picture(9)} for kind in kinds]
    _one(folder, "test", rows, ["image"])
    return _expect("chartqa", ["10.4", "12", UNREADABLE], [1, 0, 0], 100 / 3)


def _docvqa(config: str, task: str) -> Callable[[Path], Expected]:
    def write(folder: Path) -> Expected:
        rows = [
            {
                "questionId": str(n),
                "question": "Which city?",
                "answers": ["Paris", "paris, france"],
                "image": picture(n),
            }
            for n in range(3)
        ]
        _one(folder, "validation", rows, ["image"], config)
        return _expect(task, ["Paris", "Pariz", UNREADABLE], [1, 0.8, 0], 60)

    return write


def _ocrbench(folder: Path) -> Expected:
    rows = [
        {
            "dataset": "IIIT5K",
            "question": "what is written?",
            "question_type": "Regular Text Recognition",
            "answer": ["CENTRE"],
            "image": picture(n),
        }
        for n in range(3)
    ]
    _one(folder, "test", rows, ["image"])
    return _expect("ocrbench", ["It says centre.", "center", UNREADABLE], [1, 0, 0], 1)


def _mathvista(folder: Path) -> Expected:
    about = {
        "split": "testmini", "language": "english", "source": "x", "category": "math", "task": "t", "context": "c",
        "grade": "high school", "skills": ["algebra"],
    }  # fmt: skip
    rows = [
        {
            "pid": str(n), "question": "How many?", "image": "images/1.jpg", "decoded_image": picture(n),
            "choices": None, "unit": None, "precision": 1.0, "answer": "7", "question_type": "free_form",
            "answer_type": "integer",
            "metadata": about, "query": "How many?",
        }
        for n in range(3)
    ]  # fmt: skip
    rows[2] = {**rows[2], "choices": ["6", "7"]}
    _one(folder, "testmini", rows, ["decoded_image"])
    return _expect("mathvista_testmini_format", ["7", "8", UNREADABLE], [1, 0, 0], 33.33)


def _mathvision(folder: Path) -> Expected:
    rows = [
        {
            "id": str(n),
            "question": "How much?",
            "options": [],
            "image": "1.jpg",
            "decoded_image": picture(n),
            "answer": "7",
        }
        for n in range(3)
    ]
    rows[1] = {**rows[1], "options": ["5", "6", "7", "8", "9"], "answer": "C"}
    _one(folder, "test", rows, ["decoded_image"])
    return _expect("mathvision_test", [r"So it is \boxed{7}.", r"\boxed{B}", UNREADABLE], [1, 0, 0], 33.33)


def _mmmu_pro(folder: Path) -> Expected:
    options = str([f"thing {n}" for n in range(10)])
    rows = [
        {
            "id": f"test_Art_{n}",
            "question": "<image 1> What?",
            "options": options,
            "answer": "A",
            "image_1": picture(n),
            "subject": "Art",
        }
        for n in range(3)
    ]
    _one(folder, "test", rows, ["image_1"], "standard (10 options)")
    return _expect("mmmu_pro_standard", ["A", "(B)", "???"], [1, 0, "guess ABCDEFGHIJ A"], None)


def _mmmu(folder: Path) -> Expected:
    rows = [
        {
            "id": f"validation_Art_{n}",
            "question": "<image 1> What?",
            "options": "['cat', 'dog', 'cow', 'hen']",
            "question_type": "multiple-choice",
            "answer": "A",
            "image_1": picture(n),
        }
        for n in range(3)
    ]
    _one(folder, "validation", rows, ["image_1"])
    return _expect("mmmu_val", ["A", "B.", "???"], [1, 0, "guess ABCD A"], None)


def _blink(folder: Path) -> Expected:
    rows = [
        {
            "idx": f"val_Art_Style_{n}",
            "sub_task": "Art_Style",
            "question": "Which?",
            "prompt": "Which? (A) x (B) y",
            "choices": ["x", "y"],
            "answer": "(A)",
            "image_1": picture(n),
            "image_2": picture(99),
            "image_3": None,
            "image_4": None,
        }
        for n in range(3)
    ]
    _one(folder, "val", rows, ["image_1", "image_2", "image_3", "image_4"], "Art_Style")
    return _expect("blink_art_style", ["The answer is (A).", "B", UNREADABLE], [1, 0, 0], 100 / 3)


def _realworldqa(folder: Path) -> Expected:
    rows = [
        {"question": "Which? A. x B. y", "answer": answer, "image": picture(7)} for answer in ("A", "Downhill", "B")
    ]
    _one(folder, "test", rows, ["image"])
    return _expect("realworldqa", ["A.", "Uphill", UNREADABLE], [1, 0, 0], 100 / 3)


def _ai2d(folder: Path) -> Expected:
    rows = [
        {"question": "Which?", "options": ["x", "y", "z", "w"], "answer": "0", "image": picture(n)} for n in range(3)
    ]
    _one(folder, "test", rows, ["image"])
    return _expect("ai2d", ["A. x", "B", UNREADABLE], [1, 0, 0], 100 / 3)


def _gqa(folder: Path) -> Expected:
    questions, pictures = "testdev_balanced_instructions", "testdev_balanced_images"
    card(folder, [(questions, "testdev", f"{questions}/testdev-*"), (pictures, "testdev", f"{pictures}/testdev-*")])
    rows = [{"id": str(n), "imageId": f"n{n % 2}", "question": "Is it?", "answer": "yes"} for n in range(3)]
    write_parquet(folder / questions / "testdev-00000-of-00001.parquet", rows)
    shown = [{"id": f"n{n}", "image": picture(n)} for n in range(2)]
    write_parquet(folder / pictures / "testdev-00000-of-00001.parquet", shown, ["image"])
    return _expect("gqa", ["Yes.", "no", UNREADABLE], [1, 0, 0], 100 / 3)


def _mme(folder: Path) -> Expected:
    rows = [
        {
            "question_id": f"{category}/1.png",
            "image": picture(3),
            "question": "Is it? Please answer yes or no.",
            "answer": answer,
            "category": category,
        }
        for category in ("existence", "code_reasoning")
        for answer in ("Yes", "No")
    ]
    _one(folder, "test", rows, ["image"])
    # A pair that is right is worth 100 for its questions and 100 for both; no and nothing to read are worth nothing.
    return _expect("mme", ["Yes", "No.", "No", UNREADABLE], [1, 1, 0, 0], 200)


def _videomme(task: str) -> Callable[[Path], Expected]:
    def write(folder: Path) -> Expected:
        rows = [
            {
                "video_id": "1",
                "videoID": f"clip{n}",
                "question_id": f"1-{n}",
                "question": "Which?",
                "options": ["A. x", "B. y", "C. z", "D. w"],
                "answer": "A",
                "domain": "Knowledge",
                "sub_category": "Geography",
                "task_type": "Action Recognition",
                "duration": "short",
            }
            for n in range(3)
        ]
        card(folder, [("videomme", "test", "videomme/test-*")])
        write_parquet(folder / "videomme" / "test-00000-of-00001.parquet", rows)
        write_zip(folder / "videos_chunked_01.zip", {f"data/clip{n}.mp4": video() for n in range(3)})
        text = '1\n00:00:00,000 --> 00:00:02,000\n<font color="white" size=".72c">hello there</font>\n\n'
        write_zip(folder / "subtitle.zip", {"subtitle/clip0.srt": text.encode()})
        return _expect(task, ["A", "B.", "???"], [1, 0, 0], 100 / 3)

    return write


def _mmvu(folder: Path) -> Expected:
    choices = dict(zip("ABCDE", ["x", "y", "z", "w", "v"], strict=True))
    rows = [
        {
            "id": f"validation_{n}",
            "question_type": "multiple-choice",
            "question": "Which?",
            "choices": choices,
            "answer": "A",
            "video_path": f"videos/Biology/{n}.mp4",
        }
        for n in range(3)
    ]
    rows[2] = {**rows[2], "question_type": "open-ended", "answer": "photosynthesis"}
    _one(folder, "validation", rows)
    write_zip(folder / "videos.zip", {f"videos/Biology/{n}.mp4": video() for n in range(3)})
    return _expect("mmvu_val", ["A", "B", UNREADABLE], [1, 0, 0], 100 / 3)


def _mvbench(folder: Path) -> Expected:
    rows = [
        {"video": f"{n}.mp4", "question": "What?", "candidates": ["cat", "dog", "cow"], "answer": "cat"}
        for n in range(3)
    ]
    configs = [{"config_name": "action_sequence", "data_files": "json/action_sequence.json"}]
    (folder / "json").mkdir(parents=True)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    (folder / "json" / "action_sequence.json").write_text(json.dumps(rows))
    write_zip(folder / "video" / "star.zip", {f"star/Charades_segment/{n}.mp4": video() for n in range(3)})
    return _expect("mvbench_action_sequence", ["(A) cat", "B", "???"], [1, 0, 0], 100 / 3)


def _egoschema(folder: Path) -> Expected:
    options = [f"{letter}. thing {letter}" for letter in "ABCDE"]
    rows = [
        {"question_idx": str(n), "question": "What?", "video_idx": f"v{n}", "option": options, "answer": "0"}
        for n in range(3)
    ]
    _one(folder, "test", rows, (), "GENERATION")
    write_zip(folder / "videos_chunked_01.zip", {f"videos/v{n}.mp4": video() for n in range(3)})
    return _expect("egoschema", ["A", "(B)", "???"], [None, None, None], None)


def _perception_test(folder: Path) -> Expected:
    rows = [
        {"video_name": f"v{n}", "question": "What?", "question_id": str(n), "options": ["x", "y", "z"]}
        for n in range(3)
    ]
    _one(folder, "test", rows, (), "mc_question")
    write_zip(folder / "videos_chunked_01.zip", {f"videos/v{n}.mp4": video() for n in range(3)})
    return _expect("perceptiontest_test_mc", ["A", "B", "???"], [None, None, None], None)


def _activitynet_qa(folder: Path) -> Expected:
    rows = [
        {"video_name": f"v{n}", "question": "what is it", "question_id": f"q{n}", "answer": "cat", "type": "3"}
        for n in range(3)
    ]
    _one(folder, "test", rows)
    write_zip(folder / "all_test.zip", {f"all_test/v_v{n}.mp4": video() for n in range(3)})
    return _expect("activitynetqa", ["cat", "dog", "???"], [1, 0, 0], 100 / 3)


def _mlvu(folder: Path) -> Expected:
    rows = [
        {"video_name": f"1_plotQA/{n}.mp4", "question": "What?\n(A) x\n(B) y", "task_type": "plotQA", "answer": "A"}
        for n in range(3)
    ]
    _one(folder, "test", rows)
    write_zip(folder / "video_part_1.zip", {f"1_plotQA/{n}.mp4": video() for n in range(3)})
    # The mean over seven tasks, six of which have no question here.
    return _expect("mlvu_dev", ["A)", "B", "???"], [1, 0, 0], 100 / 3 / 7)


def _longvideobench(folder: Path) -> Expected:
    rows = [
        {
            "id": str(n),
            "question": "What?",
            "option0": "x",
            "option1": "y",
            "option2": "z",
            "option3": "w",
            "option4": "N/A",
            "correct_choice": 0,
            "video_path": f"{n}.mp4",
            "subtitle_path": f"{n}.json",
            "duration": 4.0,
            "duration_group": 15,
            "question_category": "S2E",
            "starting_timestamp_for_subtitles": 0.0,
        }
        for n in range(3)
    ]
    _one(folder, "validation", rows)
    write_zip(folder / "videos.zip", {f"videos/{n}.mp4": video() for n in range(3)})
    return _expect("longvideobench_val_v", ["A", "B. y", "???"], [1, 0, "guess ABCD A"], None)


def _lvbench(folder: Path) -> Expected:
    rows = [
        {"key": str(n), "video_path": f"{n}.mp4", "question": "What?\n(A) x\n(B) y", "answer": "A"} for n in range(3)
    ]
    _one(folder, "train", rows)
    write_zip(folder / "videos.zip", {f"{n}.mp4": video() for n in range(3)})
    return _expect("lvbench", ["(A)", "B", "???"], [1, 0, 0], 100 / 3)


def _tempcompass(folder: Path) -> Expected:
    about = {"video_id": "v", "dim": "action"}
    captions = "Which caption fits?\nCaption A: a cat\nCaption B: a dog"
    by_config = {
        "multi-choice": {"question": "What?\nA. cat\nB. dog", "answer": "A. cat"},
        "yes_no": {"question": "Is it a cat?", "answer": "yes"},
        "caption_matching": {"question": captions, "answer": "Caption A: a cat"},
        "captioning": {
            "question": "Describe it.",
            "answer": "cat",
            "mc_question": "What?\nA. cat\nB. dog",
            "mc_answer": "A. cat",
        },
    }
    card(folder, [(config, "test", f"{config}/test-*") for config in by_config])
    for config, row in by_config.items():
        write_parquet(folder / config / "test-00000-of-00001.parquet", [{**about, **row}] * 3)
    write_zip(folder / "tempcompass_videos.zip", {"videos/v.mp4": video()})
    answers = {
        "tempcompass_multi_choice": ("A.", "B", "???"),
        "tempcompass_yes_no": ("Yes.", "No", "???"),
        "tempcompass_caption_matching": ("Caption A", "Caption B", "???"),
        "tempcompass_captioning": ("A cat sleeps.", "A dog runs.", "???"),
    }
    return Expected(answers=answers, scores=dict.fromkeys(answers, (1, 0, 0)), score=100 / 3)


def _nextqa(folder: Path) -> Expected:
    rows = [
        {
            "video": 10 + n,
            "qid": n,
            "type": "CW",
            "question": "why",
            "answer": 0,
            **{f"a{k}": f"thing {k}" for k in range(5)},
        }
        for n in range(3)
    ]
    _one(folder, "test", rows, (), "MC")
    write_zip(folder / "videos.zip", {f"NExTVideo/{10 + n}.mp4": video() for n in range(3)})
    return _expect("nextqa_mc_test", ["A. thing 0", "B", "???"], [1, 0, "guess ABCDE A"], None)


def _charades_sta(folder: Path) -> Expected:
    rows = [{"video": f"{n}.mp4", "caption": "a person sits", "timestamp": [0.0, 4.0]} for n in range(3)]
    _one(folder, "test", rows)
    write_zip(folder / "Charades_v1_480.zip", {f"Charades_v1_480/{n}.mp4": video() for n in range(3)})
    # Half of the time is an overlap of one half.
    return _expect("temporal_grounding_charades", ["0.0 - 4.0 seconds", "from 0 to 2.0", UNREADABLE], [1, 0.5, 0], 50)


_BUILDERS: dict[str, Callable[[Path], Expected]] = {
    "chartqa": _chartqa,
    "docvqa": _docvqa("DocVQA", "docvqa_val"),
    "infovqa": _docvqa("InfographicVQA", "infovqa_val"),
    "ocrbench": _ocrbench,
    "mathvista": _mathvista,
    "mathvision": _mathvision,
    "mmmu_pro": _mmmu_pro,
    "mmmu": _mmmu,
    "blink": _blink,
    "realworldqa": _realworldqa,
    "ai2d": _ai2d,
    "gqa": _gqa,
    "mme": _mme,
    "videomme": _videomme("videomme"),
    "videomme_sub": _videomme("videomme_w_subtitle"),
    "mmvu": _mmvu,
    "mvbench": _mvbench,
    "egoschema": _egoschema,
    "perception_test": _perception_test,
    "activitynet_qa": _activitynet_qa,
    "mlvu": _mlvu,
    "longvideobench": _longvideobench,
    "lvbench": _lvbench,
    "tempcompass": _tempcompass,
    "nextqa": _nextqa,
    "charades_sta": _charades_sta,
}
