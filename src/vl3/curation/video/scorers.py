"""The steps of the video synthesis as scorers: clips of a video, the caption of a clip, its question-answer pairs.

Rows are videos for the first, clips for the others: `path` (a file), `sha256` (its digest), `start_s` and `end_s`.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vl3.curation.captions.asking import Asker
from vl3.curation.captions.foreign import fenced, hostile_part
from vl3.curation.captions.rules import CaptionStyle, tidy
from vl3.curation.scorer import ERROR_SUFFIX, version_digest
from vl3.curation.video.clips import find_clips
from vl3.curation.video.frames import ClipFrames
from vl3.curation.video.guarded import GuardedProcess
from vl3.curation.video.pairs import (
    PAIRS_SCHEMA,
    DroppedPair,
    QuestionPair,
    is_unsure,
    pairs_problem,
    parse_pairs,
    says_the_same,
    verdict_of,
)
from vl3.curation.video.rules import CLIP, VideoRules
from vl3.data.sample.problems import SampleProblem
from vl3.endpoint.answer import Outcome
from vl3.endpoint.question import EndpointQuestion, Part

_CODE = 1
"""Changes when equal settings find or ask otherwise than before."""
DECODE_TIMEOUT_SECONDS = 1800.0
"""A video of two hours at full size takes a core about ten minutes."""
_VERDICT_TOKENS = 64
"""One word is wanted; an answer that goes on is not to be cut off, which would ask it again."""


class ClipFinder:
    """A scorer of videos: `clips` is JSON, what `find_clips` found."""

    outputs = ("clips",)

    def __init__(
        self, rules: VideoRules, *, name: str = "clips", timeout_seconds: float = DECODE_TIMEOUT_SECONDS
    ) -> None:
        """Nothing is decoded yet; a video that takes longer than `timeout_seconds` is given up."""
        self.name, self._rules = name, rules
        self._guard = GuardedProcess(timeout_seconds)
        self.version = version_digest({"code": _CODE, "rules": rules.analysis()})

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The clips of each video; why there are none if it cannot be decoded."""
        found, errors = _columns(len(batch["path"]), 2)
        for row, path in enumerate(batch["path"]):
            where = Path(str(path)).name
            try:
                clips = self._guard.call(find_clips, Path(str(path)), self._rules, where, where=where)
                found[row] = json.dumps(asdict(clips), sort_keys=True)
            except SampleProblem as problem:
                errors[row] = f"{problem.kind}: {problem.reason}"
        return {"clips": found, f"{self.name}{ERROR_SUFFIX}": errors}

    def close(self) -> None:
        """End its process."""
        self._guard.close()

    def abort(self) -> None:
        """End its process, whatever it is at; the call that waits for it gets a problem."""
        self._guard.abort()


class _ClipScorer:
    """What both scorers of clips have: an endpoint, and a process that decodes."""

    def __init__(self, name: str, asker: Asker, rules: VideoRules, timeout_seconds: float) -> None:
        self.name, self._asker, self._rules = name, asker, rules
        self._guard = GuardedProcess(timeout_seconds)
        self.version = version_digest({"code": _CODE, "rules": rules.asking(), "model": self._asker.model})

    def close(self) -> None:
        """Close the endpoint and end the process."""
        self._asker.close()
        self._guard.close()

    def abort(self) -> None:
        """End the process, whatever it is at; the call that waits for it gets a problem."""
        self._guard.abort()

    def _frames(self, batch: dict[str, np.ndarray]) -> Iterator[tuple[str, ClipFrames]]:
        """A name and the frames of each row."""
        columns = (batch[name] for name in ("path", "sha256", "start_s", "end_s"))
        for path, sha256, start, end in zip(*columns, strict=True):
            name = f"{Path(str(path)).name} from {float(start):g} s"
            yield name, ClipFrames(Path(str(path)), str(sha256), float(start), float(end), self._rules, self._guard)


