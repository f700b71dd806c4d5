"""Our decoder gives transformers' numbers, forward and backward, from the same weights by the same names."""

import numpy as np
import pytest
import torch

from tests.support.models import text_config
from vl3.errors import DataError
from vl3.models.attention import Segments
from vl3.models.decoder import Decoder, Reach, rotary_frequencies

LENGTHS = [5, 9, 3]


@pytest.fixture
def pair():
    """(ours, transformers') with the same weights, large enough that differences would show."""
    from transformers.models.qwen2.modeling_qwen2 import Qwen2Config, Qwen2Model

    torch.manual_seed(0)
    config = text_config(num_hidden_layers=3)
    theirs = Qwen2Model(Qwen2Config(**config.to_dict())).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = Decoder(config).eval()
    assert list(dict(ours.named_parameters())) == list(dict(theirs.named_parameters()))
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def positions():
    return torch.from_numpy(np.concatenate([np.arange(length) for length in LENGTHS]))


def test_packed_samples_give_what_transformers_gives_for_each(pair):
    ours, theirs = pair
    torch.manual_seed(1)
    ids = torch.randint(0, 30, (sum(LENGTHS),))
    inputs = ours.embed_tokens(ids)
    hidden = ours(inputs, positions(), Reach(segments=Segments.of_similar(LENGTHS)))
    expected = torch.cat([theirs(input_ids=part[None]).last_hidden_state[0] for part in ids.split(LENGTHS)])
    torch.testing.assert_close(hidden, expected, atol=2e-5, rtol=2e-5)
    weights = torch.linspace(-1, 1, hidden.shape[-1])
    (hidden * weights).sum().backward()
    (expected * weights).sum().backward()
    reference = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        difference = (parameter.grad - reference[name].grad).norm() / reference[name].grad.norm()
        assert difference < 1e-4, name


def test_bf16_is_as_close_to_fp32_as_transformers(pair):
    ours, theirs = pair
    ids = torch.randint(0, 30, (12,))
    with torch.no_grad():
        exact = theirs(input_ids=ids[None]).last_hidden_state[0]
        low = ours.bfloat16()
        mine = low(low.embed_tokens(ids), torch.arange(12), Reach(segments=Segments.of_runs([12]))).float()
        other = theirs.bfloat16()(input_ids=ids[None]).last_hidden_state[0].float()
    assert (mine - exact).norm() < 1.2 * (other - exact).norm()


def test_without_anything_that_says_what_belongs_together_it_refuses():
    with pytest.raises(DataError, match="neither segments nor a cache with its mask"):
        Reach(key_mask_BQL=torch.ones(1, 1, 1, dtype=torch.bool))


def test_random_weights_are_small_and_biases_zero():
    torch.manual_seed(0)
    decoder = Decoder(text_config())
    layer = decoder.layers[0]
    assert decoder.embed_tokens.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert layer.mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not layer.self_attn.q_proj.bias.any()


def test_frequencies_made_in_inference_serve_training():
    rotary_frequencies.cache_clear()
    with torch.inference_mode():
        rotary_frequencies(8, 10000.0, torch.device("cpu"))
    again = rotary_frequencies(8, 10000.0, torch.device("cpu"))
    assert not again.is_inference()
    assert again.tolist() == pytest.approx([1, 0.1, 0.01, 0.001])
