r"""Conversations as JSON or Parquet: LLaVA's, ShareGPT's and chat messages, told apart by the names of their columns.

    LLaVA       {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, ...]}
    ShareGPT    {"conversations": [{"from": "human", "value": "Hi"}, ...], "images": ["a.jpg"]}
    messages    {"messages": [{"role": "user", "content": "Hi"}, ...]}
    Cambrian    the LLaVA layout, of which some lines have a system turn or no picture

Layouts: LLaVA, docs/Finetune_Custom_Data.md; LLaMA-Factory, data/README.md (`dataset_info.json`, "sharegpt" and
"openai" formats), whose names of columns and tags the options here have.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, refuse


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Names of the columns; empty: there is none."""

    messages: str = "conversations"
    system: str = "system"
    images: str = "image"
    videos: str = "video"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tags:
    """Names within a message, and the values of its role."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    system_tag: str = "system"


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversations:
    """Options of all three: which files, in which folder the media are, and the names."""

    files: tuple[str, ...]
    """JSON (array or lines) or Parquet files; patterns such as `*.json`."""
    images: str = ""
    """Folder of the pictures, put before their paths."""
    videos: str = ""
    video_suffix: str = ""
    """Put after the names of videos that come without."""
    columns: Columns = field(default_factory=Columns)
    tags: Tags = field(default_factory=Tags)

    def items(self, folder: Folder) -> Iterator[Item]:
        """Values of the JSON files, or rows of the Parquet files."""
        for pattern in self.files:
            yield from (folder.parquet_items if pattern.endswith(".parquet") else folder.json_items)(pattern)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each item."""
        data, columns = item.data, self.columns
        messages = [self._turn(message, item) for message in data[columns.messages]]
        if data.get(columns.system):
            messages.insert(0, {"from": "system", "value": data[columns.system]})
        line: dict[str, Any] = {"conversations": messages}
        if images := _paths(data.get(columns.images)):
            line["image"] = [f"{self.images}{path}" if isinstance(path, str) else path for path in images]
        if videos := _paths(data.get(columns.videos)):
            line["video"] = [f"{self.videos}{path}{self.video_suffix}" for path in videos]
            if not images:  # LLaVA-Video and others call a video <image>, too
                for message in messages:
                    message["value"] = message["value"].replace("<image>", "<video>")
        yield line

    def _turn(self, message: dict[str, Any], item: Item) -> dict[str, str]:
        tags = self.tags
        roles = {tags.user_tag: "human", tags.assistant_tag: "gpt", tags.system_tag: "system"}
        role = message[tags.role_tag]
        if role not in roles:
            raise refuse(item, f"{tags.role_tag}: {role!r:.80} is none of {', '.join(roles)}.")
        return {"from": roles[role], "value": message[tags.content_tag]}


class Llava(Conversations):
    """LLaVA's JSON, which is what the defaults say."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareGpt(Conversations):
    """ShareGPT's JSON as LLaMA-Factory has it: several media in `images` and `videos`."""

    columns: Columns = field(default_factory=lambda: Columns(images="images", videos="videos"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Messages(Conversations):
    """Chat messages with `role` and `content`."""

    columns: Columns = field(default_factory=lambda: Columns(messages="messages", images="images", videos="videos"))
    tags: Tags = field(
        default_factory=lambda: Tags(role_tag="role", content_tag="content", user_tag="user", assistant_tag="assistant")
    )


def _paths(value: Any) -> list[Any]:
    return [] if value is None or value == "" else value if isinstance(value, list) else [value]