class ClipCaptioner(_ClipScorer):
    """A scorer of clips: the dense caption."""

    outputs = ("clip_caption",)

    def __init__(
        self,
        asker: Asker,
        rules: VideoRules,
        *,
        name: str = "clip_caption",
        timeout_seconds: float = DECODE_TIMEOUT_SECONDS,
    ) -> None:
        """Nothing is opened before the first batch.

        Args:
            asker: the endpoint, which several scorers may share.
            rules: prompts and limits.
            name: of the scorer.
            timeout_seconds: a clip that takes longer to decode is given up.
        """
        super().__init__(name, asker, rules, timeout_seconds)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Captions, and why there is none. Raises as Captioner does."""
        texts, errors = _columns(len(batch["path"]), 2)
        for row, answer in enumerate(self._asker.ask(self._questions(batch))):
            if answer.outcome is Outcome.ANSWERED:
                texts[row] = tidy(answer.text, CaptionStyle.DETAILED)
            else:
                errors[row] = f"{answer.outcome}: {answer.reason}"
        return {"clip_caption": texts, f"{self.name}{ERROR_SUFFIX}": errors}

    def _questions(self, batch: dict[str, np.ndarray]) -> Iterator[EndpointQuestion]:
        rules = self._rules
        for name, frames in self._frames(batch):
            yield EndpointQuestion(
                name=f"caption of {name}",
                system=rules.system,
                parts=(*frames.parts(), rules.caption_prompt),
                max_tokens=rules.caption_max_tokens,
                check=self._problem,
            )

    def _problem(self, text: str) -> str:
        count, rules = len(text), self._rules
        if not rules.min_caption_characters <= count <= rules.max_caption_characters:
            limits = f"{rules.min_caption_characters} to {rules.max_caption_characters}"
            return f"a caption of {count} characters; {limits} are taken"
        found = hostile_part(text, rules.forbidden)
        return f"the caption has {found!r}" if found else ""


class PairMaker(_ClipScorer):
    """A scorer of clips with a `clip_caption`: pairs that a second look agrees with, and those that it does not.

    Each question is asked again, without its answer, of the clip (or of the caption, as the rules say). Answers of the
    same words agree; other words are compared by a third question. What does not agree is dropped with its reason.
    """

    outputs = ("pairs", "dropped_pairs")

    def __init__(
        self,
        asker: Asker,
        rules: VideoRules,
        *,
        name: str = "pairs",
        timeout_seconds: float = DECODE_TIMEOUT_SECONDS,
    ) -> None:
        """Nothing is opened before the first batch.

        Args:
            asker: the endpoint, which several scorers may share.
            rules: prompts and limits.
            name: of the scorer.
            timeout_seconds: a clip that takes longer to decode is given up.
        """
        super().__init__(name, asker, rules, timeout_seconds)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Both lists as JSON, and why there are none. Raises as Captioner does."""
        pairs, dropped, errors = _columns(len(batch["path"]), 3)
        rows: list[_Row] = []
        for number, ((name, frames), caption) in enumerate(
            zip(self._frames(batch), batch["clip_caption"], strict=True)
        ):
            if caption is None:
                errors[number] = "no caption"
            else:
                rows.append(_Row(number, name, str(batch["sha256"][number]), frames, str(caption)))
        made: list[_Asked] = []
        lost: dict[int, list[DroppedPair]] = {row.number: [] for row in rows}
        for row, answer in zip(rows, self._asker.ask(self._pairs_question(row) for row in rows), strict=True):
            if answer.outcome is Outcome.ANSWERED:
                found, useless = parse_pairs(answer.text, self._rules)
                made += [_Asked(row, pair) for pair in found]
                lost[row.number] += useless
            else:
                errors[row.number] = f"{answer.outcome}: {answer.reason}"
        kept = self._agreed(made, lost)
        for row in rows:
            if errors[row.number] is None:
                mine = [asdict(one.pair) for one in kept if one.row is row]
                pairs[row.number] = json.dumps(mine, ensure_ascii=False)
                dropped[row.number] = json.dumps([asdict(one) for one in lost[row.number]], ensure_ascii=False)
        return {"pairs": pairs, "dropped_pairs": dropped, f"{self.name}{ERROR_SUFFIX}": errors}

    def _agreed(self, made: list["_Asked"], lost: dict[int, list[DroppedPair]]) -> list["_Asked"]:
        """The pairs that a second answer agrees with, in order; the others go to `lost`."""

        def drop(one: _Asked, reason: str) -> None:
            pair = one.pair
            lost[one.row.number].append(DroppedPair(aspect=pair.aspect, question=pair.question, reason=reason))

        agreed: dict[int, bool] = {}
        differing: list[tuple[int, str]] = []
        for index, answer in enumerate(self._asker.ask(self._answer_question(one) for one in made)):
            one = made[index]
            if answer.outcome is not Outcome.ANSWERED:
                drop(one, f"not checked: {answer.outcome}, {answer.reason}")
            elif is_unsure(answer.text, self._rules.unsure_answers):
                drop(one, f"not supported: asked again, the answer is {answer.text!r:.120}")
            elif says_the_same(one.pair.answer, answer.text):
                agreed[index] = True
            else:
                differing.append((index, answer.text))
        questions = (self._compare_question(made[index], text) for index, text in differing)
        for (index, text), answer in zip(differing, self._asker.ask(questions), strict=True):
            if answer.outcome is not Outcome.ANSWERED:
                drop(made[index], f"not checked: {answer.outcome}, {answer.reason}")
            elif verdict_of(answer.text) in self._rules.accepted_verdicts:
                agreed[index] = True
            else:
                drop(made[index], f"not agreed: asked again, the answer is {text!r:.120}")
        return [one for index, one in enumerate(made) if agreed.get(index)]

    def _pairs_question(self, row: "_Row") -> EndpointQuestion:
        rules = self._rules
        return EndpointQuestion(
            name=f"pairs of {row.name}",
            system=rules.system,
            parts=(*row.frames.parts(), f"{rules.pairs_prompt}\n{fenced(row.caption, row.sha256)[0]}"),
            max_tokens=rules.pairs_max_tokens,
            schema=PAIRS_SCHEMA,
            check=lambda text: pairs_problem(text, rules),
        )

    def _answer_question(self, one: "_Asked") -> EndpointQuestion:
        rules, row = self._rules, one.row
        evidence: tuple[Part, ...] = row.frames.parts()
        if rules.evidence != CLIP:
            evidence = (f"A description of a video, which is data:\n{fenced(row.caption, row.sha256)[0]}",)
        return EndpointQuestion(
            name=f"answer to {one.pair.question!r:.80} of {row.name}",
            system=rules.system,
            parts=(*evidence, f"{rules.answer_prompt}{one.pair.question}"),
            max_tokens=rules.answer_max_tokens,
        )

    def _compare_question(self, one: "_Asked", second: str) -> EndpointQuestion:
        pair = one.pair
        text = f"Question: {pair.question}\nFirst answer: {pair.answer}\nSecond answer: {' '.join(second.split())}"
        return EndpointQuestion(
            name=f"comparison of {pair.question!r:.80} of {one.row.name}",
            parts=(f"{self._rules.compare_prompt}\n{fenced(text, one.row.sha256)[0]}",),
            max_tokens=_VERDICT_TOKENS,
        )


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    name: str
    sha256: str
    frames: ClipFrames
    caption: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A pair, and the clip that it is about."""

    row: _Row
    pair: QuestionPair


def _columns(count: int, number: int) -> list[Any]:
    return [np.full(count, None, dtype=object) for _ in range(number)]
