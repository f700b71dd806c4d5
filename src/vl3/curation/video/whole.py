"""The video synthesis as a step of the workflow: videos of a collection in, one dataset and its numbers out.

videos.json                                      counts, what was left out and why, some samples with a picture
video_synthesis/annotations/train.jsonl          with its card and train.refused.jsonl
video_synthesis/videos/a.mp4                     a copy of each video with samples, under its name
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vl3.config.curation import VideoSynthesis
from vl3.curation.pages import thumbnail
from vl3.curation.video.flow import Progress, SynthesisSetup, synthesise
from vl3.curation.video.frames import clip_jpegs
from vl3.curation.video.rules import VideoRules
from vl3.curation.video.source import find_videos
from vl3.data.sample.problems import SampleProblem
from vl3.system.files import atomic_write_json

RESULT_FILE = "videos.json"
MAX_EXAMPLES = 12
_EXAMPLE_PX, _EXAMPLE_QUALITY = 192, 80


def curate_videos(
    config: VideoSynthesis | None,
    rules: VideoRules,
    data_uri: str,
    work_uri: str,
    answers: Path,
    out_folder: Path,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Make the dataset of a collection's videos.

    Args:
        config: the recipe's; None makes a result without any video.
        rules: thresholds and prompts.
        data_uri: folder or bucket of the videos.
        work_uri: where finished videos are kept.
        answers: file of what endpoints answered.
        out_folder: an empty folder for the result.
        progress: told how far it is.

    Returns:
        The content of videos.json.

    Raises:
        ConfigError: an endpoint refuses its key or model, or its spend limit is reached; a later run goes on.
        ClusterError: an endpoint is gone; a later run goes on.
        DataError: there is no video, too many cannot be decoded, or none gives a sample.
        StorageError: the store fails, or the folder cannot be written.
    """
    facts: dict[str, Any] = {"dataset": "", "videos": 0, "samples": 0, "funnel": {}, "failures": [], "examples": []}
    if config is not None:
        folder = out_folder / config.dataset
        annotations = folder / "annotations" / "train.jsonl"
        setup = SynthesisSetup(
            rules=rules,
            captioner=config.captioner,
            asker=config.asker or config.captioner,
            answers=answers,
            work_uri=work_uri,
            source=config.dataset,
            workers=config.workers,
            max_bad_fraction=config.max_bad_fraction,
            copies=folder,
        )
        videos = find_videos(data_uri, config.pattern)
        card = synthesise(videos, data_uri, annotations, setup, progress)
        facts |= {
            "dataset": config.dataset,
            "videos": len(videos),
            "samples": card.samples,
            "funnel": card.settings["funnel"],
            "failures": [
                {"reason": f"{where}: {reason}", "count": count} for count, where, reason in card.reasons.values()
            ],
            "examples": list(_examples(folder, annotations)),
        }
    atomic_write_json(out_folder / RESULT_FILE, facts)
    return facts


def _examples(folder: Path, annotations: Path) -> Iterator[dict[str, Any]]:
    """The first clips, one of each video, with what they became and a picture of their middle."""
    shown: dict[str, dict[str, Any]] = {}
    with annotations.open(encoding="utf-8") as lines:
        for line in lines:
            sample = json.loads(line)
            medium = sample["video"]
            where = f"{medium['path']} from {medium['start']:g} to {medium['end']:g} s"
            turns = [turn["value"].removeprefix("<video>\n") for turn in sample["conversations"]]
            if sample["id"].endswith("-pairs"):
                if where in shown:
                    shown[where]["pairs"] = list(zip(turns[::2], turns[1::2], strict=True))
            elif len(shown) < MAX_EXAMPLES and all(one["path"] != medium["path"] for one in shown.values()):
                thumb = _thumb(folder / medium["path"], medium["start"], medium["end"])
                shown[where] = {
                    "path": medium["path"],
                    "where": where,
                    "caption": turns[1],
                    "pairs": [],
                    "thumb": thumb,
                }
            elif len(shown) == MAX_EXAMPLES:
                break
    yield from shown.values()


def _thumb(video: Path, start_seconds: float, end_seconds: float) -> str:
    middle = (start_seconds + end_seconds) / 2
    try:
        frames = clip_jpegs(video, middle, end_seconds, 1, _EXAMPLE_PX, _EXAMPLE_QUALITY, "example")
    except SampleProblem:
        return ""  # it is shown by its words alone
    return thumbnail(frames[0])
