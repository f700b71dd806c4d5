"""VideoLLaMA3-2B: SigLIP so400m and Qwen2.5-1.5B through the paper's four stages (arXiv 2501.13106).

From the paper (sec. 3.2, 3.3): mixtures, learning rates, cosine schedule with warm-up 0.03, 16384/10240 tokens, 1 fps,
180 frames, DiffFP in stages 3 and 4, downsampling of video always and of images in stage 4. From the released scripts:
128 samples a step, one epoch, bf16, no weight decay, seed, a checkpoint every 1000 steps. Ours: ZeRO 2 without
recomputation (theirs: ZeRO 1 with it), which by `vl3 plan vl3_2b` fits with room and takes the least time; and, because
nothing is published, evaluation and promotion thresholds and the vision tokens of a row.
"""

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
from vl3.config.step_pods import StepPodsConfig
from vl3.recipes.gates import gate_table
from vl3.recipes.mixture import load_mixture

_SAMPLES_PER_STEP = 128
_PACKS_DIVISIBLE_BY = 16
"""Ours: the processes of a placement here; one node of 8 GPUs can share as many, too."""
_SIX_HOURS_SECONDS = 6 * 3600.0
"""Ours: bases and a checkpoint are loaded from a hub or an object store, and 15 GB of weights published to one."""


def vl3_2b() -> RunConfig:
    """The 2B model on one node of eight GPUs."""
    return RunConfig(
        name="vl3_2b",
        seed=42,
        model=ModelConfig(
            vision_base="hf://google/siglip-so400m-patch14-384",
            language_base="hf://Qwen/Qwen2.5-1.5B-Instruct",
            vision_width=1152,
        ),
        data=_data(),
        stages=_stages(),
        optimizer=OptimizerConfig(
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-8,
            weight_decay=0.0,
            max_grad_norm=1.0,
            warmup_ratio=0.03,
            min_lr_ratio=0.0,
        ),
        engine=EngineConfig(
            zero_stage=2,
            precision="bf16",
            recompute="none",
            checkpoint_every_steps=1000,
            keep_checkpoints=2,
            published_weights="release",
            log_every_steps=10,
            on_code_change="resume",
        ),
        launch=LaunchConfig(backend="local", processes_per_node=8, threads_per_process=8),
        placements=_placements(),
        step_pods=StepPodsConfig(),
        evaluation=EvaluationConfig(
            samples_per_task=500, max_new_tokens=128, batch_size=64, processes=8, dtype="bf16", prepare_threads=8
        ),
        promotion=PromotionConfig(
            registered_model="vl3-2b",
            gates=gate_table(mean=0.5, category=0.25, mean_fall=0.02, category_fall=0.02),
        ),
    )


def _data() -> DataConfig:
    return DataConfig(
        max_length_tokens=16384,
        visual_budget_tokens=10240,
        max_row_visual_tokens=10240,
        min_item_tokens=16,
        video_fps=1.0,
        max_frames=180,
        difffp_threshold=0.1,
        difffp_min_tokens=1,
        max_bad_fraction=0.001,
        holdout_fraction=0.001,
        build_workers=16,
    )


def _placements() -> PlacementTable:
    """Ours, nothing is published: the image stages on A100 nodes, the long video sequences on H200 nodes."""
    a100 = PlacementConfig(
        pool="a100",
        nodes=2,
        processes_per_node=8,
        gpus_per_node=8,
        cpus_per_node=96.0,
        memory_gib=900.0,
        shm_gib=64.0,
        queue="a100",
        priority="vl3-normal",
        queue_timeout_seconds=7 * 24 * 3600.0,
        max_retries=10,
        gpu="a100",
    )
    h200 = replace(a100, pool="h200", queue="h200", memory_gib=1500.0, gpu="h200")
    return {"vision_adaptation": a100, "alignment": a100, "multitask": h200, "video": h200}


def _stages() -> StageTable:
    first = LearningRates(vision=1e-5, projector=1e-3, language=None)
    full = LearningRates(vision=2e-6, projector=1e-5, language=1e-5)
    return stage_table(
        _stage("vision_adaptation", first),
        _stage("alignment", full),
        _stage("multitask", full, difffp=True),
        _stage("video", full, difffp=True, image_merge_size=2),
    )


def _stage(
    name: str, rates: LearningRates, *, difffp: bool = False, image_merge_size: int = 1
) -> tuple[str, StageConfig]:
    return name, StageConfig(
        epochs=1.0,
        samples_per_step=_SAMPLES_PER_STEP,
        packs_divisible_by=_PACKS_DIVISIBLE_BY,
        learning_rates=rates,
        image_merge_size=image_merge_size,
        video_merge_size=2,
        difffp=difffp,
        mixture=load_mixture("vl3", name),
        startup_seconds=_SIX_HOURS_SECONDS,
    )
