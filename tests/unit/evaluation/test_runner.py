"""The evaluation end to end: real bases, real media, real processes."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.support.processes import is_alive
from vl3.config.codec import from_dict, to_dict
from vl3.config.run import RunConfig
from vl3.errors import ClusterError, ConfigError, DataError
from vl3.evaluation.candidates import Assignment, EvaluatedModel
from vl3.evaluation.changes import shown_items
from vl3.evaluation.document import read_pictures
from vl3.evaluation.records import read_records
from vl3.evaluation.runner import evaluate_models
from vl3.evaluation.shown_pictures import write_shown_pictures
from vl3.recipes.catalog import get_recipe

QUESTIONS = ("What?", "Which colour?", "How many?", "Where?", "Who?", "When?")
BEFORE = EvaluatedModel(name="before", folder=None)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    recipe = get_recipe("tiny")
    return replace(recipe, evaluation=replace(recipe.evaluation, samples_per_task=6, max_new_tokens=4))


@pytest.fixture(scope="module")
def predictions(make_dataset, config: RunConfig, checkpoint: Path) -> dict[str, dict[str, str]]:
    """What each model says to each sample, asked in this process."""
    from vl3.data.build.index import DatasetIndex
    from vl3.evaluation.worker import answer_all

    folder = make_dataset({})
    rows = tuple(DatasetIndex.read(folder).usable_rows("heldout").tolist())
    said: dict[str, dict[str, str]] = {}
    models = (BEFORE, EvaluatedModel(name="video", folder=checkpoint))
    assignment = Assignment(models=models, dataset_folder=folder, config=config, rows=rows)

    def report(name: str, answers: list) -> None:
        said.setdefault(name, {}).update((answer.sample_id, answer.prediction) for _, answer in answers)

    answer_all(assignment, report)
    return said


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


def test_shown_items_have_pictures(result, dataset: Path, config: RunConfig, checkpoint: Path) -> None:
    folder = result[0]
    write_shown_pictures([BEFORE, EvaluatedModel(name="video", folder=checkpoint)], dataset, config, folder)
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


def test_several_processes_give_the_answers_that_one_gives(result, predictions: dict[str, dict[str, str]]) -> None:
    shown = {entry["sample_id"]: entry["prediction"] for entry in result[1]["predictions"]}
    assert len(shown) == 18
    for model in ("before", "video"):
        assert {name: said[model] for name, said in shown.items()} == predictions[model]


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


def test_no_process_is_left(result) -> None:
    assert [child for child in multiprocessing.active_children() if child.name.startswith("evaluation")] == []


def test_a_damaged_sample_is_named(dataset: Path, config: RunConfig, tmp_path: Path) -> None:
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    for shard in copy.glob("shard-*.tar"):
        shard.write_bytes(bytes(byte ^ 1 for byte in shard.read_bytes()))
    with pytest.raises(DataError, match=r"annotations/heldout\.jsonl:\d+: its bytes in .* the digest in the index"):
        evaluate_models([BEFORE], copy, config, out_folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_lost_process_is_a_cluster_error_and_no_other_is_left(
    dataset: Path, config: RunConfig, tmp_path: Path
) -> None:
    def kill_one(done: int, total: int, text: str) -> None:
        if done:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    config = replace(config, evaluation=replace(config.evaluation, processes=1))
    models = [replace(BEFORE, name=str(number)) for number in range(40)]
    with pytest.raises(ClusterError, match=r"evaluation-0 \(process \d+\) ended with exit code -9 before .* Run the"):
        evaluate_models(models, dataset, config, out_folder=tmp_path, progress=kill_one)
    assert multiprocessing.active_children() == []


def test_processes_end_with_the_one_that_waits_for_them(dataset: Path, config: RunConfig, tmp_path: Path) -> None:
    script = tmp_path / "evaluate.py"
    script.write_text(
        textwrap.dedent("""
        import json, multiprocessing, sys
        from pathlib import Path
        from vl3.config.codec import from_dict
        from vl3.config.run import RunConfig
        from vl3.evaluation.runner import EvaluatedModel, evaluate_models

        if __name__ == "__main__":
            config = from_dict(RunConfig, json.loads(sys.argv[2]))
            models = [EvaluatedModel(name=str(number), folder=None) for number in range(1000)]
            def tell(done, total, text):
                if done:
                    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            evaluate_models(models, Path(sys.argv[1]), config, out_folder=Path(sys.argv[3]), progress=tell)
        """)
    )
    arguments = [str(dataset), json.dumps(to_dict(config)), str(tmp_path / "out")]
    with subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + 300
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"processes {pids} outlive their parent"
        time.sleep(0.05)


def test_models_need_names_of_their_own(dataset: Path, config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"named \['before', 'before'\]: give at least one, each with a differ"):
        evaluate_models([BEFORE, BEFORE], dataset, config, out_folder=tmp_path)
    with pytest.raises(ConfigError, match=r"named \[\]"):
        evaluate_models([], dataset, config, out_folder=tmp_path)


def test_the_configuration_survives_the_border_of_a_process(config: RunConfig) -> None:
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config
