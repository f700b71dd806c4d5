"""The planner's sizes of the ablation's encoders."""

import torch

from vl3.config.ablation import AblationConfig
from vl3.models.fixed_config import FixedVisionConfig
from vl3.models.fixed_encoder import FixedEncoder
from vl3.planning.parameters import count_parameters
from vl3.planning.sizes import model_sizes
from vl3.recipes.catalog import get_recipe


def ablation(name: str) -> AblationConfig:
    config = get_recipe(name)
    assert isinstance(config, AblationConfig)
    return config


def test_the_encoders_of_the_hub_are_known_with_the_blocks_that_run() -> None:
    found = [model_sizes(run.model) for run in ablation("ablation").runs()]
    assert [notes for _, notes in found] == [[], [], []]
    visions = [sizes.vision for sizes, _ in found]
    assert all(isinstance(vision, FixedVisionConfig) for vision in visions)
    assert [(one.hidden_size, one.num_hidden_layers, one.num_attention_heads) for one in visions] == [
        (1024, 23, 16),
        (1280, 31, 16),
        (1152, 26, 16),
    ]
    assert [one.picture.side_patches**2 for one in visions if one.picture] == [576, 729, 729]


def test_their_parameters_are_those_of_the_module() -> None:
    for run in ablation("ablation").runs():
        sizes, _ = model_sizes(run.model)
        assert isinstance(sizes.vision, FixedVisionConfig)
        with torch.device("meta"):
            module = FixedEncoder(sizes.vision)
        assert count_parameters(sizes).vision == sum(parameter.numel() for parameter in module.parameters())


def test_sizes_of_a_folder_are_read_from_it() -> None:
    widths = [model_sizes(run.model)[0].vision.hidden_size for run in ablation("ablation_tiny").runs()]
    assert widths == [64, 80, 72]
