"""CLIP and SigLIP at their own resolution: features equal transformers', and what does not fit is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.support.fixed_bases import MEAN, STD, write_clip, write_fixed_siglip
from tests.support.real_bases import text_sizes, write_qwen
from vl3.config.picture import Fit, FixedPicture
from vl3.data.sample.image import square_image
from vl3.data.sample.patches import patchify
from vl3.errors import ConfigError, DataError
from vl3.models.bases import FixedWanted, check_bases, open_vision
from vl3.models.convert import convert
from vl3.models.fixed_config import FixedVisionConfig
from vl3.models.fixed_encoder import FixedEncoder
from vl3.models.imports import describe
from vl3.models.layouts.names import Layout
from vl3.models.start import assemble
from vl3.models.weights import load_model, save_model

CLIP = FixedWanted(side_px=56, skipped_blocks=1)
SIGLIP = FixedWanted(side_px=60, skipped_blocks=1)
"""60 px are 4 patches and 4 px that are never seen, as 384 px are 27 and 6."""


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((90, 151), (77, 40), (60, 60))]


def encoder_of(folder: Path, wanted: FixedWanted) -> FixedEncoder:
    base = open_vision(folder, fixed=wanted)
    encoder = FixedEncoder(base.config)
    stored = {}
    for path in folder.glob("*.safetensors"):
        stored |= load_file(path)
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in stored) else ""
    encoder.load_state_dict({name: stored[prefix + name] for name in base.tensors})
    return encoder.eval()


def patches_of(
    pictures: list[np.ndarray], config: FixedVisionConfig, merge: int = 1
) -> tuple[torch.Tensor, np.ndarray]:
    squares = [square_image(picture, config.picture)[None] for picture in pictures]
    cut = [patchify(square, merge) for square in squares]
    return torch.from_numpy(np.concatenate([pixels for pixels, _ in cut])), np.array([grid for _, grid in cut])


@pytest.mark.parametrize("skipped", [0, 1])
@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_clip_has_the_features_of_transformers(tmp_path, pictures, act, skipped):
    from transformers import CLIPImageProcessorPil, CLIPVisionModel

    write_clip(tmp_path, hidden_act=act)
    encoder = encoder_of(tmp_path, FixedWanted(side_px=56, skipped_blocks=skipped))
    pixels, grids = patches_of(pictures, encoder.config)
    with torch.no_grad():
        ours = encoder(pixels, grids, np.ones(3, dtype=np.int64))
        processor = CLIPImageProcessorPil.from_pretrained(tmp_path)
        inputs = processor([Image.fromarray(one) for one in pictures], return_tensors="pt")
        outputs = CLIPVisionModel.from_pretrained(tmp_path).eval()(**inputs, output_hidden_states=True)
    theirs = outputs.hidden_states[-1 - skipped][:, 1:].flatten(0, 1)  # without the class token
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("skipped", [0, 1])
def test_siglip_has_the_features_of_transformers(tmp_path, pictures, skipped):
    from transformers import SiglipImageProcessorPil, SiglipVisionModel

    write_fixed_siglip(tmp_path)
    encoder = encoder_of(tmp_path, FixedWanted(side_px=60, skipped_blocks=skipped))
    pixels, grids = patches_of(pictures, encoder.config)
    assert grids.tolist() == [[1, 4, 4]] * 3
    with torch.no_grad():
        ours = encoder(pixels, grids, np.ones(3, dtype=np.int64))
        processor = SiglipImageProcessorPil.from_pretrained(tmp_path)
        inputs = processor([Image.fromarray(one) for one in pictures], return_tensors="pt")
        outputs = SiglipVisionModel.from_pretrained(tmp_path).eval()(**inputs, output_hidden_states=True)
    theirs = outputs.hidden_states[-1 - skipped].flatten(0, 1)
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().max() < 1e-5


def test_a_whole_clip_gives_the_features_of_its_vision_tower(tmp_path, pictures):
    from transformers import CLIPModel

    write_clip(tmp_path, whole=True)
    encoder = encoder_of(tmp_path, CLIP)
    pixels, grids = patches_of(pictures, encoder.config)
    normalised = (pixels.float() / 255).unflatten(1, (3, 196))
    normalised = ((normalised - torch.tensor(MEAN)[:, None]) / torch.tensor(STD)[:, None]).flatten(1)
    shown = (
        normalised.unflatten(0, (3, 4, 4)).unflatten(-1, (3, 14, 14)).permute(0, 3, 1, 4, 2, 5).reshape(3, 3, 56, 56)
    )
    with torch.no_grad():
        tower = CLIPModel.from_pretrained(tmp_path).eval().vision_model
        theirs = tower(shown, output_hidden_states=True).hidden_states[-2][:, 1:].flatten(0, 1)
        assert (encoder(pixels, grids, np.ones(3, dtype=np.int64)) - theirs).abs().max() < 1e-5
        assert (encoder(normalised, grids, np.ones(3, dtype=np.int64)) - theirs).abs().max() < 1e-5


def test_merged_patches_are_the_mean_of_their_square_in_any_group(tmp_path, pictures, monkeypatch):
    write_clip(tmp_path)
    encoder = encoder_of(tmp_path, CLIP)
    single, grids = patches_of(pictures, encoder.config)
    merged, _ = patches_of(pictures[:1], encoder.config, merge=2)
    mixed = torch.cat([merged, single[16:]])
    with torch.no_grad():
        tokens = encoder(single, grids, np.ones(3, dtype=np.int64))
        monkeypatch.setattr("vl3.models.fixed_encoder.GROUP_PATCHES", 16)  # one picture after the other
        both = encoder(mixed, grids, np.array([2, 1, 1]))
    squares = tokens[:16].view(2, 2, 2, 2, -1).mean((1, 3)).flatten(0, 1)
    torch.testing.assert_close(both[:4], squares, atol=1e-6, rtol=0)
    torch.testing.assert_close(both[4:], tokens[16:], atol=1e-6, rtol=0)
    with torch.enable_grad():
        torch.testing.assert_close(encoder(mixed, grids, np.array([2, 1, 1])), both, atol=1e-6, rtol=0)


def test_the_encoder_refuses_other_sizes_and_dropped_tokens(tmp_path, pictures):
    write_clip(tmp_path)
    encoder = encoder_of(tmp_path, CLIP)
    pixels, grids = patches_of(pictures[:1], encoder.config)
    with pytest.raises(DataError, match="a picture has 2 x 8 patches, but this encoder takes only squares of 4 x 4"):
        encoder(pixels, np.array([[1, 2, 8]]), np.ones(1, dtype=np.int64))
    with pytest.raises(DataError, match="tokens are dropped before an encoder of fixed resolution"):
        encoder(pixels, grids, np.ones(1, dtype=np.int64), np.arange(16) > 3)


@pytest.mark.parametrize(("write", "wanted"), [(write_clip, CLIP), (write_fixed_siglip, SIGLIP)])
def test_a_model_is_made_saved_and_read_again(tmp_path, pictures, write, wanted):
    write(tmp_path / "v")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    write_qwen(tmp_path / "l", text_sizes(vocabulary=1200, **sizes))
    config = check_bases(tmp_path / "v", tmp_path / "l", fixed=wanted)
    assert config.vision.num_hidden_layers == 2  # of three, the last one does not run
    model = assemble(tmp_path / "v", tmp_path / "l", seed=0, fixed=wanted).eval()
    save_model(model, tmp_path / "l", tmp_path / "made")
    again = load_model(tmp_path / "made").eval()
    assert again.config == model.config
    pixels, grids = patches_of(pictures, model.config.vision)
    given = {
        "pixels_PC": pixels,
        "grid_thw_I3": grids,
        "merge_sizes_I": np.ones(3, dtype=np.int64),
        "keep_M": np.ones(48, bool),
    }
    with torch.no_grad():
        assert torch.equal(again.encode_visual(**given), model.encode_visual(**given))
        text = np.arange(5)
        none = {"pixels_PC": pixels[:0], "grid_thw_I3": grids[:0], "merge_sizes_I": np.ones(0, int)}
        alone = again.embed(input_ids_T=text, keep_M=np.ones(0, bool), **none)
    assert torch.equal(alone, again.language_model.embed_tokens(torch.arange(5)))
    # an encoder that one of our checkpoints holds is taken again, with the blocks that it has
    assert open_vision(tmp_path / "made", fixed=wanted).config == model.config.vision
    with pytest.raises(ConfigError, match="takes pictures of one size only"):
        open_vision(tmp_path / "made")
    with pytest.raises(ConfigError, match="which transformers' VideoLlama3 cannot hold"):
        convert(tmp_path / "made", tmp_path / "theirs", Layout.TRANSFORMERS)


def test_what_does_not_fit_is_refused(tmp_path):
    write_clip(tmp_path)
    assert describe(tmp_path) == "CLIP encoder, 3 blocks, 64 wide, 56 px"
    with pytest.raises(ConfigError, match=r"takes pictures of one size only, 56 px.*model.picture_side_px=56"):
        open_vision(tmp_path)
    with pytest.raises(ConfigError, match=r"takes pictures of 56 px .* asks for 70 \(model.picture_side_px\)"):
        open_vision(tmp_path, fixed=FixedWanted(side_px=70, skipped_blocks=1))
    with pytest.raises(ConfigError, match="skipped_blocks=3 leaves none of the 3 blocks"):
        open_vision(tmp_path, fixed=FixedWanted(side_px=56, skipped_blocks=3))
    stored = load_file(tmp_path / "model.safetensors")
    name = next(one for one in stored if one.endswith("pre_layrnorm.weight"))
    save_file({key: value for key, value in stored.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"missing.*pre_layrnorm\.weight"):
        open_vision(tmp_path, fixed=CLIP)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resample": 2}, "resample=2 is not supported, only 3"),
        ({"do_normalize": False}, "do_normalize=False is not supported, only True"),
        ({"size": {"shortest_edge": 70}}, "but config.json gives the encoder image_size=56"),
        ({"do_center_crop": False}, "nothing is cropped, so pictures would be no squares"),
        ({"image_mean": [0.5, 0.5]}, "image_mean=.* is not a number for each of three colours"),
    ],
)
def test_pictures_of_another_preparation_are_refused(tmp_path, change, message):
    write_clip(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        open_vision(tmp_path, fixed=CLIP)


def test_the_older_form_of_the_file_means_the_same(tmp_path):
    """openai/clip-vit-large-patch14-336 gives sizes as plain numbers."""
    write_clip(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    newer = open_vision(tmp_path, fixed=CLIP).config
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": 56, "crop_size": 56}))
    assert open_vision(tmp_path, fixed=CLIP).config == newer
    assert newer.picture == FixedPicture(side_px=56, fit=Fit.CROP)


def test_an_encoder_without_learned_positions_has_no_fixed_resolution(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "video_llama_3_vision"}))
    with pytest.raises(ConfigError, match="has no learned positions of a fixed resolution"):
        open_vision(tmp_path, fixed=CLIP)


def test_a_square_is_cropped_from_the_centre_or_stretched():
    wide = np.zeros((56, 168, 3), dtype=np.uint8)
    wide[:, 56:112] = 200
    assert (square_image(wide, FixedPicture(side_px=56, fit=Fit.CROP)) == 200).all()
    stretched = square_image(wide, FixedPicture(side_px=60, fit=Fit.STRETCH))
    assert stretched.shape == (56, 56, 3)  # the last 4 of 60 px are in no patch
    assert 0.3 < (stretched > 100).mean() < 0.4
