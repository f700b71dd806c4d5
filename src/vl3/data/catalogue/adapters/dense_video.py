"""Videos with captions of their parts: ActivityNet Captions, YouCook2, ViTT, COIN and HiREST.

    ActivityNet  {"v_1": {"duration": 82.7, "timestamps": [[0.8, 19.9], ..], "sentences": ["..", ..]}}
    YouCook2     {"database": {"1": {"subset": "training", "duration": 241.6,
                                     "annotations": [{"segment": [90, 102], "sentence": ".."}]}}}
    COIN         {"database": {"1": {"subset": "training", "duration": 74.3,
                                     "annotation": [{"segment": [16.0, 24.0], "label": ".."}]}}}
    ViTT         {"id": "1", "annotations": [{"timestamp": 260, "tag": ".."}, ..]}      lines; starts in milliseconds
    HiREST       {"prompt": {"1.mp4": {"v_duration": 90.0, "steps": [{"heading": "..", "absolute_bounds": [5, 9]}]}}}

Layouts: cs.stanford.edu/people/ranjaykrishna/densevid; youcook2.eecs.umich.edu, README; coin-dataset/annotations,
README; google-research-datasets/Video-Timeline-Tags-ViTT, README; j-min/HiREST, README.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, interval_text, refuse, turns

WHEN = 'When does "{}" happen in the video? Please output the start and end timestamps in seconds.'
"""The question of temporal grounding; its last sentence is that of the released evaluation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseVideo:
    """Parts with captions as questions about times, or as a stream in which each caption is said when its part ends."""

    files: tuple[str, ...]
    kind: str
    """`activitynet`, `youcook2`, `coin`, `vitt` or `hirest`."""
    videos: str = "videos/"
    """Folder of the videos, called by their ids; a pattern with `{id}`, without a suffix, may place them deeper."""
    task: str = "moments"
    """`moments`: one question for each part. `stream`: one stream for each video."""
    subset: str = "training"
    """Of YouCook2 and COIN."""
    prompt: str = WHEN
    stream_prompt: str = "Describe what happens as you watch."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each video: its id, its duration if known, and parts as (start, end, caption)."""
        for pattern in self.files:
            for where, name, data in self._videos(folder, pattern):
                yield Item(where=where, data={"id": name, **data})

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each part, or one stream."""
        data = item.data
        pattern = self.videos if "{id}" in self.videos else f"{self.videos}{{id}}"
        stem = pattern.format(id=data["id"].removesuffix(".mp4"))
        path, parts = folder.find(stem), _parts(self.kind, data)
        if not parts:
            raise refuse(item, "no part of the video has a caption.")
        if self.task == "stream":
            yield self._stream(path, parts)
            return
        for start, end, caption in parts:
            question = self.prompt.format(caption.strip().rstrip("."))
            yield {
                "video": path,
                "category": "temporal_grounding",
                "conversations": turns(question, interval_text(start, end)),
            }

    def _stream(self, path: str, parts: list[tuple[float, float, str]]) -> dict[str, Any]:
        said = sorted((end, caption.strip()) for _, end, caption in parts)
        messages = [{"role": "user", "content": self.stream_prompt, "time": 0.0}]
        messages += [{"role": "assistant", "content": caption, "time": end} for end, caption in said]
        return {"video": path, "stream": True, "start_time": 0.0, "end_time": said[-1][0], "conversation": messages}

    def _videos(self, folder: Folder, pattern: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        if self.kind == "vitt":
            for item in folder.json_items(pattern):
                yield item.where, item.data["id"], item.data
        elif self.kind == "hirest":
            for item in folder.json_items(pattern, ""):
                for name, data in item.data[1].items():
                    yield f"{item.where}:{name}", name, data
        elif self.kind == "activitynet":
            for item in folder.json_items(pattern, ""):
                yield item.where, item.data[0], item.data[1]
        else:
            for item in folder.json_items(pattern, "database"):
                if item.data[1].get("subset") == self.subset:
                    yield item.where, item.data[0], item.data[1]


def _parts(kind: str, data: dict[str, Any]) -> list[tuple[float, float, str]]:
    """Start and end in seconds, and caption, of each part.

    ViTT's tags at 0.3, 16 and 24 s are parts from 0.3 to 16 and from 16 to 24 s; where the last one ends is not known.
    """
    pairs: Iterable[tuple[Any, str]]
    if kind == "activitynet":
        pairs = zip(data["timestamps"], data["sentences"], strict=True)
    elif kind == "youcook2":
        pairs = ((part["segment"], part["sentence"]) for part in data["annotations"])
    elif kind == "coin":
        pairs = ((part["segment"], part["label"]) for part in data["annotation"])
    elif kind == "hirest":
        pairs = ((step["absolute_bounds"], step["heading"]) for step in data.get("steps", ()))
    else:
        tags = sorted(data["annotations"], key=lambda tag: tag["timestamp"])
        starts = [tag["timestamp"] / 1000 for tag in tags]
        pairs = (((start, end), tag["tag"]) for start, end, tag in zip(starts, starts[1:], tags, strict=False))
    return [(float(start), float(end), caption) for (start, end), caption in pairs]
