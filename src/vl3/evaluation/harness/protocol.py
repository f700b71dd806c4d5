"""How the paper shows a benchmark's media to a model (sec. 4.2), whatever its training was limited to."""

from dataclasses import replace

from vl3.data.sample.prepare import PrepareSettings

FPS, MAX_FRAMES = 1.0, 180
VISUAL_TOKENS = 16384
"""Vision tokens of a question (sec. 4.2.3)."""
TEXT_TOKENS = 8192
"""Room for a question's text beside them: subtitles are long. The paper does not say."""


def as_published(
    settings: PrepareSettings,
    *,
    fps: float = FPS,
    max_frames: int = MAX_FRAMES,
    visual_tokens: int = VISUAL_TOKENS,
) -> PrepareSettings:
    """The settings of a model's training with the limits of the paper's evaluation."""
    data = replace(
        settings.data,
        max_length_tokens=max(visual_tokens + TEXT_TOKENS, settings.data.max_length_tokens),
        video_fps=fps,
        max_frames=max_frames,
        visual_budget_tokens=visual_tokens,
        max_row_visual_tokens=max(visual_tokens, settings.data.max_row_visual_tokens),
    )
    return replace(settings, data=data)
