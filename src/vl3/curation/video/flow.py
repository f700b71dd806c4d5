"""The video synthesis on one machine: videos in, samples out, everything that was left out named and counted.

    clips/9f/9f2c..-VERSION.json     the clips of a video, by its digest
    asked/9f/9f2c..-VERSION.json     captions and pairs of its clips, once none can be missing only for now

Each answer is in the store of answers besides. So a run that is killed, or ends at its spend limit, goes on where it
was: it decodes no finished video again and pays nothing twice. Where the pods of a cluster share no disk, a lost pod
costs the answers to the videos that it was at.
"""

import json
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vl3.config.endpoint import EndpointConfig
from vl3.curation.captions.asking import Asker
from vl3.curation.scorer import ERROR_SUFFIX
from vl3.curation.video.pairs import QuestionPair
from vl3.curation.video.records import clip_lines
from vl3.curation.video.rules import Aspect, VideoRules
from vl3.curation.video.scorers import DECODE_TIMEOUT_SECONDS, ClipCaptioner, ClipFinder, PairMaker
from vl3.curation.video.source import local_video
from vl3.data.derive.output import MadeCard, MadeFiles, made_files
from vl3.data.sample.media import file_media, media_digest
from vl3.data.sample.problems import ProblemKind, SampleProblem, list_refusals
from vl3.data.sample.records import parse_record
from vl3.endpoint.answer import Outcome
from vl3.errors import DataError
from vl3.store.objects import open_store
from vl3.system.documents import parse_object
from vl3.system.files import storage_errors

