"""Questions and answers about a picture, in JSON: DocVQA, InfoVQA, ChartQA, DVQA, PlotQA and others of that shape.

    DocVQA    {"data": [{"question": "..", "image": "documents/a_1.png", "answers": ["..", ".."]}]}
    InfoVQA   {"data": [{"question": "..", "image_local_name": "1.jpeg", "answers": [".."]}]}
    ChartQA   [{"imgname": "1.png", "query": "..", "label": ".."}]
    DVQA      [{"image": "bar_train_00000001.png", "question": "..", "answer": ".."}]
    PlotQA    {"qa_pairs": [{"image_index": 0, "question_string": "..", "answer": 3.5}]}

Layouts: rrc.cvc.uab.es, challenge 17 (DocVQA); vis-nlp/ChartQA, README; kushalkafle/DVQA_dataset, README;
NiteshMethani/PlotQA, PlotQA_Dataset.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vl3.data.catalogue.adapter import Folder, Item, refuse, turns


@dataclass(frozen=True, kw_only=True, slots=True)
class Vqa:
    """Which files, and the names of the columns."""

    files: tuple[str, ...]
    at: tuple[str, ...] = ()
    """Key of the JSON object's member that has the questions, such as `data`."""
    image: str = "image"
    images: str = ""
    """Folder of the pictures, put before their paths."""
    suffix: str = ""
    """Put after the paths of pictures that come without."""
    question: str = "question"
    answer: str = "answer"
    """Column with the answer, or with a list of accepted ones, of which the first is taken."""
    short: bool = True
    """Whether the question asks for a word or phrase, in the words of the released evaluation."""

    def items(self, folder: Folder) -> Iterator[Item]:
        """One item for each question."""
        for pattern in self.files:
            for item in folder.json_items(pattern, *self.at):
                yield Item(where=item.where, data=item.data[1] if self.at else item.data)

    def lines(self, item: Item, folder: Folder) -> Iterable[dict[str, Any]]:
        """One line for each question."""
        answer = item.data[self.answer]
        if isinstance(answer, list):
            if not answer:
                raise refuse(item, f"{self.answer}: empty, so nothing can be learnt from it.")
            answer = answer[0]
        question = str(item.data[self.question])
        if self.short:
            question += "\nAnswer the question with a single word or phrase."
        path = f"{self.images}{item.data[self.image]}{self.suffix}"
        yield {"image": path, "conversations": turns(question, str(answer))}
