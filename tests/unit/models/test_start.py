"""The start of stage 1 from folders that transformers saved."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import ConfigError
from vl3.models.attention import Segments
from vl3.models.convert import convert
from vl3.models.layouts.names import Layout
from vl3.models.start import assemble, image_token_id
from vl3.models.weights import save_model


@pytest.mark.parametrize("tied", [True, False])
def test_bases_keep_their_weights_and_positions_and_head_are_dropped(bases, tied):
    vision, language, siglip, qwen = bases(tied)
    model = assemble(vision, language, seed=0)
    wanted = {name: tensor for name, tensor in siglip.state_dict().items() if not name.startswith("head.")}
    wanted.pop("embeddings.position_embedding.weight")
    found = model.vision_encoder.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    words = torch.arange(12)
    hidden = model.decode(model.language_model.embed_tokens(words), words, segments=Segments.of_runs([12]))
    assert torch.allclose(model.logits(hidden), qwen(input_ids=words[None]).logits[0], atol=1e-6)
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


def test_the_projector_alone_depends_on_the_seed(bases):
    vision, language, _, _ = bases()
    first, again, other = (assemble(vision, language, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert changed == {name for name in first if name.startswith("mm_projector.")}


def test_an_older_siglip_folder_with_its_text_tower_is_read(bases):
    vision, language, siglip, _ = bases()
    tensors = {f"vision_model.{name}": tensor for name, tensor in load_file(vision / "model.safetensors").items()}
    save_file(
        {**tensors, "logit_scale": torch.ones(1), "text_model.head.bias": torch.ones(2)}, vision / "model.safetensors"
    )
    config = json.loads((vision / "config.json").read_text())
    (vision / "config.json").write_text(json.dumps({"model_type": "siglip", "vision_config": config}))
    model = assemble(vision, language, seed=0)
    assert torch.equal(model.vision_encoder.post_layernorm.bias, siglip.post_layernorm.bias)


def test_the_encoder_of_a_whole_checkpoint_is_taken(bases, tmp_path):
    vision, language, _, _ = bases()
    model = assemble(vision, language, seed=0)
    with torch.no_grad():
        model.vision_encoder.post_layernorm.bias.add_(1)
    save_model(model, language, tmp_path / "checkpoint")
    again = assemble(tmp_path / "checkpoint", language, seed=5)
    wanted = model.vision_encoder.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.vision_encoder.state_dict().items())


def test_the_image_token_gets_the_id_that_the_tokenizer_gives_it(tmp_path, bases):
    from tokenizers import Tokenizer, models

    words = {"a": 0, "b": 1}
    for number, added in enumerate((["<|im_start|>", "<|im_end|>", "<|endoftext|>"], ["<image>"])):
        tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
        tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>", *added])
        folder = tmp_path / str(number)
        folder.mkdir()
        tokenizer.save(str(folder / "tokenizer.json"))
        assert image_token_id(folder) == ChatTokenizer.from_folder(folder).image_id == 5
    unigram = Tokenizer(models.Unigram([("a", 0.0), ("b", -1.0), ("c", -1.0)], unk_id=0))
    unigram.save(str(tmp_path / "0" / "tokenizer.json"))
    assert image_token_id(tmp_path / "0") == 3
    _, language, _, _ = bases()
    assert image_token_id(language) == 22


def test_a_decoder_that_is_no_qwen2_is_refused(bases):
    vision, language, _, _ = bases()
    with pytest.raises(ConfigError, match="model_type='siglip_vision_model' is not 'qwen2'"):
        assemble(vision, vision, seed=0)
    with pytest.raises(ConfigError, match=r"qwen/config.json: vision config: hidden_act='silu'"):
        assemble(language, language, seed=0)


def test_a_tower_that_lacks_a_tensor_is_refused_by_name(bases):
    vision, language, _, _ = bases()
    tensors = load_file(vision / "model.safetensors")
    del tensors["encoder.layers.0.mlp.fc1.bias"]
    save_file(tensors, vision / "model.safetensors")
    with pytest.raises(ConfigError, match=r"1 missing tensor.*'encoder.layers.0.mlp.fc1.bias'"):
        assemble(vision, language, seed=0)


def test_a_vocabulary_without_room_for_images_is_refused(bases):
    vision, language, _, _ = bases()
    data = json.loads((language / "tokenizer.json").read_text())
    data["added_tokens"].append({"id": 47, "content": "<|endoftext|>"})
    (language / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="image_token_id=48 is outside the vocabulary of 48 rows"):
        assemble(vision, language, seed=0)


def test_a_folder_without_a_tower_is_refused(bases):
    vision, language, _, _ = bases()
    save_file({"head.probe": torch.ones(1)}, vision / "model.safetensors")
    with pytest.raises(ConfigError, match=r"no tensor 'post_layernorm.weight' with any known prefix"):
        assemble(vision, language, seed=0)


def test_the_encoder_is_taken_from_every_layout(bases, tmp_path):
    """As the 7B model takes the encoder that the 2B run has tuned."""
    vision, language, _, _ = bases()
    model = assemble(vision, language, seed=0)
    with torch.no_grad():
        model.vision_encoder.post_layernorm.bias.add_(1)
    save_model(model, language, tmp_path / "official")
    convert(tmp_path / "official", tmp_path / "theirs", Layout.TRANSFORMERS)
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "config.json").write_bytes((tmp_path / "official" / "config.json").read_bytes())
    single, doubled = "model.vision_encoder.", "model.vision_encoder.vision_encoder."
    tensors = load_file(tmp_path / "official" / "model.safetensors")
    save_file({n.replace(single, doubled): t for n, t in tensors.items()}, tmp_path / "training" / "model.safetensors")
    wanted = model.vision_encoder.state_dict()
    for name in ("official", "theirs", "training"):
        found = assemble(tmp_path / name, language, seed=5).vision_encoder.state_dict()
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in found.items())


def test_shards_and_half_precision_are_read_into_the_type_of_training(bases, tmp_path):
    _, language, siglip, qwen = bases(tied=False)
    siglip.bfloat16().save_pretrained(tmp_path / "v", max_shard_size="20KB")
    qwen.bfloat16().save_pretrained(tmp_path / "l", max_shard_size="20KB")
    (tmp_path / "l" / "tokenizer.json").write_bytes((language / "tokenizer.json").read_bytes())
    assert len(list((tmp_path / "v").glob("*.safetensors"))) > 1
    model = assemble(tmp_path / "v", tmp_path / "l", seed=0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.lm_head.weight, qwen.lm_head.weight.float())
    assert torch.equal(model.vision_encoder.post_layernorm.bias, siglip.post_layernorm.bias.float())
