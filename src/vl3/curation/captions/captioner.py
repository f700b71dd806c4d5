"""Captions by a model behind an endpoint, as a scorer: a batch of pictures in, a caption a picture out.

Where a batch has a column `annotations`, the captions are conditioned on it: the paper's Objects365-, COCO2017- and
SA-1B-Recap.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vl3.config.endpoint import EndpointConfig
from vl3.curation.captions.annotations import Mark, parse_marks
from vl3.curation.captions.asking import Asker
from vl3.curation.captions.foreign import fenced, hostile_part, plain_text
from vl3.curation.captions.pictures import file_picture
from vl3.curation.captions.rules import CaptionRules, CaptionStyle, read_caption_rules, tidy
from vl3.curation.scorer import ERROR_SUFFIX, version_digest
from vl3.data.sample.problems import SampleProblem
from vl3.endpoint.answer import Outcome
from vl3.endpoint.question import EndpointQuestion

BASIS_SUFFIX = "_basis"
PICTURE_ALONE = "picture"
WITH_ANNOTATIONS = "picture and annotations"
_CODE = 1
"""Changes when equal settings ask otherwise than before."""


class Captioner:
    """A scorer that asks for captions. `<name>_basis` says whether annotations were shown, and why not."""

    inputs = ("bytes",)
    """A batch may have `annotations` besides: those of whole sets (vl3.curation.captions.flow)."""
    retries_failures = True
    """An endpoint that fails today may answer tomorrow."""

    def __init__(
        self,
        name: str,
        style: CaptionStyle,
        endpoint: EndpointConfig,
        store: Path,
        *,
        rules: CaptionRules | None = None,
    ) -> None:
        """Nothing is opened before the first batch.

        Args:
            name: of the column, such as `short_caption`.
            style: short or detailed.
            endpoint: the model.
            store: file of the answers, which may be shared by scorers and runs.
            rules: prompts and limits; vl3's own by default.
        """
        self.name, self.outputs = name, (name, f"{name}{BASIS_SUFFIX}")
        self.style, self._rules = style, rules or read_caption_rules()
        self._asker = Asker(endpoint, store)
        self.settings = {"style": style.value, "rules": self._rules.settings(), "model": self._asker.model}
        self.version = version_digest({"code": _CODE, **self.settings})

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Captions, what each is based on, and why there is none.

        Raises:
            ConfigError: the endpoint refuses the key or the model, or the spend limit is reached. What was answered is
                kept, and a further call with the same pictures goes on from there.
            ClusterError: the endpoint is gone.
            StorageError: the store of answers cannot be used.
        """
        count = len(batch["sha256"])
        texts, bases, errors = (np.full(count, None, dtype=object) for _ in range(3))
        asked = list(self._questions(batch))
        for row, (basis, _) in enumerate(asked):
            bases[row] = basis
        for row, answer in enumerate(self._asker.ask(question for _, question in asked)):
            if answer.outcome is Outcome.ANSWERED:
                texts[row] = tidy(answer.text, self.style)
            else:
                errors[row] = f"{answer.outcome}: {answer.reason}"
                bases[row] = None
        return {self.name: texts, f"{self.name}{BASIS_SUFFIX}": bases, f"{self.name}{ERROR_SUFFIX}": errors}

    def close(self) -> None:
        """Close the endpoint."""
        self._asker.close()

    def _questions(self, batch: dict[str, np.ndarray]) -> Iterator[tuple[str, EndpointQuestion]]:
        """What each caption is based on, and its question."""
        rules, style = self._rules, self.style
        annotations = batch.get("annotations", np.full(len(batch["sha256"]), None, dtype=object))
        for sha256, data, marked in zip(batch["sha256"], batch["bytes"], annotations, strict=True):
            name = str(sha256)[:12]
            picture = file_picture(
                bytes(data), str(sha256), name, max_side_px=rules.max_side_px, quality=rules.jpeg_quality
            )
            basis, shown = self._marks(marked, str(sha256), name)
            prompt = rules.prompt(style)
            yield (
                basis,
                EndpointQuestion(
                    name=f"{self.name} {name}",
                    system=rules.system,
                    parts=(picture, f"{prompt}\n\n{rules.annotations_prompt}\n{shown}" if shown else prompt),
                    max_tokens=rules.max_tokens(style),
                    check=lambda text: rules.problem(tidy(text, style)),
                ),
            )

    def _marks(self, text: Any, sha256: str, name: str) -> tuple[str, str]:
        """What a caption is based on, and the annotations as they are shown; empty where there are none to show."""
        if not isinstance(text, str) or not text.strip():
            return PICTURE_ALONE, ""
        try:
            marks = parse_marks(text, name)
        except SampleProblem as problem:
            return f"{PICTURE_ALONE} ({problem.reason})", ""
        for mark in marks:
            if found := hostile_part(plain_text(mark.name, 10 * self._rules.max_name_characters), self._rules.hostile):
                return f"{PICTURE_ALONE} (a name in the annotations reads like an instruction: {found!r:.80})", ""
        if not marks:
            return PICTURE_ALONE, ""
        lines = [_line(mark, self._rules.max_name_characters) for mark in marks[: self._rules.max_marks]]
        return WITH_ANNOTATIONS, fenced("\n".join(lines), sha256)[0]


def _line(mark: Mark, max_characters: int) -> str:
    """`dog [15,41,312,625] 17.3 %`."""
    name = plain_text(mark.name, max_characters).replace("<", "(").replace(">", ")") or "region"
    return f"{name} [{','.join(map(str, mark.box))}] {mark.share:.1%}"
