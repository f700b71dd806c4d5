"""The whole curation on two cores within minutes: small models in the real formats, thresholds that fit them."""

from vl3.config.curation import CurationConfig, HandedDataset, ScorerConfig, SelectionStep
from vl3.config.placement import CURATE, PlacementConfig
from vl3.config.step_pods import PodSize, StepPodsConfig

_BASES = "package://vl3.recipes/bases"
_TINY = "ours: fits the scores of small random models"


def curate_tiny() -> CurationConfig:
    """Every kind of step once, on the images of the generated world or of any data folder."""
    return CurationConfig(
        name="curate_tiny",
        seed=0,
        scorers={
            "facts": ScorerConfig(kind="image_facts"),
            "bench": ScorerConfig(kind="benchmarks", settings={"heldout": "yes"}),
            "watermark": ScorerConfig(
                kind="classifier", weights=f"{_BASES}/curation_watermark", settings={"label": "watermark"}
            ),
            "clip": ScorerConfig(kind="clip", weights=f"{_BASES}/curation_clip"),
            "aesthetic": ScorerConfig(
                kind="clip_head",
                weights=f"{_BASES}/curation_aesthetic",
                settings={"layout": "aesthetic", "features": "clip"},
            ),
            "caption": ScorerConfig(kind="blip2", weights=f"{_BASES}/curation_blip2", settings={"max_new_tokens": "8"}),
            "similarity": ScorerConfig(
                kind="similarity",
                weights=f"{_BASES}/curation_clip",
                settings={"features": "clip", "text": "caption"},
            ),
        },
        steps=_steps(),
        datasets={
            "syn_short": HandedDataset(caption="caption", prompt="<image>\nWrite a short caption of the image."),
            "syn_detailed": HandedDataset(caption="text", prompt="<image>\nDescribe the image in detail."),
        },
        part_images=256,
        chunk_images=64,
        max_failed_fraction=0.2,
        placements={CURATE: _placement()},
        step_pods=StepPodsConfig(
            launcher=PodSize(cpus=0.1, cpu_limit=2.0, memory_gib=1.0),
            data=PodSize(cpus=1.0, cpu_limit=2.0, memory_gib=2.0),
            curator=PodSize(cpus=1.0, cpu_limit=2.0, memory_gib=4.0, shm_gib=0.5),
        ),
    )


def _steps() -> dict[str, SelectionStep]:
    return {
        "aspect_ratio": SelectionStep(
            kind="filter", column="aspect_ratio", minimum=1 / 3, maximum=3.0, source="paper sec. 2.3; limits ours"
        ),
        "equal": SelectionStep(kind="exact_duplicates", source="what every team adds"),
        "similar": SelectionStep(
            kind="near_duplicates", column="phash", max_distance=2, source="ours: drawn scenes look alike"
        ),
        "benchmark_images": SelectionStep(
            kind="filter", column="bench_distance", minimum=1.0, source="ours: no image of the held-out scenes"
        ),
        "benchmark_texts": SelectionStep(
            kind="filter", column="bench_text", maximum=1.0, source="ours: drawn scenes share their sentences"
        ),
        "watermark": SelectionStep(kind="filter", column="watermark", maximum=0.457, source=_TINY),
        "aesthetic": SelectionStep(kind="filter", column="aesthetic", minimum=5.15, source=f"paper sec. 2.3; {_TINY}"),
        "similarity": SelectionStep(kind="filter", column="similarity", minimum=0.0, source=f"paper sec. 2.3; {_TINY}"),
        "clusters": SelectionStep(
            kind="clusters",
            column="clip",
            num_clusters=20,
            per_cluster=20,
            train_images=4000,
            source="paper sec. 2.3; numbers ours",
        ),
    }


def _placement() -> PlacementConfig:
    """One worker of one core, on a pool without GPUs."""
    return PlacementConfig(
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
