"""How clips are found, asked about and checked, as data with reasons (`templates/video.yaml` has vl3's own)."""

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from vl3.config.checks import Count, Fraction, OneOf, Range, Seconds, check_fields
from vl3.config.valued import read_valued
from vl3.curation.captions.foreign import hostile_part
from vl3.errors import ConfigError

DEFAULT_RULES = Path(str(files("vl3.curation.video"))) / "templates" / "video.yaml"
CAPTION, CLIP = "caption", "clip"


class Aspect(StrEnum):
    """What a question about a video is about (paper sec. 3.2.4)."""

    TEMPORAL = "temporal"
    SPATIAL = "spatial"
    OBJECTS = "objects"
    ORDER = "order"


@dataclass(frozen=True, kw_only=True)
class VideoRules:
    """Thresholds, prompts and limits; what each is for stands in the file."""

    analysis_fps: Annotated[float, Range(at_least=1, at_most=60)]
    analysis_width_px: Annotated[int, Range(at_least=32, at_most=1920)]
    max_video_seconds: Seconds
    cut_ratio: Annotated[float, Range(above=1, at_most=255)]
    cut_min_content: Annotated[float, Range(above=0, at_most=255)]
    cut_window_frames: Annotated[int, Range(at_least=1, at_most=100)]
    min_clip_seconds: Seconds
    max_clip_seconds: Seconds
    min_motion: Annotated[float, Range(at_least=0, at_most=100)]
    max_motion: Annotated[float, Range(above=0, at_most=100)]
    max_still_share: Fraction
    still_motion: Annotated[float, Range(at_least=0, at_most=100)]
    max_clips: Count
    frames_per_second: Annotated[float, Range(above=0, at_most=60)]
    max_frames: Annotated[int, Range(at_least=1, at_most=1024)]
    frame_side_px: Annotated[int, Range(at_least=28, at_most=4096)]
    jpeg_quality: Annotated[int, Range(at_least=1, at_most=100)]
    system: str
    caption_prompt: str
    caption_max_tokens: Count
    min_caption_characters: Count
    max_caption_characters: Count
    pairs_prompt: str
    pairs_max_tokens: Count
    max_pairs: Count
    max_question_characters: Count
    max_answer_characters: Count
    evidence: Annotated[str, OneOf((CLIP, CAPTION))]
    answer_prompt: str
    answer_max_tokens: Count
    compare_prompt: str
    accepted_verdicts: tuple[str, ...]
    unsure_answers: tuple[str, ...]
    forbidden: tuple[str, ...]

    def __post_init__(self) -> None:
        check_fields(self, "video")
        if 2 * self.min_clip_seconds > self.max_clip_seconds:
            raise ConfigError(
                f"video.min_clip_seconds={self.min_clip_seconds:g} is more than half of video.max_clip_seconds="
                f"{self.max_clip_seconds:g}, so parts of a long shot could be too short. Lower one or raise the other."
            )
        if self.min_motion >= self.max_motion:
            raise ConfigError(
                f"video.min_motion={self.min_motion:g} is not below video.max_motion={self.max_motion:g}, so no clip "
                "would be kept. Correct them."
            )
        for patterns in (self.unsure_answers, self.forbidden):
            hostile_part("", patterns)  # compiles them

    def analysis(self) -> dict[str, Any]:
        """What decides which clips are found."""
        names = re.compile(r"analysis_|max_video|cut_|m(?:in|ax)_clip|m(?:in|ax)_motion|.*still")
        return {name: value for name, value in asdict(self).items() if names.match(name)}

    def asking(self) -> dict[str, Any]:
        """What decides what is asked of a clip, and what is kept of the answers."""
        return {name: value for name, value in asdict(self).items() if name not in self.analysis()}


def read_video_rules(path: Path = DEFAULT_RULES) -> VideoRules:
    """The rules of a file; vl3's own by default.

    Raises:
        ConfigError: the file cannot be read, or a rule is wrong.
    """
    return read_valued(VideoRules, path)
