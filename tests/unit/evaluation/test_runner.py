"""The evaluation in one process: real bases, real media, records of every answer, failures that are named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vl3.config.codec import from_dict, to_dict
from vl3.config.run import RunConfig
from vl3.data.build.shards import ShardReader
from vl3.errors import ClusterError, ConfigError, DataError
from vl3.evaluation.asking import Questions
from vl3.evaluation.candidates import EvaluatedModel
from vl3.evaluation.changes import shown_items
from vl3.evaluation.document import read_pictures
from vl3.evaluation.items import ItemRecord, items_path, read_items
from vl3.evaluation.records import read_records
from vl3.evaluation.runner import evaluate_models, write_evaluation
from vl3.evaluation.shown_pictures import write_shown_pictures
from vl3.recipes.catalog import get_recipe

QUESTIONS = ("What?", "Which colour?", "How many?", "Where?", "Who?", "When?")
BEFORE = EvaluatedModel(name="before", folder=None)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    recipe = get_recipe("tiny")
    return replace(recipe, evaluation=replace(recipe.evaluation, samples_per_task=6, max_new_tokens=4))


@pytest.fixture(scope="module")
def predictions(make_dataset, config: RunConfig, checkpoint: Path, tmp_path_factory) -> dict[str, dict[str, str]]:
    """What each model says to each sample."""
    models = [BEFORE, EvaluatedModel(name="video", folder=checkpoint)]
    out = tmp_path_factory.mktemp("said")
    evaluate_models(models, make_dataset({}), config, out_folder=out)
    return {
        model.name: {item.item_id: item.answer for item in read_items(items_path(out, model.name, "heldout"))}
        for model in models
    }


@pytest.fixture(scope="module")
def wanted(predictions: dict[str, dict[str, str]]) -> dict[str, str]:
    """Right answers to two texts and an image: what stage 4's model says, where it says something."""
    said = {name: text for name, text in predictions["video"].items() if text}
    texts, images = ([name for name in sorted(said) if name.startswith(kind)] for kind in ("text", "image"))
    return {name: said[name].upper() for name in (*texts[:2], *images[:1])}


@pytest.fixture(scope="module")
def dataset(make_dataset, wanted: dict[str, str]) -> Path:
    """A dataset to which stage 4's model knows three answers."""
    return make_dataset(wanted)


@pytest.fixture(scope="module")
def result(dataset: Path, config: RunConfig, checkpoint: Path, tmp_path_factory):
    seen: list[tuple[int, int, str]] = []
    models = [BEFORE, EvaluatedModel(name="video", folder=checkpoint)]
    folder = tmp_path_factory.mktemp("evaluation")
    evaluate_models(models, dataset, config, out_folder=folder, progress=lambda *args: seen.append(args))
    return folder, json.loads((folder / "evaluation.json").read_text()), seen


def test_right_answers_are_counted_by_category(
    result, wanted: dict[str, str], predictions: dict[str, dict[str, str]]
) -> None:
    _, data, _ = result
    before, video = data["models"]
    assert [before["name"], video["name"]] == ["before", "video"]
    assert list(video["tasks"]) == ["scene_image", "text_only", "streaming"]
    right = [name for name, answer in wanted.items() if predictions["before"][name].upper() == answer]
    for category, kind in (("text_only", "text"), ("scene_image", "image")):
        assert before["tasks"][category]["correct"] == sum(name.startswith(kind) for name in right)
    assert video["tasks"]["text_only"]["accuracy"] == pytest.approx(2 / 6)
    assert video["tasks"]["scene_image"]["accuracy"] == pytest.approx(1 / 6)
    assert {task["total"] for task in video["tasks"].values()} == {6}


def test_items_add_up_to_the_scores(result) -> None:
    folder, data, _ = result
    items = json.loads((folder / "items.json").read_text())
    for model in data["models"]:
        right = {category: asked["right"][model["name"]].count("1") for category, asked in items.items()}
        assert right == {category: task["correct"] for category, task in model["tasks"].items()}
    assert all(len(set(asked["ids"])) == len(asked["sha256"]) == 6 for asked in items.values())


def test_every_question_has_a_record_of_each_model(result) -> None:
    folder, data, _ = result
    records = read_records(folder)
    assert list(records) == ["before", "video"]
    for model in data["models"]:
        own = records[model["name"]]["heldout"]
        right = {name: sum(one.score for one in own if one.group == name) for name in model["tasks"]}
        assert right == {category: task["correct"] for category, task in model["tasks"].items()}
    images = [one for one in own if one.group == "scene_image"]
    assert {one.media for one in images} == {("a.png",), ("b.png",)}
    assert images[0].sha256 in json.loads((folder / "items.json").read_text())["scene_image"]["sha256"]


