"""Greedy choice, temperature, top-p and seeds."""

import pytest
import torch

from vl3.errors import ConfigError
from vl3.inference.sampling import GREEDY, Chooser, Sampling

SHARES = torch.tensor([[0.5, 0.05, 0.3, 0.15]])


def draw(sampling, times=4000, scores=None):
    choose = Chooser(sampling)
    counts = torch.zeros(4)
    for _ in range(times):
        counts[choose(SHARES.log() if scores is None else scores)[0]] += 1
    return counts / times


def test_greedy_takes_the_most_probable():
    assert Chooser(GREEDY, range(2))(torch.tensor([[1.0, 3.0], [5.0, 2.0]]), [0, 1]) == [1, 0]


def test_temperature_one_draws_by_probability():
    assert torch.allclose(draw(Sampling(temperature=1.0)), SHARES[0], atol=0.03)


def test_temperature_sharpens_and_flattens():
    squared = SHARES[0] ** 2 / (SHARES[0] ** 2).sum()
    assert torch.allclose(draw(Sampling(temperature=0.5)), squared, atol=0.03)


def test_top_p_leaves_the_smallest_set_that_reaches_it():
    found = draw(Sampling(temperature=1.0, top_p=0.7))
    assert torch.allclose(found, torch.tensor([0.625, 0, 0.375, 0]), atol=0.03)
    assert draw(Sampling(temperature=1.0, top_p=0.01), times=50)[0] == 1


def test_the_same_seed_draws_alike_and_a_rows_draws_do_not_depend_on_its_batch():
    scores = torch.randn(3, 50)
    sampling = Sampling(temperature=1.0, seed=5)
    together, alone = Chooser(sampling, range(3)), Chooser(sampling, range(3))
    for _ in range(5):
        assert together(scores, [0, 1, 2])[2] == alone(scores[2:], [2])[0]
    first = [Chooser(sampling)(scores[:1]) for _ in range(2)]
    assert first[0] == first[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"temperature": -0.1}, "temperature=-0.1 must not"), ({"top_p": 0.0}, "top_p=0.0"), ({"top_p": 1.2}, "=1.2")],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**arguments)
