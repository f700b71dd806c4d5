"""VideoLLaMA3-7B: Qwen2.5-7B with the vision encoder that the 2B model has tuned (arXiv 2501.13106 sec. 3.3).

The paper gives one set of rates and mixtures for both sizes; scripts of the 7B are not released.
"""

from dataclasses import replace

from vl3.config.run import RunConfig
from vl3.recipes.vl3_2b import vl3_2b

_ZERO_STAGE = 2
"""Ours: with 1 the optimizer's state of 8 billion parameters is divided, with 2 also their gradients."""


def vl3_7b() -> RunConfig:
    """The 7B model: the 2B recipe with other bases, on H200 nodes in every stage.

    `model.vision_base` is the released 2B model. To start from a 2B run of your own, set it to run://RUN or to
    models:/vl3-2b@champion: the encoder that its first stage has tuned is taken.
    """
    base = vl3_2b()
    # Ours: each of the eight processes of an evaluation holds the 16 GB of a model.
    evaluator = replace(base.step_pods.evaluator, memory_gib=192.0)
    return replace(
        base,
        name="vl3_7b",
        # Ours, by `vl3 plan vl3_7b`: 101 of 131 GiB of an H200, 79 of them activations; `none` would need 131, and an
        # A100 only has room for `full`.
        engine=replace(base.engine, zero_stage=_ZERO_STAGE, recompute="selective"),
        placements={stage: replace(base.placements["video"]) for stage in base.stages},
        model=replace(
            base.model, vision_base="hf://DAMO-NLP-SG/VideoLLaMA3-2B", language_base="hf://Qwen/Qwen2.5-7B-Instruct"
        ),
        step_pods=replace(base.step_pods, evaluator=evaluator),
        promotion=replace(base.promotion, registered_model="vl3-7b"),
    )
