"""Adapters on the decoder, and the plain model that merging them gives."""

import numpy as np
import pytest
import torch

from vl3.config.stages import LoraConfig
from vl3.models.attention import Segments
from vl3.models.lora import add_adapters, is_adapter, merge_adapters

SETTINGS = LoraConfig(rank=4, alpha=8, dropout=0.0)


def fill_adapters(model):
    """Give the zero halves values, as training would."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            torch.nn.init.normal_(parameter, std=0.3)


def test_adapters_stand_beside_the_decoders_linear_layers_alone(make_model):
    model = make_model(tied=False)
    before = dict(model.named_parameters())
    add_adapters(model, SETTINGS, seed=0)
    adapters = {name for name, _ in model.named_parameters() if is_adapter(name)}
    layers = {name.split(".lora_")[0] for name in adapters}
    linear = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    linear += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    assert layers == {f"language_model.layers.{index}.{part}" for index in range(2) for part in linear}
    assert len(adapters) == 2 * len(layers)
    assert len(list(model.named_parameters())) == len(before) + len(adapters)
    assert {p.shape[0] for n, p in model.named_parameters() if ".lora_A." in n} == {4}


def test_training_starts_from_the_model_as_it_is(make_model, make_row):
    model, row = make_model(), make_row()
    expected = model(**row).loss_sum.item()
    add_adapters(model, SETTINGS, seed=0)
    assert model(**row).loss_sum.item() == expected


def test_the_first_values_depend_on_the_seed_alone(make_model):
    drawn = []
    for seed, noise in ((1, 0), (1, 99), (2, 0)):
        model = make_model()
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        add_adapters(model, SETTINGS, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        drawn.append(model.language_model.layers[0].mlp.up_proj.lora_A["default"].weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@torch.no_grad()
def hidden_states(model):
    words = torch.arange(12)
    return model.decode(model.language_model.embed_tokens(words), words, segments=Segments.of_runs([12])).float()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.3)], ids=["fp32", "bf16"])
def test_merging_gives_a_plain_model_with_the_same_outputs(make_model, dtype, tolerance):
    model = make_model().to(dtype)
    names = [name for name, _ in model.named_parameters()]
    plain = hidden_states(model)
    add_adapters(model, SETTINGS, seed=0)
    fill_adapters(model)
    adapted = hidden_states(model)
    merge_adapters(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert (adapted - plain).abs().max() > 0.5
    assert (hidden_states(model) - adapted).abs().max() < tolerance
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_what_is_merged_is_rounded_once(make_model):
    model = make_model().to(torch.bfloat16)
    before = model.language_model.layers[0].mlp.up_proj.weight.detach().double().numpy()
    add_adapters(model, SETTINGS, seed=0)
    fill_adapters(model)
    layer = model.language_model.layers[0].mlp.up_proj
    down, up = (part["default"].weight.detach().double().numpy() for part in (layer.lora_A, layer.lora_B))
    merge_adapters(model)
    exact = torch.from_numpy(before + np.float64(8 / 4) * up @ down)
    assert (model.language_model.layers[0].mlp.up_proj.weight == exact.to(torch.bfloat16)).float().mean() > 0.999
