"""VL3-Syn7M: seven million captioned images of COYO-700M (paper sec. 2.3), and Laion-OCR beside it (sec. 3.2.2).

The paper names the steps and the models' families, and publishes no threshold, no variant of BLIP2 or CLIP, no number
of clusters and no quota. So each threshold here says what it is taken from; numbers of other works are quoted from
memory, and so are the names and revisions of models: look them up before a run of this size. The input are tar shards
of img2dataset.
"""

from dataclasses import replace

from vl3.config.curation import CAPTIONS, CurationConfig, HandedDataset, ScorerConfig, SelectionStep
from vl3.config.endpoint import EndpointConfig
from vl3.config.placement import CURATE, PlacementConfig

_CLIP = "hf://openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41"
_OCR_IMAGES = 3_000_000
_RECALLED = "quoted from memory"
_DESCRIBE_WITH_TEXTS = "<image>\nDescribe the image, and give all texts in it with their boxes."


def vl3_syn7m() -> CurationConfig:
    """COYO-700M to seven million images. Cheap steps first: BLIP2 sees a tenth of the images."""
    return CurationConfig(
        name="vl3_syn7m",
        seed=0,
        scorers={
            "facts": ScorerConfig(kind="image_facts"),
            "bench": ScorerConfig(kind="benchmarks", weights="s3://vl3/benchmarks"),
            "clip": ScorerConfig(kind="clip", weights=_CLIP, batch_images=256, gpus=0.5),
            "nsfw": ScorerConfig(
                kind="clip_head",
                weights="s3://vl3/scorers/clip-nsfw-l14",
                settings={"layout": "nsfw", "features": "clip"},
            ),
            "aesthetic": ScorerConfig(
                kind="clip_head",
                weights="s3://vl3/scorers/aesthetic-sac-logos-ava1-l14",
                settings={"layout": "aesthetic", "features": "clip"},
            ),
            "watermark": ScorerConfig(
                kind="classifier",
                weights="s3://vl3/scorers/watermark",
                settings={"label": "watermark"},
                batch_images=256,
                gpus=0.25,
            ),
            "caption": ScorerConfig(kind="blip2", weights="hf://Salesforce/blip2-opt-2.7b", batch_images=64, gpus=1.0),
            "similarity": ScorerConfig(
                kind="similarity", weights=_CLIP, settings={"features": "clip", "text": "caption"}, batch_images=256
            ),
            "short": _captions("short", "OpenGVLab/InternVL2-8B", "internvl2-8b"),
            "detailed": _captions("detailed", "OpenGVLab/InternVL2-26B", "internvl2-26b"),
        },
        steps=_steps(),
        datasets={
            "syn7m_short": HandedDataset(caption="short", prompt="<image>\nWrite a short caption of the image."),
            "syn7m_detailed": HandedDataset(caption="detailed", prompt="<image>\nDescribe the image in detail."),
        },
        chunk_images=256,
        placements={CURATE: _placement()},
    )


def laion_ocr() -> CurationConfig:
    """LAION to three million images with clear, readable text (paper sec. 3.2.2)."""
    base = vl3_syn7m()
    steps = {
        name: base.steps[name] for name in ("aspect_ratio", "min_side", "equal", "similar", "benchmark_images", "nsfw")
    }
    read = SelectionStep(
        kind="filter", column="ocr_clear", minimum=0.9, source="paper sec. 3.2.2: clear, readable text; threshold ours"
    )
    long_enough = SelectionStep(
        kind="filter", column="ocr_characters", minimum=8, maximum=2000, source="ours: a word and a half, to a page"
    )
    spread = replace(base.steps["clusters"], num_clusters=30_000, per_cluster=_OCR_IMAGES // 30_000)
    used = ("facts", "bench", "clip", "nsfw", "short")
    return replace(
        base,
        name="laion_ocr",
        scorers={name: base.scorers[name] for name in used} | {"ocr": ScorerConfig(kind="ocr")},
        steps={**steps, "clear_text": read, "text_length": long_enough, "clusters": spread},
        datasets={
            "laion_ocr": HandedDataset(
                caption="short", texts="ocr_texts", category="scene_text", prompt=_DESCRIBE_WITH_TEXTS
            )
        },
    )


def _captions(style: str, model: str, service: str) -> ScorerConfig:
    """A recaptioner (paper sec. 2.3), served by vLLM in the namespace; its revision is that of the server's image."""
    return ScorerConfig(
        kind=CAPTIONS,
        settings={"style": style},
        endpoint=EndpointConfig(url=f"http://{service}:8000/v1", model=model, version="2024-07", max_concurrent=256),
        copies=4,
    )


def _steps() -> dict[str, SelectionStep]:
    added = "what every team adds"
    return {
        "aspect_ratio": SelectionStep(
            kind="filter",
            column="aspect_ratio",
            minimum=1 / 3,
            maximum=3.0,
            source=f"paper sec. 2.3 (extremes out); limit 3 of DataComp's basic filter (arXiv 2304.14108), {_RECALLED}",
        ),
        "min_side": SelectionStep(
            kind="filter",
            column="min_side_px",
            minimum=200,
            source=f"DataComp's basic filter (arXiv 2304.14108), {_RECALLED}",
        ),
        "equal": SelectionStep(kind="exact_duplicates", source=added),
        "similar": SelectionStep(
            kind="near_duplicates", column="phash", max_distance=4, source=f"{added}; 4 of 64 bits is ours"
        ),
        "benchmark_images": SelectionStep(
            kind="filter",
            column="bench_distance",
            minimum=9,
            source=f"{added}; 8 bits is ours, stricter than duplicates",
        ),
        "benchmark_texts": SelectionStep(
            kind="filter", column="bench_text", maximum=0.5, source=f"{added}; half of the runs of 8 words is ours"
        ),
        "nsfw": SelectionStep(
            kind="filter", column="nsfw", maximum=0.5, source=f"{added}; LAION's detector, 0.5 its own boundary"
        ),
        "aesthetic": SelectionStep(
            kind="filter",
            column="aesthetic",
            minimum=4.5,
            source=f"paper sec. 2.3; 4.5 of LAION-Aesthetics, {_RECALLED}",
        ),
        "watermark": SelectionStep(
            kind="filter", column="watermark", maximum=0.5, source=f"{added}; 0.5 is the classifier's own boundary"
        ),
        "similarity": SelectionStep(
            kind="filter",
            column="similarity",
            minimum=0.2,
            source=f"paper sec. 2.3; below LAION-5B's 0.28 ({_RECALLED}), as BLIP2's captions are plainer",
        ),
        "clusters": SelectionStep(
            kind="clusters",
            column="clip",
            num_clusters=70_000,
            per_cluster=100,
            train_images=7_000_000,
            max_similarity=0.95,
            source=f"paper sec. 2.3; 7 million images; 0.95 of SemDeDup (arXiv 2303.09540), {_RECALLED}",
        ),
    }


def _placement() -> PlacementConfig:
    return PlacementConfig(
        pool="h200",
        nodes=4,
        processes_per_node=8,
        gpus_per_node=8,
        cpus_per_node=96.0,
        memory_gib=768.0,
        shm_gib=128.0,
        queue="h200",
        priority="vl3-normal",
        queue_timeout_seconds=7 * 24 * 3600.0,
        max_retries=20,
        gpu="h200",
    )
