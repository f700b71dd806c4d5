"""`vl3 data`: what it writes, which lines it refuses and how that is said."""

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFont

from tests.support.plans import make_rows, write_dataset
from vl3.cli.main import run
from vl3.toy.tokenizer import build_tokenizer

TURNS = [{"from": "human", "value": "first of red blue?"}, {"from": "gpt", "value": "red"}]
PICTURE = [{"from": "human", "value": "<image>\ncolour?"}, {"from": "gpt", "value": "red"}]


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    build_tokenizer(folder)
    return folder


@pytest.fixture
def options(language: Path) -> list[str]:
    return ["--set", f"model.language_base={language.as_uri()}", "--set", "data.build_workers=1"]


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two good lines, one that is no JSON and one whose picture is missing."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    (folder / "annotations").mkdir(parents=True)
    Image.new("RGB", (56, 42), "red").save(folder / "red.png")
    lines = [
        json.dumps({"conversations": TURNS}),
        "{not JSON",
        json.dumps({"image": ["red.png"], "conversations": PICTURE}),
        json.dumps({"image": ["blue.png"], "conversations": PICTURE}),
    ]
    (folder / "annotations" / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_sample_writes_a_corpus_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "sample", "--out", str(tmp_path / "corpus"), "--scale", "0.001", "--heldout", "1"]
    assert run([*arguments, "--workers", "1"]) == 0
    first = capsys.readouterr().out
    samples = int(first.split(": ")[1].split()[0])
    lines = [
        line
        for split in ("train", "heldout")
        for line in (tmp_path / "corpus" / "annotations" / f"{split}.jsonl").read_text().splitlines()
    ]
    assert first == f"{tmp_path / 'corpus'}: {len(lines)} samples of ten categories\n"
    assert samples == len(lines) >= 30
    assert len({json.loads(line)["category"] for line in lines}) == 10

    assert run([*arguments, "--seed", "1"]) == 6
    assert "Choose another --out." in capsys.readouterr().err


