"""Ego4D's narrations as streams: each narration is said when it happens.

    {"videos": {"UID": {"narration_pass_1": {"narrations": [{"timestamp_sec": 3.2, "narration_text": "#C C opens"}]},
                        "narration_pass_2": {..}}}}

Layout: ego4d-data.org, "Narrations". A text begins with `#C`, the camera wearer, or `#O`, another person, and calls the
wearer `C`; `#unsure` marks what the narrator was not sure of, and is left out.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, refuse

_MARKS = re.compile(r"^#+\s*[A-Za-z]+\s+|\s*#\s*unsure\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Narrations:
    """One stream for each pass over a video; the builder of streaming clips cuts them (`vl3 data make`)."""

    file: str = "narration.json"
    videos: str = "full_scale/"
    prompt: str = "Describe what I do as it happens."

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each video."""
        return folder.json_items(self.file, "videos")

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each pass that has narrations."""
        uid, data = item.data
        passes = [data[name]["narrations"] for name in ("narration_pass_1", "narration_pass_2") if name in data]
        passes = [narrations for narrations in passes if narrations]
        if not passes:
            raise refuse(item, "the video has no narration.")
        for narrations in passes:
            said = sorted(
                (entry["timestamp_sec"], _MARKS.sub("", entry["narration_text"]).strip()) for entry in narrations
            )
            messages = [{"role": "user", "content": self.prompt, "time": 0.0}]
            messages += [{"role": "assistant", "content": text, "time": seconds} for seconds, text in said if text]
            yield {
                "video": folder.find(f"{self.videos}{uid}"),
                "stream": True,
                "start_time": 0.0,
                "end_time": said[-1][0] + 1.0,
                "conversation": messages,
            }


@dataclass(frozen=True, kw_only=True, slots=True)
class Livechat:
    """VideoLLM-Online's dialogues over Ego4D videos: one stream for each.

        [{"video_uid": "UID", "conversation": [{"role": "user", "content": "..", "time": 12.5}, ..]}]

    As its loader does, a dialogue ends before the first message that is earlier than the one before it.
    Layout: showlab/videollm-online, data/livechat/README.md and data/ego4d/livechat.py.
    """

    file: str = "goalstep_livechat_trainval_filtered_21k.json"
    videos: str = "full_scale/"

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each dialogue."""
        return folder.json_items(self.file)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each dialogue, from the second before its first message on."""
        messages: list[dict[str, Any]] = []
        for message in item.data["conversation"]:
            if messages and message["time"] < messages[-1]["time"]:
                break
            messages.append({name: message[name] for name in ("role", "content", "time")})
        while messages and messages[-1]["role"] != "assistant":
            messages.pop()
        if not messages:
            raise refuse(item, "the dialogue has no answer.")
        yield {
            "video": folder.find(f"{self.videos}{item.data['video_uid']}"),
            "stream": True,
            "start_time": max(0.0, messages[0]["time"] - 1.0),
            "end_time": messages[-1]["time"] + 1.0,
            "conversation": messages,
        }
