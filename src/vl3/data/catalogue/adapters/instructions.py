"""Instructions and answers as text, in JSON or Parquet: Alpaca's layout and those with other names of columns.

    {"instruction": "Sort", "input": "3 1", "output": "1 3"}

Layouts: tatsu-lab/stanford_alpaca, README; LLaMA-Factory, data/README.md ("alpaca" format), whose names the options
have.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, turns


@dataclass(frozen=True, kw_only=True, slots=True)
class Instructions:
    """Which files, and the names of the columns."""

    files: tuple[str, ...]
    prompt: str = "instruction"
    query: str = "input"
    """Column put after the prompt on a line of its own, where it is there and not empty."""
    response: str = "output"
    system: str = "system"
    history: str = "history"
    """Column with earlier turns as pairs of question and answer."""

    def items(self, folder: Folder) -> Iterator[Item]:
        """Values of the JSON files, or rows of the Parquet files."""
        for pattern in self.files:
            yield from (folder.parquet_items if pattern.endswith(".parquet") else folder.json_items)(pattern)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each item."""
        data = item.data
        question = "\n".join(text for text in (data[self.prompt], data.get(self.query)) if text)
        past = [text for pair in data.get(self.history) or () for text in pair]
        system = [{"from": "system", "value": data[self.system]}] if data.get(self.system) else []
        yield {"category": "text_only", "conversations": [*system, *turns(*past, question, data[self.response])]}
