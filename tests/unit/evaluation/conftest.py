"""A small dataset and a checkpoint for the evaluation."""

from pathlib import Path

import pytest

QUESTIONS = ("What?", "Which colour?", "How many?", "Where?", "Who?", "When?")


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory):
    """Build a small dataset; `answers` overrides the held-out answers by sample id."""

    def make(answers: dict[str, str]) -> Path:
        from vl3.data.build.dataset import build_dataset
        from vl3.data.sample.difffp import keep_mask
        from vl3.data.sample.tokenizer import ChatTokenizer
        from vl3.recipes.catalog import get_recipe
        from vl3.store.bases import base_folder

        config = get_recipe("tiny")
        source = tmp_path_factory.mktemp("source")
        write_source(source, answers)
        folder = tmp_path_factory.mktemp("built") / "dataset"
        tokenizer = ChatTokenizer.from_folder(base_folder(config.model.language_base))
        build_dataset(source, folder, config=config.data, tokenizer=tokenizer, prune=keep_mask, workers=1)
        return folder

    return make


def write_source(folder: Path, answers: dict[str, str]) -> None:
    """Texts, images and a stream: 6 held-out samples of each of three categories, and one to train on."""
    import json

    import numpy as np
    from PIL import Image

    from vl3.toy.corpus import encode_video

    rng = np.random.default_rng(3)
    (folder / "annotations").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(folder / name)
    pictures = [np.full((28, 42, 3), 60 * number, dtype=np.uint8) for number in range(4)]
    (folder / "v.mp4").write_bytes(encode_video(pictures, fps=2))
    lines = []
    for number, question in enumerate(QUESTIONS):
        text_id, image_id = f"text-{number}", f"image-{number}"
        lines.append(_line(text_id, "text_only", question, answers, 0.5))
        image = {"image": ["a.png" if number % 2 else "b.png"]}
        lines.append(_line(image_id, "scene_image", f"<image>\n{question}", answers, None) | image)
        events = [
            {"role": "user", "content": question, "time": 0.0},
            {"role": "assistant", "content": "now", "time": float(number % 3 + 1)},
        ]
        stream = {"stream": True, "video": ["v.mp4"], "start_time": 0.0, "end_time": 4.0, "conversation": events}
        lines.append({"id": f"stream-{number}", "category": "streaming", "chance": 0.1, **stream})
    train = _line("train-text", "text_only", "Train?", answers, 0.5)
    for split, rows in (("heldout", lines), ("train", [train])):
        (folder / "annotations" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _line(sample_id: str, category: str, question: str, answers: dict[str, str], chance: float | None) -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answers.get(sample_id, "never said")}]
    line = {"id": sample_id, "category": category, "conversations": turns}
    return line if chance is None else line | {"chance": chance}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A checkpoint of stage 4: the bases with a projector of another seed."""
    import json

    from vl3.config.codec import to_dict
    from vl3.models.start import assemble
    from vl3.models.weights import save_model
    from vl3.recipes.catalog import get_recipe
    from vl3.store.bases import base_folder

    config = get_recipe("tiny")
    vision, language = base_folder(config.model.vision_base), base_folder(config.model.language_base)
    folder = tmp_path_factory.mktemp("checkpoint") / "video"
    save_model(assemble(vision, language, seed=5), language, folder)
    (folder / "run.json").write_text(json.dumps({"stage": "video", "config": to_dict(config)}))
    return folder
