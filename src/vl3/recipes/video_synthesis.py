"""The synthetic video data of stage 4 (paper sec. 3.2.4): dynamic clips of Panda-70M with captions and questions.

The paper has 68 thousand clips and 242 thousand pairs, and prints neither thresholds nor prompts: those are in
vl3/curation/video/templates/video.yaml, each with its reason.
"""

from vl3.config.curation import CurationConfig, VideoSynthesis
from vl3.config.endpoint import EndpointConfig
from vl3.config.step_pods import PodSize, StepPodsConfig


def video_synthesis() -> CurationConfig:
    """Clips of `videos/` by Qwen2-VL-72B, served by vLLM in the namespace; no images."""
    return CurationConfig(
        name="video_synthesis",
        seed=0,
        scorers={},
        steps={},
        datasets={},
        videos=VideoSynthesis(
            captioner=EndpointConfig(
                url="http://qwen2-vl-72b:8000/v1",
                model="Qwen/Qwen2-VL-72B-Instruct",
                version="2024-09",
                max_concurrent=64,
                timeout_seconds=600.0,
            ),
            workers=16,
        ),
        step_pods=StepPodsConfig(curator=PodSize(cpus=16.0, cpu_limit=16.0, memory_gib=32.0, shm_gib=1.0)),
    )
