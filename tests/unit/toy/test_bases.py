"""The bases on disk: transformers loads them, stage 1 starts from them, and the card tells what was measured."""

from importlib import resources
from pathlib import Path

import pytest

from vl3.errors import StorageError
from vl3.models.start import assemble
from vl3.toy.bases import CARD_NAME, LANGUAGE_NAME, VISION_NAME, _card, make_bases
from vl3.toy.language_base import make_language_base
from vl3.toy.vision_base import make_vision_base

MAX_BYTES = 8_000_000


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    out = tmp_path_factory.mktemp("bases")
    facts = {
        VISION_NAME: make_vision_base(out / VISION_NAME, steps=3, seed=1),
        LANGUAGE_NAME: make_language_base(out / LANGUAGE_NAME, steps=12, seed=1),
    }
    return out, facts


def test_transformers_loads_both_without_a_missing_tensor(bases: tuple[Path, dict[str, dict]]) -> None:
    from transformers import Qwen2ForCausalLM, SiglipVisionModel

    out, _ = bases
    for kind, name in ((SiglipVisionModel, VISION_NAME), (Qwen2ForCausalLM, LANGUAGE_NAME)):
        _, report = kind.from_pretrained(out / name, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]


def test_stage_one_starts_from_them(bases: tuple[Path, dict[str, dict]]) -> None:
    out, _ = bases
    model = assemble(out / VISION_NAME, out / LANGUAGE_NAME, seed=0)
    assert {part: bool(parameters) for part, parameters in model.parts().items()} == dict.fromkeys(
        ("vision", "projector", "language"), True
    )


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
