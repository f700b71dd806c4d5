"""The encoder ablation of VideoLLaMA3 (arXiv 2501.13106 table 9), and the same on two CPU cores within minutes.

Three encoders as they are, frozen, each at its own fixed resolution, through three stages: the projector on
LLaVA-Pretrain-558K, all other parts on recaptioned data, then on LLaVA-SFT-665K.

From the paper: encoders, stages, data, what is frozen, scores. From LLaVA 1.5 (arXiv 2310.03744), whose data and stages
these are: learning rates and batches of the first and the last stage, and the features of the last block but one. From
VideoLLaMA3's own stage 2: the learning rate of the second stage. Nothing is published of the decoder (here that of the
2B model), the amount of recaptioned data, packing and placement: choices of ours, the same for all arms.
"""

from dataclasses import replace
from typing import Any

from vl3.config.ablation import AblationConfig, ArmConfig
from vl3.config.data import Category
from vl3.config.evaluation import EvaluationConfig
from vl3.config.run import ModelConfig, RunConfig
from vl3.config.stages import LearningRates, StageConfig, stage_table
from vl3.recipes.mixture import load_mixture
from vl3.recipes.tiny import tiny
from vl3.recipes.vl3_2b import vl3_2b

BENCHMARKS = ("gqa", "ai2d", "chartqa", "docvqa", "mme")
"""Columns of table 9: the group `ablation` of the catalogue."""
_CLIP, _DFN, _SIGLIP = (
    dict(zip(BENCHMARKS, scores, strict=True))
    for scores in (
        (61.50, 56.28, 18.32, 24.86, 1668.41),
        (62.70, 56.87, 16.40, 23.09, 1665.35),
        (62.92, 57.12, 22.44, 31.32, 1667.92),
    )
)
_STAGES = ("projector", "alignment", "instruction")
_CATEGORIES = (
    Category.SCENE_IMAGE,
    Category.SCENE_TEXT,
    Category.DOCUMENT,
    Category.CHART,
    Category.FINE_GRAINED,
    Category.TEXT_ONLY,
)
"""What is asked of the arms: single pictures and text, as in table 9. 27 x 27 patches have no merged video tokens."""
_TOKENS_PER_PICTURE = 729
"""Of DFN and SigLIP; CLIP has 576."""
_PICTURES_PER_ROW = 4


def ablation() -> AblationConfig:
    """CLIP, DFN and SigLIP with Qwen2.5-1.5B, each on one node of eight GPUs."""
    shared = vl3_2b()
    first = _stage("ablation", "projector", LearningRates(vision=None, projector=1e-3, language=None), samples=256)
    second = _stage("ablation", "alignment", LearningRates(vision=None, projector=1e-5, language=1e-5), samples=128)
    third = _stage("ablation", "instruction", LearningRates(vision=None, projector=2e-5, language=2e-5), samples=128)
    visual = _TOKENS_PER_PICTURE * _PICTURES_PER_ROW
    node = replace(shared.placements["alignment"], nodes=1)
    return _ablation(
        shared,
        name="ablation",
        model=replace(
            shared.model, vision_base="hf://openai/clip-vit-large-patch14-336", vision_width=1024, picture_side_px=336
        ),
        data=replace(
            shared.data, max_length_tokens=4096, visual_budget_tokens=visual, max_row_visual_tokens=visual, max_frames=1
        ),
        stages=stage_table(first, second, third),
        placements=dict.fromkeys(_STAGES, node),
        evaluation=replace(shared.evaluation, categories=_CATEGORIES),
        promotion=replace(shared.promotion, registered_model="vl3-ablation"),
        arms={
            "clip": ArmConfig(
                title="CLIP ViT-L/14, 336 px",
                vision_base="hf://openai/clip-vit-large-patch14-336",
                picture_side_px=336,
                vision_width=1024,
                published=_CLIP,
            ),
            "dfn": ArmConfig(
                title="DFN5B CLIP ViT-H/14, 378 px",
                vision_base="hf://apple/DFN5B-CLIP-ViT-H-14-378",
                picture_side_px=378,
                vision_width=1280,
                published=_DFN,
            ),
            "siglip": ArmConfig(
                title="SigLIP so400m/14, 384 px",
                vision_base="hf://google/siglip-so400m-patch14-384",
                picture_side_px=384,
                vision_width=1152,
                published=_SIGLIP,
            ),
        },
    )


def ablation_tiny() -> AblationConfig:
    """Three small encoders in the formats of the real ones, with the tiny recipe's decoder, two gloo processes."""
    shared = tiny()
    first = _tiny_stage("projector", LearningRates(vision=None, projector=2e-3, language=None), steps=100)
    second = _tiny_stage("alignment", LearningRates(vision=None, projector=1e-3, language=1e-3), steps=120)
    third = _tiny_stage("instruction", LearningRates(vision=None, projector=1e-3, language=1e-3), steps=200)
    bases = "package://vl3.recipes/bases"
    return _ablation(
        shared,
        name="ablation_tiny",
        model=ModelConfig(
            vision_base=f"{bases}/tiny_clip", language_base=shared.model.language_base, picture_side_px=56
        ),
        stages=stage_table(first, second, third),
        placements=dict.fromkeys(_STAGES, shared.placements["alignment"]),
        evaluation=EvaluationConfig(
            samples_per_task=40, max_new_tokens=16, batch_size=64, processes=2, categories=_CATEGORIES
        ),
        promotion=replace(shared.promotion, registered_model="vl3-ablation-tiny"),
        arms={
            "clip": ArmConfig(
                title="tiny CLIP, 56 px", vision_base=f"{bases}/tiny_clip", picture_side_px=56, published=_CLIP
            ),
            "dfn": ArmConfig(
                title="tiny DFN CLIP, 70 px", vision_base=f"{bases}/tiny_dfn", picture_side_px=70, published=_DFN
            ),
            "siglip": ArmConfig(
                title="tiny SigLIP, 60 px", vision_base=f"{bases}/tiny_siglip", picture_side_px=60, published=_SIGLIP
            ),
        },
    )


def _ablation(shared: RunConfig, **own: Any) -> AblationConfig:
    """An ablation of what a recipe has, but for what is given."""
    kept = {name: getattr(shared, name) for name in RunConfig.__dataclass_fields__}
    return AblationConfig(**{**kept, **own})


def _stage(family: str, name: str, rates: LearningRates, *, samples: int) -> tuple[str, StageConfig]:
    return name, StageConfig(
        epochs=1.0,
        samples_per_step=samples,
        packs_divisible_by=8,
        learning_rates=rates,
        image_merge_size=1,
        video_merge_size=2,
        difffp=False,
        mixture=load_mixture(family, name),
    )


def _tiny_stage(name: str, rates: LearningRates, *, steps: int) -> tuple[str, StageConfig]:
    return name, StageConfig(
        steps=steps,
        packs_per_step=2,
        learning_rates=rates,
        image_merge_size=1,
        video_merge_size=2,
        difffp=False,
        mixture=load_mixture("ablation_tiny", name),
    )