def test_shown_items_have_pictures(result, dataset: Path, config: RunConfig, checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(result[0], tmp_path / "evaluation")
    questions = Questions.of_dataset(dataset, config)
    write_shown_pictures([BEFORE, EvaluatedModel(name="video", folder=checkpoint)], questions, config, folder)
    pictures = read_pictures(folder)["heldout"]
    shown = shown_items(read_records(folder), "video", None)["extremes"]
    assert set(pictures) == {item["item_id"] for one in shown for side in ("best", "worst") for item in one[side]}
    image = next(name for name in pictures if name.startswith("image"))
    assert [Image.open(folder / name).format for name in pictures[image]] == ["PNG"]
    assert pictures[next(name for name in pictures if name.startswith("text"))] == []


def test_chance_is_null_where_the_answers_are_not_closed(result) -> None:
    tasks = result[1]["models"][0]["tasks"]
    assert tasks["text_only"]["chance"] == 0.5
    assert tasks["streaming"]["chance"] == pytest.approx(0.1)
    assert tasks["scene_image"]["chance"] is None


def test_every_answer_has_a_record(result, predictions: dict[str, dict[str, str]], wanted: dict[str, str]) -> None:
    folder, data, _ = result
    for model in data["models"]:
        records = read_items(items_path(folder, model["name"], "heldout"))
        assert [record.item_id for record in records] == sorted(predictions["video"])
        assert {record.item_id: record.answer for record in records} == predictions[model["name"]]
        right = {name: sum(r.score for r in records if r.group == name) for name in model["tasks"]}
        assert right == {name: task["correct"] for name, task in model["tasks"].items()}
        by_id = {record.item_id: record for record in records}
    image, stream = by_id["image-1"], by_id["stream-2"]
    assert (image.prompt, image.media, image.chance) == ("<image>\nWhich colour?", ("a.png",), None)
    assert (stream.reference, stream.chance, stream.group) == ("3.0 s: now", 0.1, "streaming")
    assert by_id["text-0"].reference == wanted.get("text-0", "never said")
    assert all(record.tokens <= 4 and record.seconds > 0 and len(record.sha256) == 64 for record in records)


def test_predictions_show_question_answer_and_pictures(result) -> None:
    folder, data, _ = result
    shown = {entry["sample_id"]: entry for entry in data["predictions"]}
    unknown = next(name for name in shown if name.startswith("text") and shown[name]["answer"] == "never said")
    assert shown[unknown]["prompt"] == QUESTIONS[int(unknown[-1])]
    assert shown[unknown]["correct"] == {"before": False, "video": False}
    assert shown[unknown]["media"] == []
    assert Image.open(folder / shown["image-0"]["media"][0]).size == (84, 56)
    stream = shown["stream-2"]
    assert stream["answer"] == "3.0 s: now"
    assert len(stream["media"]) == 4


def test_progress_runs_from_nothing_to_all_answers(result) -> None:
    seen = result[2]
    assert seen[0][:2] == (0, 36)
    assert seen[-1][:2] == (36, 36)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_two_runs_give_equal_bytes_but_for_times(
    result, dataset: Path, config: RunConfig, checkpoint: Path, tmp_path
) -> None:
    models = [BEFORE, EvaluatedModel(name="video", folder=checkpoint)]
    evaluate_models(models, dataset, config, out_folder=tmp_path)
    for path in sorted(result[0].rglob("*")):
        if path.suffix == ".jsonl":
            first, second = (without_times(read_items(one)) for one in (path, tmp_path / path.relative_to(result[0])))
            assert first == second
        elif path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(result[0])).read_bytes()


def without_times(items: list[ItemRecord]) -> list[ItemRecord]:
    return [replace(item, seconds=0.0) for item in items]


def test_damaged_samples_are_named_and_counted(dataset: Path, config: RunConfig, tmp_path: Path) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    for shard in copy.glob("shard-*.tar"):
        shard.write_bytes(bytes(byte ^ 1 for byte in shard.read_bytes()))
    with pytest.raises(
        DataError,
        match=r"1 of the 18 questions to model before could not be asked, more than the 0 that "
        r"evaluation.max_failed_fraction=0.01 .*\n  annotations/heldout.jsonl:\d+: its bytes in .* the digest in the "
        r"index",
    ):
        evaluate_models([BEFORE], copy, config, out_folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failed_question_has_no_score(
    dataset: Path, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, evaluation=replace(config.evaluation, max_failed_fraction=0.06))
    whole = ShardReader.read

    def read(self: ShardReader, row: int):
        record, media = whole(self, row)
        if record.sample_id == "image-3":
            raise DataError("heldout.jsonl:4: its picture cannot be decoded.")
        return record, media

    monkeypatch.setattr(ShardReader, "read", read)
    data = evaluate_models([BEFORE], dataset, config, out_folder=tmp_path).to_dict()
    tasks = data["models"][0]["tasks"]
    assert (tasks["scene_image"]["total"], tasks["scene_image"]["failed"]) == (5, 1)
    assert (tasks["text_only"]["total"], tasks["text_only"]["failed"]) == (6, 0)
    (failed,) = [item for item in read_items(items_path(tmp_path, "before", "heldout")) if item.score is None]
    assert (failed.item_id, failed.answer) == ("image-3", None)
    assert failed.why_no_score == "heldout.jsonl:4: its picture cannot be decoded."
    assert "image-3" not in {entry["sample_id"] for entry in data["predictions"]}


def test_a_question_without_an_answer_is_no_result(dataset: Path, config: RunConfig, tmp_path: Path) -> None:
    questions = Questions.of_dataset(dataset, config)
    with pytest.raises(ClusterError, match=r"18 of the 18 questions to model before have no answer; the first is anno"):
        write_evaluation([BEFORE], {"before": {}}, questions, config, out_folder=tmp_path)


def test_models_need_names_of_their_own(dataset: Path, config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"named \['before', 'before'\]: give at least one, each with a differ"):
        evaluate_models([BEFORE, BEFORE], dataset, config, out_folder=tmp_path)
    with pytest.raises(ConfigError, match=r"named \[\]"):
        evaluate_models([], dataset, config, out_folder=tmp_path)


def test_the_configuration_survives_the_border_of_a_process(config: RunConfig) -> None:
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config
