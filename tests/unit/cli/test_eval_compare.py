"""`vl3 eval compare` on folders of evaluations: the table, the changed answers, the page."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.support.evidence import answered, item
from vl3.cli.main import run
from vl3.evaluation.items import ItemRecord, items_path, write_items

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


def evaluation(folder: Path, model: str = "video", **benchmarks: list[ItemRecord]) -> str:
    for name, items in benchmarks.items():
        write_items(items_path(folder, model, name), items)
    return str(folder)


@pytest.fixture
def two(place: Path) -> tuple[str, str]:
    lost = item(3, 0.0, group="chart", prompt=f"{HOSTILE} Which?", answer="blue")
    second = [lost if one.item_id == "chart-0003" else one for one in answered({"chart": 60}, 60)]
    first = [item(3, 1.0, group="chart", prompt=f"{HOSTILE} Which?"), *answered({"chart": 10}, 60)]
    first = list({one.item_id: one for one in reversed(first)}.values())
    (place / "b" / "media").mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(place / "b" / "media" / "x.png")
    (place / "b" / "pictures.json").write_text(
        json.dumps({"heldout": {"chart-0003": ["media/x.png", "../secret.png"]}})
    )
    return evaluation(place / "a", heldout=first), evaluation(place / "b", heldout=second, gqa=[item(1)])


def test_scores_and_changed_answers_are_printed(two: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "compare", *two, "--out", "page.html"]) == 0
    out = capsys.readouterr().out
    head, whole, part, *_ = out.splitlines()
    assert " ".join(head.split()) == ("SCORE a (video) b (video) DIFFERENCE 95 % INTERVAL WON LOST QUESTIONS VERDICT")
    assert whole.startswith("held-out, all")
    assert part.split()[0] == "chart"
    assert part.split()[-4:] == ["50", "1", "60", "better"]
    assert "Not compared, because only one of them was asked: gqa." in out
    assert "heldout: 1 answers lost, 50 won" in out
    assert "- chart-0003" in out
    assert "said: a" in out
    assert "said: blue" in out
    assert out.rstrip().endswith("page.html: the same as a page, with more of the changed answers")


def test_the_page_shows_pictures_of_the_evaluation_alone_and_escapes_texts(two: tuple[str, str], place: Path) -> None:
    Image.new("RGB", (4, 4)).save(place / "secret.png")
    assert run(["eval", "compare", *two, "--out", "page.html"]) == 0
    page = (place / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "picture not available" in page
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_json_is_for_programs(two: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "compare", *two, "--json", "--out", "page.html"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["second"] == {"name": "b", "model": "video"}
    assert [row["name"] for row in found["rows"]] == ["heldout", "chart"]
    assert found["rows"][0]["difference"]["value"] == pytest.approx(49 / 60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b", "--second-model", "nobody"], "b has no model 'nobody'. Its models: video."),
        (["a", "c"], "a was asked heldout and c gqa, so there is no benchmark to compare them on."),
        (["a", "d"], "Name one with --first-model or --second-model."),
        (["a", "absent"], "run 'absent' is not known"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    two: tuple[str, str], place: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation(place / "c", gqa=[item(1)])
    for model in ("one", "two"):
        evaluation(place / "d", model, gqa=[item(1)])
    assert run(["eval", "compare", *arguments]) == 2
    assert message in capsys.readouterr().err