def test_build_leaves_refused_lines_out_by_name(
    data: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dataset"
    assert run(["data", "build", "--data", str(data), "--out", str(out), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("annotations/train.jsonl:2: ")
    assert lines[1].startswith("annotations/train.jsonl:4: ")
    assert "blue.png" in lines[1]
    assert lines[2] == f"{out / 'refused.jsonl'}: all 2 refused lines with their reasons"
    assert lines[3] == f"{out}: 2 of 4 lines in 1 shards"
    assert (out / "index.parquet").is_file()
    assert not Path(f"{out}.partial").exists()


def test_equal_refusals_are_printed_once_and_unread_keys_are_named(
    data: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"image": [f"no-{n}.png"], "conversations": PICTURE, "note": n} for n in range(40)]
    lines += [{"conversations": []}] * 5 + [{"conversations": TURNS, "note": 1, "page": 2}]
    path = data / "annotations" / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    out = tmp_path / "dataset"
    assert run(["data", "build", "--data", str(data), "--out", str(out), *options]) == 0
    place = "annotations/train.jsonl"
    assert capsys.readouterr().out.splitlines() == [
        f"{place}:1, {place}:2, {place}:3 and 37 more (40 lines): media file 'no-0.png' does not exist in the data "
        "folder. Restore the file or drop the sample. (the others differ in their values)",
        f"{place}:41, {place}:42, {place}:43 and 2 more (5 lines): conversations: empty. Add turns or drop the line.",
        f"{out / 'refused.jsonl'}: all 45 refused lines with their reasons",
        "keys that vl3 does not read: note (41 lines), page (1 lines)",
        f"{out}: 1 of 46 lines in 1 shards",
    ]


def test_build_says_that_nothing_can_be_held_out(
    data: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"image": [path], "conversations": PICTURE} for path in ("red.png", "./red.png", "copy.png")]
    (data / "copy.png").write_bytes((data / "red.png").read_bytes())
    (data / "annotations" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "dataset"
    assert run(["data", "build", "--data", str(data), "--out", str(out), *options]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "no sample is held out for evaluation: all share a file or their text with each other, directly or through "
        "others",
        f"{out}: 3 of 3 lines in 1 shards",
    ]


def test_lost_pictures_are_not_good_lines(data: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"conversations": TURNS}] * 16 + [{"images": ["red.png"], "conversations": TURNS}] * 14
    path = data / "annotations" / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    arguments = ["data", "validate", "--data", str(data), "--annotations", str(path)]
    assert run([*arguments, *options]) == 3
    out, err = capsys.readouterr()
    assert "and 11 more (14 lines): 'images' is not a key of the format, but holds media (['red.png'])" in out
    assert "14 of 30 lines are refused" in err


def test_validate_of_one_file_names_each_refused_line(
    data: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = data / "annotations" / "other.jsonl"
    (data / "annotations" / "train.jsonl").rename(annotations)
    arguments = ["data", "validate", "--data", str(data), "--annotations", str(annotations)]
    assert run([*arguments, *options]) == 3
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == [
        "annotations/other.jsonl:2",
        "annotations/other.jsonl:4",
        "build/validation/refused.jsonl",
    ]
    assert len((data.parent / "build" / "validation" / "refused.jsonl").read_text().splitlines()) == 2
    assert err == (
        f"DataError: {annotations}: 2 of 4 lines are refused, more than the share that data.max_bad_fraction=0.01 "
        "tolerates. Correct or remove them.\n"
    )
    assert run([*arguments, *options, "--set", "data.max_bad_fraction=0.5"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{annotations}: 2 of 4 lines are good"


@pytest.mark.slow  # Great Expectations takes seconds to import
def test_validate_judges_the_whole_dataset(
    data: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "validate", "--data", str(data), *options]) == 3
    out, err = capsys.readouterr()
    assert "annotations/train.jsonl:4: " in out
    assert err.splitlines()[-1].startswith("DataError: the dataset is refused by ")
    assert "Traceback" not in err
    assert (tmp_path / "build" / "validation" / "data_docs" / "index.html").is_file()


@pytest.mark.slow  # Great Expectations takes seconds to import
@pytest.mark.parametrize("as_uri", [False, True])
def test_validate_tells_how_data_differ_from_a_former_dataset(
    data: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], as_uri: bool
) -> None:
    options = [*options, "--set", "data.holdout_fraction=0"]
    former, lines = tmp_path / "former", data / "annotations" / "train.jsonl"
    lines.write_text("".join(json.dumps({"id": str(n), "conversations": TURNS}) + "\n" for n in range(20)))
    assert run(["data", "build", "--data", str(data), "--out", str(former), *options]) == 0
    with lines.open("a") as file:
        file.writelines(
            json.dumps({"id": f"p{n}", "image": ["red.png"], "conversations": PICTURE}) + "\n" for n in range(9)
        )
    address = former.as_uri() if as_uri else str(former)
    run(["data", "validate", "--data", str(data), "--against", address, *options])
    out = capsys.readouterr().out
    assert "warning: drift: 3 of 6 rows of drift: mix or lengths differ from the former build" in out
    assert run(["data", "validate", "--data", str(data), "--against", str(tmp_path), *options]) == 3
    assert f"{tmp_path} is not a complete dataset" in capsys.readouterr().err


@pytest.mark.slow  # Great Expectations takes seconds to import
def test_markup_in_data_is_text_on_every_page(data: Path, options: list[str], tmp_path: Path) -> None:
    """In ids, sources, categories, speakers, texts, names of files, and in the file of annotations itself."""
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"
    Image.new("RGB", (56, 42), "red").save(data / "<img src=x onerror=alert(3)>.png")
    picture = {"image": ["<img src=x onerror=alert(3)>.png"], "conversations": PICTURE}
    lines: list[dict[str, Any]] = [
        {"id": f"{evil}{number}", "source": evil, "conversations": TURNS} for number in (1, 1)
    ]
    lines += [picture, {**picture, "image": [f"{evil}.png"]}, {"category": evil, "conversations": TURNS}]
    lines += [{"conversations": [{"from": evil, "value": evil}]}, {evil: evil, "conversations": TURNS}]
    (data / "annotations" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(["data", "validate", "--data", str(data), *options]) == 3
    docs = tmp_path / "build" / "validation" / "data_docs"
    pages = [path.read_text(encoding="utf-8") for path in docs.rglob("*") if path.is_file()]
    assert len(pages) >= 8
    assert any("&lt;script&gt;alert(1)" in text for text in pages)
    assert [text for text in pages if "<script" in text or "<img" in text] == []


def test_plan_prints_what_each_stage_would_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = str(write_dataset(tmp_path, make_rows()))
    video = ("steps=null", "epochs=2", "packs_per_step=4", 'mixture={"data": {"epochs": 1}}')
    epochs = ["stages.*.missing=drop", *(f"stages.video.{name}" for name in video)]
    arguments = ["data", "plan", "--dataset", dataset, *(part for one in epochs for part in ("--set", one))]
    assert run(arguments) == 0
    out = capsys.readouterr().out
    head, first, *_ = (line.split("  ") for line in out.splitlines())
    assert [cell.strip() for cell in head if cell] == [
        "stage",
        "steps",
        "rows a step",
        "rows a rank",
        "samples a step",
        "rows full",
        "waiting by ranks",
    ]
    assert [cell.strip() for cell in first if cell][:4] == ["vision_adaptation", "200", "2", "1 of 2"]
    dropped = (
        "document: the data have no usable training sample of the category document; it is left out (missing=drop)"
    )
    assert dropped in out
    assert run([*arguments, "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert list(plans) == ["vision_adaptation", "alignment", "multitask", "video"]
    assert plans["video"]["packs_per_step"] == 4
    drawn = sum(kind["drawn"] for kind in plans["video"]["kinds"])
    assert drawn == plans["video"]["samples"] >= 2 * sum(kind["available"] for kind in plans["video"]["kinds"])


def test_plan_of_what_the_data_lack_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "plan", "--dataset", str(write_dataset(tmp_path, make_rows()))]) == 3
    assert (
        "the data lack 2 of the 3 kinds that the stage's mixture asks for. scene_text:caption:"
        in capsys.readouterr().err
    )


def test_mix_shows_what_is_asked_and_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = str(write_dataset(tmp_path, make_rows()))
    mixture = 'stages.video.mixture={"chart": 3, "text_only": {"amount": 1, "max_epochs": 2, "cap": 20}, "plotqa": 4}'
    assert run(["data", "mix", "video", "--dataset", dataset, "--set", mixture]) == 0
    head, chart, text, plotqa, *notes = capsys.readouterr().out.splitlines()
    assert head.split() == ["video", "asked", "available", "drawn", "share", "epochs"]
    assert (chart.split()[0], chart.split()[2]) == ("chart", "116")
    assert (text.split()[2:4], text.split()[-1]) == (["20", "40"], "2.00")
    assert plotqa.split()[2:] == ["missing", "0", "0.0%", "0.00"]
    asked = [float(line.split()[1].replace(",", "")) for line in (chart, text, plotqa)]
    assert asked[0] / asked[1] == pytest.approx(3, rel=0.01)
    assert notes == [
        "plotqa: there is no dataset plotqa with a usable training sample; it is left out (missing=drop)",
        "1 of 3 are missing: a run refuses the stage, or drops them with missing=drop",
    ]
    assert run(["data", "mix", "vidoe", "--dataset", dataset]) == 2
    assert "has no stage 'vidoe'. Its stages: vision_adaptation" in capsys.readouterr().err


def test_a_corpus_is_planned_by_the_names_of_its_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        write_dataset(tmp_path / name, make_rows())
    corpus = tmp_path / "corpus.yaml"
    corpus.write_text("datasets: {plotqa: one, mine: two}")
    mixture = 'stages.*.mixture={"plotqa:chart": 1, "mine": 3, "data": 1}'
    assert run(["data", "mix", "video", "--dataset", str(corpus), "--set", mixture]) == 0
    _, plotqa, mine, data, *_ = capsys.readouterr().out.splitlines()
    assert (plotqa.split()[0], plotqa.split()[2]) == ("plotqa:chart", "116")
    assert (mine.split()[0], mine.split()[2]) == ("mine", "552")
    assert data.split()[2] == "missing"
    assert run(["data", "plan", "--dataset", str(corpus), "--set", mixture, "--set", "stages.*.missing=drop"]) == 0
    assert "plotqa:chart" in capsys.readouterr().out
    corpus.write_text("datasets: {plotqa: ../one}")
    assert run(["data", "plan", "--dataset", str(corpus)]) == 2
    assert "'../one' has an empty part, '.' or '..'" in capsys.readouterr().err


def test_plan_of_no_dataset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "plan", "--dataset", str(tmp_path)]) == 3
    assert "is not a complete dataset" in capsys.readouterr().err


def test_missing_folder_is_named(tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "nowhere"
    assert run(["data", "build", "--data", str(missing), "--out", str(tmp_path / "out"), *options]) == 3
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("DataError: ")
    assert str(missing) in err
    assert not (tmp_path / "out").exists()


def test_the_catalogue_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "catalogue", "--stage", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert "vl3_syn7m" in {row["name"] for row in rows}
    assert run(["data", "catalogue", "charades_sta"]) == 0
    out = capsys.readouterr().out
    assert "charades_sta_train.txt, lines `ID start end##sentence`; Charades_v1_480/ID.mp4" in out
    assert run(["data", "catalogue", "cats"]) != 0
    assert "'cats' is no dataset of the catalogue" in capsys.readouterr().err


def test_import_says_what_it_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    items = [{"conversations": talk}, {"conversations": talk, "image": "none.jpg"}]
    (root / "llava_v1_5_mix665k.json").write_text(json.dumps(items))
    assert run(["data", "import", "llava_sft_665k", "--root", str(root), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "missing_file: 1 refused, first llava_v1_5_mix665k.json:2: media file 'none.jpg' does not exist in the data "
        "folder. Restore the file or drop the sample.",
        f"{out}/refused.jsonl: all 1 refused with their reasons",
        f"{out}: 1 samples of 2 items of LLaVA-SFT-665K",
    ]
    assert run(["data", "import", "pdfa_eng", "--root", str(root), "--out", str(tmp_path / "b")]) != 0
    assert "pdfa_eng cannot be imported: its pages are PDF" in capsys.readouterr().err


def test_make_says_what_it_made_and_what_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts, out = tmp_path / "facts.jsonl", tmp_path / "annotations" / "train.jsonl"
    video = {"video": "v.mp4", "captions": [{"start": 1, "end": 2.5, "caption": "A man runs."}]}
    facts.write_text(json.dumps(video) + "\n{\n")
    assert run(["data", "make", "moments", "--from", str(facts), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "json: 1 refused, first" in shown
    assert "facts.jsonl:2: the line is not JSON" in shown
    assert shown.endswith(f"{out}: 1 samples of 2 lines\n")
    assert json.loads(out.read_text())["conversations"][1]["value"] == "1.0-2.5 s"
    assert run(["data", "make", "moments", "--from", str(facts), "--out", str(out)]) == 2
    assert "never overwritten" in capsys.readouterr().err


def test_make_streams_takes_bounds_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts, bounds = tmp_path / "facts.jsonl", tmp_path / "bounds.yaml"
    captions = [{"start": second, "end": second + 10, "caption": "A man runs."} for second in range(0, 100, 10)]
    facts.write_text(json.dumps({"video": "v.mp4", "captions": captions}) + "\n")
    options = ["data", "make", "streams", "--from", str(facts), "--bounds", str(bounds), "--out"]
    bounds.write_text(
        "{max_seconds: {value: 30, reason: r}, max_captions_a_minute: {value: 9, reason: r},"
        " min_captions_a_minute: {value: 6, reason: r}}"
    )
    assert run([*options, str(tmp_path / "a.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [(line["start_time"], line["end_time"]) for line in lines] == [(0, 30), (30, 60), (60, 90), (90, 100)]
    bounds.write_text("{max_seconds: {value: 0, reason: r}}")
    assert run([*options, str(tmp_path / "b.jsonl")]) == 2
    assert "max_captions_a_minute" in capsys.readouterr().err


def test_make_clean_prints_the_funnel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "train.jsonl", tmp_path / "clean.jsonl"
    source.write_text((json.dumps({"conversations": TURNS}) + "\n") * 3)
    assert run(["data", "make", "clean", "--from", str(source), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines() if line.startswith("duplicates")] == [["duplicates", "2", "1"]]
    assert out.read_text() == json.dumps({"conversations": TURNS}) + "\n"


def test_make_pages_writes_a_data_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, fonts = tmp_path / "corpus.txt", tmp_path / "fonts"
    corpus.write_text("One fox and two dogs. " * 30 + "\n")
    fonts.mkdir()
    options = ["data", "make", "pages", "--from", str(corpus), "--pages", "1", "--workers", "1", "--fonts", str(fonts)]
    assert run([*options, "--out", str(tmp_path / "pages")]) == 2
    assert "so no page can be drawn" in capsys.readouterr().err
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    assert isinstance(font.path, BytesIO)
    (fonts / "plain.ttf").write_bytes(font.path.getvalue())
    assert run([*options, "--out", str(tmp_path / "pages")]) == 0
    assert (tmp_path / "pages" / "pages" / "000000" / "000000000.jpg").exists()
    assert "1 samples of 1 lines" in capsys.readouterr().out


def test_show_writes_a_page_of_samples(
    data: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*options, "--set", "data.holdout_fraction=0"]
    dataset, page = tmp_path / "dataset", tmp_path / "samples.html"
    assert run(["data", "build", "--data", str(data), "--out", str(dataset), *options]) == 0
    capsys.readouterr()
    assert run(["data", "show", str(dataset), "--out", str(page), *options]) == 0
    assert capsys.readouterr().out == f"{page}: 2 samples\n"
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 1
    assert text.count("<mark>") == 2

    assert run(["data", "stats", str(dataset), "--out", str(tmp_path / "stats.html"), *options]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'stats.html'}: 2 samples of 2 sources\n"
    assert "2 samples of the split train" in re.sub("<[^>]*>", "", (tmp_path / "stats.html").read_text())
    assert run(["data", "stats", str(dataset), "--split", "heldout", *options]) == 3
    assert "has no usable sample of the split 'heldout'" in capsys.readouterr().err

    assert run(["data", "show", str(dataset), "--stage", "none", *options]) == 2
    assert "the recipe has no stage 'none'. Give --stage one of " in capsys.readouterr().err
    assert run(["data", "show", str(dataset), "--split", "heldout", *options]) == 3
    assert "has no usable sample of the split 'heldout'" in capsys.readouterr().err
