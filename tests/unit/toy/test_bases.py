"""The bases on disk: transformers loads them, stage 1 starts from them, and the card tells what was measured."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from vl3.config.picture import Fit, FixedPicture
from vl3.errors import StorageError
from vl3.models.bases import FixedWanted, open_vision
from vl3.models.start import assemble
from vl3.recipes.catalog import get_recipe
from vl3.toy.bases import CARD_NAME, FIXED_NAMES, LANGUAGE_NAME, VISION_NAME, _card, make_bases
from vl3.toy.canvas import Frame
from vl3.toy.fixed_base import FIXED_BASES, make_fixed_base, square_labels
from vl3.toy.language_base import make_language_base
from vl3.toy.vision_base import make_vision_base

MAX_BYTES = 10_000_000


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    out = tmp_path_factory.mktemp("bases")
    facts = {
        VISION_NAME: make_vision_base(out / VISION_NAME, steps=3, seed=1),
        LANGUAGE_NAME: make_language_base(out / LANGUAGE_NAME, steps=12, seed=1),
        **{name: make_fixed_base(name, out / name, steps=3, seed=1) for name in FIXED_NAMES},
    }
    return out, facts


def test_transformers_loads_both_without_a_missing_tensor(bases: tuple[Path, dict[str, dict]]) -> None:
    from transformers import CLIPVisionModel, Qwen2ForCausalLM, SiglipVisionModel

    out, _ = bases
    kinds = [(SiglipVisionModel, VISION_NAME), (Qwen2ForCausalLM, LANGUAGE_NAME), (SiglipVisionModel, "tiny_siglip")]
    for kind, name in (*kinds, (CLIPVisionModel, "tiny_clip"), (CLIPVisionModel, "tiny_dfn")):
        _, report = kind.from_pretrained(out / name, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]


def test_stage_one_starts_from_them(bases: tuple[Path, dict[str, dict]]) -> None:
    out, _ = bases
    model = assemble(out / VISION_NAME, out / LANGUAGE_NAME, seed=0)
    assert {part: bool(parameters) for part, parameters in model.parts().items()} == dict.fromkeys(
        ("vision", "projector", "language"), True
    )


def test_an_arm_of_the_ablation_starts_from_each_encoder(bases: tuple[Path, dict[str, dict]]) -> None:
    out, _ = bases
    assert tuple(FIXED_BASES) == FIXED_NAMES
    for name, run in zip(FIXED_NAMES, get_recipe("ablation_tiny").runs(), strict=True):
        assert open_vision(out / name, fixed=FixedWanted.of(run.model)).config == FIXED_BASES[name]


def test_labels_are_cut_and_stretched_as_the_pixels_are() -> None:
    labels = np.arange(28 * 56).reshape(28, 56)
    frame = Frame(np.zeros((28, 56, 3), np.uint8), labels)
    cropped = square_labels(frame, FixedPicture(side_px=14, fit=Fit.CROP))
    assert (cropped[0, :3].tolist(), cropped[:3, 0].tolist()) == ([71, 73, 75], [71, 183, 295])  # row 1, column 15
    stretched = square_labels(frame, FixedPicture(side_px=15, fit=Fit.STRETCH))
    assert stretched.shape == (14, 14)
    assert stretched[0, 0] == 56 * 0 + 1


def test_the_card_holds_the_measured_facts(bases: tuple[Path, dict[str, dict]]) -> None:
    _, facts = bases
    card = _card(facts)
    assert f'"accuracy_shown_patches": {facts[VISION_NAME]["accuracy_shown_patches"]}' in card
    assert f'"scene_text": {facts[LANGUAGE_NAME]["accuracy"]["scene_text"]}' in card
    assert "It is not SigLIP's contrastive training" in card


def test_the_committed_bases_are_small_and_carry_their_card() -> None:
    folder = Path(str(resources.files("vl3.recipes").joinpath("bases")))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    assert folder / CARD_NAME in files
    assert {path.suffix for path in files} == {".md", ".json", ".safetensors"}


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"is not empty. It is never overwritten"):
        make_bases(tmp_path, seed=0)