_AHEAD = 2
_MAY_PASS = (Outcome.FAILED, Outcome.STALLED, Outcome.REJECTED, Outcome.NO_PICTURE)
"""Outcomes that the next run may mend: a video with one is asked about again."""
Progress = Callable[[int, int], None]
"""Called with the videos that are done and their number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesisSetup:
    """What a synthesis is made with."""

    rules: VideoRules
    captioner: EndpointConfig
    """Writes the dense captions (Qwen2-VL-72B in the paper)."""
    asker: EndpointConfig
    """Writes the pairs and answers their questions again; may be the same."""
    answers: Path
    """File of what endpoints answered; another run with it pays nothing again."""
    work_uri: str
    """Where finished videos are kept; another run with it goes on."""
    source: str = "video-synthesis"
    """Name of the dataset."""
    workers: int = 2
    """Videos at once, each with a process that decodes."""
    max_bad_fraction: float = 0.05
    """Share of the videos that may be undecodable; above it something else is wrong, and nothing is written."""
    timeout_seconds: float = DECODE_TIMEOUT_SECONDS
    copies: Path | None = None
    """Folder that gets a copy of each video with samples, under its own name; None for none."""


@dataclass(kw_only=True, slots=True)
class _VideoResult:
    """What became of one video."""

    video: str
    sha256: str = ""
    """Digest of the file; empty if it cannot be read."""
    same_as: str = ""
    """An earlier video with the same content, of which alone samples are made; empty if there is none."""
    error: str = ""
    """Why it has no clips that were asked about; empty if it was decoded."""
    shots: int = 0
    clips: int = 0
    dropped_clips: dict[str, int] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    captions: int = 0
    pairs: dict[str, int] = field(default_factory=dict)
    """Kept, by aspect."""
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    """Place, what it is and why: captions and pairs that were not kept."""


def synthesise(
    videos: Sequence[str], data_uri: str, out: Path, setup: SynthesisSetup, progress: Progress = lambda *_: None
) -> MadeCard:
    """Make samples of videos.

    Args:
        videos: paths relative to the data.
        data_uri: the data folder or bucket, out of which no path leads.
        out: annotation file to write, with its card and its list of what was left out (see `data.derive.output`).
        setup: rules, endpoints and limits.
        progress: told how far it is.

    Raises:
        ConfigError: an endpoint refuses its key or model, or its spend limit is reached; a later run goes on.
        ClusterError: an endpoint is gone; a later run goes on.
        DataError: too many videos cannot be decoded, or there is no sample.
        StorageError: a file cannot be written.
    """
    settings = {"rules": asdict(setup.rules), "captioner": setup.captioner.model, "asker": setup.asker.model}
    card = MadeCard(maker="video-synthesis", sources=[], settings=settings)
    funnel, first_of = _Funnel(), dict[str, str]()
    with made_files(out, card) as made, _Synthesis(data_uri, setup) as synthesis:
        for result in synthesis.run(videos):
            if result.sha256 and (first := first_of.setdefault(result.sha256, result.video)) != result.video:
                result = _equal(result, first, setup.copies)
            funnel.add(result)
            _require_enough(funnel.bad, len(videos), setup.max_bad_fraction)
            _write(result, made)
            progress(card.lines, len(videos))
        card.settings |= {"funnel": funnel.counts(), "spent_usd": synthesis.spent_usd}
        if not card.samples:
            raise DataError(f"no sample can be made of {len(videos)} videos: {card.settings['funnel']}.")
    return card


class _Synthesis:
    """The scorers of a run, and a few videos at once."""

    def __init__(self, data_uri: str, setup: SynthesisSetup) -> None:
        self._data_uri, self._setup = data_uri, setup
        self._kept = open_store(setup.work_uri)
        self._writer = Asker(setup.captioner, setup.answers)
        # One endpoint has one number of questions in flight, whoever asks them.
        asker = self._writer if setup.asker == setup.captioner else Asker(setup.asker, setup.answers)
        self._captioner = ClipCaptioner(self._writer, setup.rules, timeout_seconds=setup.timeout_seconds)
        self._pair_maker = PairMaker(asker, setup.rules, timeout_seconds=setup.timeout_seconds)
        self._finders = [ClipFinder(setup.rules, timeout_seconds=setup.timeout_seconds) for _ in range(setup.workers)]
        self._idle = deque(self._finders)  # one for each thread that runs
        self._threads = ThreadPoolExecutor(setup.workers, thread_name_prefix="video")
        self._is_stopped = False

    def __enter__(self) -> "_Synthesis":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        scorers: list[ClipFinder | ClipCaptioner | PairMaker] = [*self._finders, self._captioner, self._pair_maker]
        if kind is not None:  # no thread waits for a decoder or an answer that nobody wants any more
            self._is_stopped = True
            for one in scorers:
                one.abort()
            self._captioner.close()
            self._pair_maker.close()
        self._threads.shutdown(cancel_futures=True)
        for one in scorers:
            one.close()

    @property
    def spent_usd(self) -> float:
        """What all runs with this folder have spent."""
        return self._writer.spent_usd

    def run(self, videos: Sequence[str]) -> Iterator[_VideoResult]:
        """What becomes of each video, in order."""
        waiting: deque[Future[_VideoResult]] = deque()
        for video in videos:
            waiting.append(self._threads.submit(self._make, video))
            if len(waiting) >= _AHEAD * self._setup.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _make(self, video: str) -> _VideoResult:
        result = _VideoResult(video=video)
        try:
            with local_video(self._data_uri, video) as path:
                result.sha256 = media_digest(file_media(path))
                self._make_of(path, result.sha256, result)
        except SampleProblem as problem:
            result.error = f"{problem.kind}: {problem.reason}"
        except OSError as error:
            result.error = f"{ProblemKind.MISSING_FILE}: the file cannot be read ({error.strerror})"
        return result

    def _make_of(self, path: Path, sha256: str, result: _VideoResult) -> None:
        found = self._find(path, sha256, result)
        if not found or not found["clips"] or self._is_stopped:
            return
        self._add_samples(sha256, found["clips"], self._asked(path, sha256, found["clips"]), result)
        if result.lines and self._setup.copies is not None:
            _copy(path, self._setup.copies / result.video)

    def _find(self, path: Path, sha256: str, result: _VideoResult) -> dict[str, Any]:
        """The clips of a video, which are kept once they are found; empty if it cannot be decoded."""
        finder = self._idle.popleft()
        try:
            key = f"clips/{sha256[:2]}/{sha256}-{finder.version}.json"
            found = self._read(key)
            if not found:
                scored = finder({"path": np.array([str(path)], dtype=object)})
                error = scored[f"{finder.name}{ERROR_SUFFIX}"][0]
                if error is not None:  # not kept: a machine that was too busy is no property of the video
                    result.error = str(error)
                    return {}
                found = json.loads(scored["clips"][0])
                self._write(key, found)
        finally:
            self._idle.append(finder)
        result.shots, result.clips, result.dropped_clips = found["shots"], len(found["clips"]), found["dropped"]
        return found

    def _asked(self, path: Path, sha256: str, clips: Sequence[Mapping[str, float]]) -> dict[str, list[Any]]:
        """Captions and pairs of the clips of a video, and why there are none, by column."""
        versions = [one.version for one in (self._finders[0], self._captioner, self._pair_maker)]
        key = f"asked/{sha256[:2]}/{sha256}-{'-'.join(versions)}.json"
        if kept := self._read(key):
            return kept
        batch = {
            "path": _column([str(path)] * len(clips)),
            "sha256": _column([sha256] * len(clips)),
            "start_s": np.array([clip["start_seconds"] for clip in clips]),
            "end_s": np.array([clip["end_seconds"] for clip in clips]),
        }
        made = self._captioner(batch)
        made |= self._pair_maker(batch | made)
        answers = {name: column.tolist() for name, column in made.items()}
        if not _may_change(answers):
            self._write(key, answers)
        return answers

    def _add_samples(
        self, sha256: str, clips: Sequence[Mapping[str, float]], answers: Mapping[str, list[Any]], result: _VideoResult
    ) -> None:
        for row, clip in enumerate(clips):
            where = f"{result.video} from {clip['start_seconds']:g} s"
            caption, error = answers["clip_caption"][row], answers[f"{self._captioner.name}{ERROR_SUFFIX}"][row]
            if caption is None:
                result.left_out.append((where, "caption", str(error)))
                continue
            result.captions += 1
            pairs = self._pairs(answers, row, where, result)
            span = (clip["start_seconds"], clip["end_seconds"])
            result.lines += clip_lines(result.video, sha256, span, caption, pairs, self._setup.source)

    def _pairs(
        self, answers: Mapping[str, list[Any]], row: int, where: str, result: _VideoResult
    ) -> list[QuestionPair]:
        error = answers[f"{self._pair_maker.name}{ERROR_SUFFIX}"][row]
        if error is not None:
            result.left_out.append((where, "pairs", str(error)))
            return []
        for lost in json.loads(answers["dropped_pairs"][row]):
            result.left_out.append((where, "pair", f"{lost['reason']} ({lost['aspect']}: {lost['question']})"))
        pairs = [
            QuestionPair(aspect=Aspect(one["aspect"]), question=one["question"], answer=one["answer"])
            for one in json.loads(answers["pairs"][row])
        ]
        for pair in pairs:
            result.pairs[pair.aspect] = result.pairs.get(pair.aspect, 0) + 1
        return pairs

    def _read(self, key: str) -> dict[str, Any]:
        """What is kept; empty if there is nothing, or if it is damaged and has to be made again."""
        data = self._kept.read(key)
        try:
            return parse_object(data) if data is not None else {}
        except ValueError:
            return {}

    def _write(self, key: str, found: Mapping[str, Any]) -> None:
        self._kept.write(key, [json.dumps(found, ensure_ascii=False, sort_keys=True).encode()])


def _equal(result: _VideoResult, first: str, copies: Path | None) -> _VideoResult:
    """The result of a video whose content came before: its samples would have the same ids."""
    if copies is not None:
        (copies / result.video).unlink(missing_ok=True)
    return _VideoResult(video=result.video, sha256=result.sha256, same_as=first)


def _may_change(answers: Mapping[str, list[Any]]) -> bool:
    """Whether something is missing that another run may get: a caption, pairs, or the check of a pair."""
    reasons = [str(one) for name, column in answers.items() if name.endswith(ERROR_SUFFIX) for one in column if one]
    reasons += [lost["reason"] for one in answers["dropped_pairs"] if one for lost in json.loads(one)]
    return any(reason.removeprefix("not checked: ").startswith(tuple(_MAY_PASS)) for reason in reasons)


def _copy(video: Path, target: Path) -> None:
    with storage_errors(target, needed_bytes=video.stat().st_size):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(video, target)


def _write(result: _VideoResult, made: MadeFiles) -> None:
    made.card.lines += 1
    if result.error:
        kind, _, reason = result.error.partition(": ")
        made.refuse(SampleProblem(ProblemKind(kind), reason, result.video))
    if result.same_as:
        made.note(result.video, "video", f"the same file as {result.same_as}")
    for where, kind, reason in result.left_out:
        made.note(where, kind, reason)
    for line in result.lines:
        raw = json.dumps(line, ensure_ascii=False).encode()
        try:
            parse_record(raw, where=result.video, split="train")
        except SampleProblem as problem:
            made.refuse(problem)
        else:
            made.add(raw)


class _Funnel:
    """How many of what came in and went out, and why the others did not."""

    def __init__(self) -> None:
        self.bad: list[tuple[str, str]] = []
        """Videos that cannot be used, each with its reason."""
        self._totals: Counter[str] = Counter()
        self._clips: Counter[str] = Counter()
        self._pairs: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def add(self, result: _VideoResult) -> None:
        """Count one video."""
        if result.error:
            self.bad.append((result.video, result.error))
        self._totals.update(
            videos=1, equal=bool(result.same_as), shots=result.shots, clips=result.clips, captions=result.captions
        )
        self._clips.update(result.dropped_clips)
        self._pairs.update(result.pairs)
        self._left_out.update(f"{kind}: {reason.partition(':')[0]}" for _, kind, reason in result.left_out)

    def counts(self) -> dict[str, Any]:
        """All counts, in the order of the work."""
        return {
            "videos": self._totals["videos"],
            "equal_videos": self._totals["equal"],
            "undecodable_videos": len(self.bad),
            "shots": self._totals["shots"],
            "dropped_parts_of_shots": dict(sorted(self._clips.items())),
            "clips": self._totals["clips"],
            "captions": self._totals["captions"],
            "pairs": dict(sorted(self._pairs.items())),
            "left_out": dict(sorted(self._left_out.items())),
        }


def _require_enough(bad: Sequence[tuple[str, str]], count: int, max_bad_fraction: float) -> None:
    """Raise DataError as soon as more videos are bad than may be of all."""
    if len(bad) > max_bad_fraction * count:
        shown = "\n".join(list_refusals(bad)[:10])
        raise DataError(
            f"{len(bad)} of {count} videos cannot be used, more than max_bad_fraction={max_bad_fraction:g}, so "
            f"nothing is written. What was found and answered is kept. Mend or leave out:\n{shown}"
        )


def _column(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)
