"""The projector's first weights."""

import torch

from vl3.models.projector import Projector


def drawn(seed):
    projector = Projector(64, 32)
    projector.draw(seed)
    return projector


def test_the_same_seed_draws_the_same_weights_whatever_the_global_state():
    torch.manual_seed(5)
    first = drawn(3).state_dict()
    torch.manual_seed(6)
    second = drawn(3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["readout.0.weight"], drawn(4).readout[0].weight)


def test_weights_stay_within_one_over_the_root_of_the_inputs():
    weight = drawn(0).readout[0].weight
    assert weight.abs().max() <= 1 / 8
    assert weight.abs().max() > 0.12


def test_names_are_the_checkpoints():
    assert list(Projector(8, 4).state_dict()) == [
        "readout.0.weight",
        "readout.0.bias",
        "readout.2.weight",
        "readout.2.bias",
    ]
