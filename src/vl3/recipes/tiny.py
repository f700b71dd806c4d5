"""The whole method on two CPU cores within minutes: a recipe like the others, only small."""

from dataclasses import replace

from vl3.config.data import DataConfig
from vl3.config.placement import PlacementConfig, PlacementTable
from vl3.config.run import (
    EngineConfig,
    EvaluationConfig,
    LaunchConfig,
    ModelConfig,
    OptimizerConfig,
    PromotionConfig,
    RunConfig,
)
from vl3.config.stages import LearningRates, StageConfig, StageTable, stage_table
from vl3.config.step_pods import PodSize, StepPodsConfig
from vl3.recipes.gates import gate_table
from vl3.recipes.mixture import load_mixture


def tiny() -> RunConfig:
    """Two small bases, four stages of a few hundred steps, two gloo processes."""
    return RunConfig(
        name="tiny",
        seed=0,
        model=ModelConfig(
            vision_base="package://vl3.recipes/bases/tiny_vision",
            language_base="package://vl3.recipes/bases/tiny_language",
        ),
        data=DataConfig(
            max_length_tokens=640,
            visual_budget_tokens=256,
            max_row_visual_tokens=256,
            min_item_tokens=4,
            video_fps=1.0,
            max_frames=16,
            difffp_threshold=0.1,
            difffp_min_tokens=1,
            max_bad_fraction=0.01,
            holdout_fraction=0.1,
            build_workers=2,
        ),
        stages=_stages(),
        optimizer=OptimizerConfig(
            beta1=0.9,
            beta2=0.98,
            epsilon=1e-8,
            weight_decay=0.0,
            max_grad_norm=1.0,
            warmup_ratio=0.03,
            min_lr_ratio=0.0,
        ),
        engine=EngineConfig(
            zero_stage=1,
            precision="fp32",
            recompute="none",
            checkpoint_every_steps=50,
            keep_checkpoints=1,
            log_every_steps=10,
            on_code_change="resume",
        ),
        launch=LaunchConfig(backend="local", processes_per_node=2, threads_per_process=1),
        placements=_placements(),
        step_pods=_step_pods(),
        evaluation=EvaluationConfig(samples_per_task=100, max_new_tokens=16, batch_size=64, processes=2),
        promotion=PromotionConfig(
            registered_model="vl3-tiny",
            gates=gate_table(mean=0.85, category=0.6, mean_fall=0.03, category_fall=0.05),
        ),
    )


def _placements() -> PlacementTable:
    """A pool without GPUs; stage 1 as two pods of one process, the others as one pod of two.

    Every stage has the two processes of a local run, so that its weights are the same bit for bit.
    """
    one_pod = PlacementConfig(
        pool="cpu",
        nodes=1,
        processes_per_node=2,
        gpus_per_node=0,
        cpus_per_node=1.2,
        memory_gib=4.0,
        shm_gib=0.5,
        queue="cpu",
        priority="vl3-normal",
        queue_timeout_seconds=600.0,
        max_retries=2,
    )
    two_pods = replace(one_pod, nodes=2, processes_per_node=1, cpus_per_node=0.6, memory_gib=3.0)
    return {"vision_adaptation": two_pods, "alignment": one_pod, "multitask": one_pod, "video": one_pod}


def _step_pods() -> StepPodsConfig:
    """Each fits on a node of two cores that other pods share; a launcher also beside the stage that it watches."""
    return StepPodsConfig(
        launcher=PodSize(cpus=0.1, cpu_limit=2.0, memory_gib=1.0),
        data=PodSize(cpus=1.0, cpu_limit=2.0, memory_gib=2.0),
        evaluator=PodSize(cpus=1.0, cpu_limit=2.0, memory_gib=4.0, shm_gib=0.5),
    )


def _stages() -> StageTable:
    full = LearningRates(vision=1e-3, projector=1e-3, language=1e-3)
    first = LearningRates(vision=1e-3, projector=2e-3, language=None)
    return stage_table(
        _stage("vision_adaptation", first, steps=200),
        _stage("alignment", full, steps=450),
        _stage("multitask", full, steps=500, difffp=True),
        _stage("video", full, steps=600, difffp=True, image_merge_size=2),
    )


def _stage(
    name: str, rates: LearningRates, *, steps: int, difffp: bool = False, image_merge_size: int = 1
) -> tuple[str, StageConfig]:
    return name, StageConfig(
        steps=steps,
        packs_per_step=2,
        learning_rates=rates,
        image_merge_size=image_merge_size,
        video_merge_size=2,
        difffp=difffp,
        mixture=load_mixture("tiny", name),
    )
