"""The real loading code on small models in the real formats, compared with what transformers and open_clip compute."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.curation import file_of, photo
from vl3.curation.scorers.blip2 import Blip2Caption
from vl3.curation.scorers.classifier import LabelProbability
from vl3.curation.scorers.clip import ClipFeatures, ClipSimilarity, load_clip
from vl3.curation.scorers.heads import NSFW_LAYERS, ClipHead, apply_head, read_head
from vl3.curation.source import content_digest
from vl3.errors import ConfigError

BASES = Path(__file__).parents[4] / "src" / "vl3" / "recipes" / "bases"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def batch(count: int = 3, broken: int | None = None) -> dict[str, np.ndarray]:
    files = [file_of(photo(seed)) if seed != broken else b"junk" for seed in range(count)]
    columns = {
        "bytes": files,
        "sha256": [content_digest(one) for one in files],
        "text": [f"text {n}" for n in range(count)],
    }
    made = {}
    for name, values in columns.items():
        made[name] = np.empty(count, dtype=object)
        made[name][:] = values
    return made


def pictures(count: int = 3) -> list[Image.Image]:
    return [Image.fromarray(photo(seed)) for seed in range(count)]


def test_clip_features_are_those_of_transformers() -> None:
    from transformers import CLIPImageProcessorPil, CLIPModel

    folder = BASES / "curation_clip"
    found = ClipFeatures("clip", folder, batch_images=4)(batch())["clip"]
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    with torch.inference_mode():
        output = (
            CLIPModel.from_pretrained(folder).eval().get_image_features(**processor(pictures(), return_tensors="pt"))
        )
    expected = getattr(output, "pooler_output", output)
    expected = expected / expected.norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(found, expected.numpy(), **CLOSE)
    assert not np.allclose(found[0], found[1], atol=1e-3)


def test_a_broken_image_has_no_features_and_a_reason() -> None:
    scorer = ClipFeatures("clip", BASES / "curation_clip", batch_images=4)
    made, whole = scorer(batch(broken=1)), scorer(batch())
    assert np.isnan(made["clip"][1]).all()
    assert "cannot be decoded" in made["clip_error"][1]
    assert made["clip_error"][[0, 2]].tolist() == [None, None]
    np.testing.assert_array_equal(made["clip"][0], whole["clip"][0])


def test_similarity_is_that_of_transformers() -> None:
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    folder = BASES / "curation_clip"
    given = batch()
    given["clip"] = ClipFeatures("clip", folder, 4)(given)["clip"]
    found = ClipSimilarity("similarity", folder, "clip", "text", 4)(given)["similarity"]
    model = CLIPModel.from_pretrained(folder).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(pictures(), return_tensors="pt")
    words = AutoTokenizer.from_pretrained(folder)(list(given["text"]), padding=True, return_tensors="pt")
    with torch.inference_mode():
        output = model(**pixels, **words)
    np.testing.assert_allclose(found, (output.image_embeds * output.text_embeds).sum(dim=-1).numpy(), **CLOSE)


def test_an_image_without_text_has_no_similarity() -> None:
    given = batch()
    given["clip"] = np.ones((3, 32), dtype=np.float16)
    given["text"][1] = "  "
    made = ClipSimilarity("similarity", BASES / "curation_clip", "clip", "text", 4)(given)
    assert np.isnan(made["similarity"][1])
    assert made["similarity_error"][1] == "there is no text in text"


def test_open_clip_folders_are_loaded_by_open_clip(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    from vl3.toy.curation_models import write_open_clip

    write_open_clip(tmp_path)
    found = ClipFeatures("clip", tmp_path, batch_images=4)(batch())["clip"]
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    with torch.inference_mode():
        expected = model.eval().encode_image(torch.stack([transform(one) for one in pictures()]), normalize=True)
    np.testing.assert_allclose(found, expected.numpy(), **CLOSE)
    assert load_clip(tmp_path).texts(["a cat", "a dog"]).shape == (2, 32)


def test_the_aesthetic_head_is_the_published_stack_of_layers() -> None:
    sizes = [(32, 1024), (1024, 128), (128, 64), (64, 16), (16, 1)]
    dropout = [0.2, 0.2, 0.1]
    modules: list[torch.nn.Module] = []
    for number, (before, after) in enumerate(sizes):
        modules += [torch.nn.Linear(before, after)] + ([torch.nn.Dropout(dropout[number])] if number < 3 else [])
    layers = torch.nn.Sequential(*modules).eval()
    weights = read_head(BASES / "curation_aesthetic", "aesthetic")
    layers.load_state_dict({name.removeprefix("layers."): torch.tensor(one) for name, one in weights.items()})
    features = np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    found = ClipHead("aesthetic", BASES / "curation_aesthetic", "aesthetic", "clip")(
        {"clip": features, "sha256": np.arange(5)}
    )
    with torch.inference_mode():
        np.testing.assert_allclose(found["aesthetic"], layers(torch.tensor(features))[:, 0].numpy(), **CLOSE)


def test_the_nsfw_head_is_normalised_and_ends_in_a_sigmoid() -> None:
    random = np.random.default_rng(0)
    sizes = [(8, 64), (64, 512), (512, 256), (256, 1)]
    weights = {
        f"linear_{n}.weight": random.normal(size=(b, a)).astype(np.float32) / a**0.5
        for n, (a, b) in zip(NSFW_LAYERS, sizes, strict=True)
    }
    weights |= {f"linear_{n}.bias": np.zeros(b, dtype=np.float32) for n, (_, b) in zip(NSFW_LAYERS, sizes, strict=True)}
    weights |= {"norm.mean": np.full((1, 8), 0.5, np.float32), "norm.variance": np.full((1, 8), 4.0, np.float32)}
    features = random.normal(size=(3, 8)).astype(np.float32)
    x = (torch.tensor(features) - 0.5) / 2.0
    for n in NSFW_LAYERS:
        x = torch.nn.functional.linear(
            x, torch.tensor(weights[f"linear_{n}.weight"]), torch.tensor(weights[f"linear_{n}.bias"])
        )
        x = torch.relu(x) if n < 4 else torch.sigmoid(x)
    np.testing.assert_allclose(apply_head(weights, "nsfw", features), x[:, 0].numpy(), **CLOSE)


def test_a_head_of_another_layout_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"the head lacks linear_1\.weight.* of the layout 'nsfw'"):
        ClipHead("nsfw", BASES / "curation_aesthetic", "nsfw", "clip")


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(ConfigError, match=r"has no \*\.safetensors \(it has pytorch_model\.bin\)"):
        load_clip(tmp_path)


def test_captions_are_those_of_transformers() -> None:
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    folder = BASES / "curation_blip2"
    found = Blip2Caption("caption", folder, batch_images=4, max_new_tokens=8, prompt="")(batch())
    model, processor = (
        Blip2ForConditionalGeneration.from_pretrained(folder).eval(),
        Blip2Processor.from_pretrained(folder),
    )
    given = processor(images=pictures(), text=[""] * 3, return_tensors="pt")
    tokens = model.generate(**given, max_new_tokens=8, do_sample=False)
    expected = [" ".join(text.split()) for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    assert [one or "" for one in found["caption"]] == ["".join(c for c in text if c.isprintable()) for text in expected]


def test_the_probability_of_a_label_is_that_of_transformers() -> None:
    from transformers import AutoImageProcessor, ViTForImageClassification

    folder = BASES / "curation_watermark"
    found = LabelProbability("watermark", folder, "watermark", 4)(batch())["watermark"]
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        logits = (
            ViTForImageClassification.from_pretrained(folder)
            .eval()(**processor(pictures(), return_tensors="pt"))
            .logits
        )
    np.testing.assert_allclose(found, logits.softmax(dim=-1)[:, 1].numpy(), **CLOSE)


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no label 'nsfw'; its labels are no watermark, watermark"):
        LabelProbability("nsfw", BASES / "curation_watermark", "nsfw", 4)


def test_clear_text_is_read() -> None:
    pytest.importorskip("rapidocr")
    from PIL import ImageDraw

    from vl3.curation.scorers.ocr import OcrText

    page = Image.new("RGB", (320, 96), "white")
    ImageDraw.Draw(page).text((20, 20), "STOP 42", fill="black", font_size=48)
    given = batch(2)
    given["bytes"][0] = file_of(np.asarray(page))
    given["sha256"][0] = content_digest(given["bytes"][0])
    made = OcrText("ocr", 0.5)(given)
    read = json.loads(made["ocr_texts"][0])
    assert any("STOP" in one["text"] for one in read["texts"])
    assert (read["width"], read["height"]) == (320, 96)
    assert made["ocr_clear"][0] > 0.8
    assert made["ocr_clear"][1] == 0
    assert made["ocr_characters"][0] >= 6
