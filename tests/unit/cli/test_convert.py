"""`vl3 convert` on a checkpoint of the tiny bases."""

import json
from pathlib import Path

import pytest

from vl3.cli.main import run

BASES = Path(__file__).parents[3] / "src" / "vl3" / "recipes" / "bases"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    from vl3.models.start import assemble
    from vl3.models.weights import save_model

    save_model(
        assemble(BASES / "tiny_vision", BASES / "tiny_language", seed=0), BASES / "tiny_language", tmp_path / "ours"
    )
    return tmp_path / "ours"


def test_there_and_back_gives_the_same_file(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    assert run(["convert", str(checkpoint), str(there), "--to", "transformers"]) == 0
    assert run(["convert", str(there), str(back), "--to", "vl3"]) == 0
    out = capsys.readouterr().out
    assert f"{there}: transformers layout from official layout, 106 tensors, 6.2 MB in 1 file" in out
    assert "vl3's own layout is the official one." in out
    assert json.loads((there / "config.json").read_text())["image_token_id"] == 468
    assert (back / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()


def test_a_folder_that_is_no_model_ends_with_the_code_of_its_family(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(["convert", str(tmp_path), str(tmp_path / "out"), "--to", "official"]) == 2
    assert "config.json does not exist" in capsys.readouterr().err
    assert run(["convert", str(tmp_path), str(tmp_path / "out"), "--to", "gguf"]) == 2
