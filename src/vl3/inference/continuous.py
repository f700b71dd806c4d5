"""Answers to prompts of unequal length: when one ends, the next prompt takes its place, and the others go on.

Which prompts are run together depends on their order, lengths and answers alone, never on time or on how fast they
were prepared: so equal prompts in equal order give equal answers, bit for bit, on the same kind of device.

Shapes: B prompts of a pass · S rows in use · T packed text+vision tokens · D text dim.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vl3.errors import DataError
from vl3.inference.batch import BATCH_TOKENS, Prompt
from vl3.inference.features import FeatureCache, no_features, used_features
from vl3.inference.sampling import GREEDY, Chooser
from vl3.inference.slots import Beginning, SlotCache
from vl3.models.attention import Segments
from vl3.models.model import VideoLlama3

CACHE_TOKENS = 131072
"""Places of all rows together: 3.7 GB of keys and values at 2B, 7.5 GB at 7B, in bf16."""
BEGINNING_TOKENS = 65536
"""Tokens of media of which keys and values are kept for the next question about them: 1.8 GB at 2B, in bf16."""
_REFILL_SHARE = 4
"""A pass over new prompts stops the others for a while, so it waits until a quarter of the rows is free."""
_WORTH = 4
"""How many times as long as the rest of a prompt its media must be, for the rest to be read token by token."""
_PLACES = 64
"""Rows have multiples of so many places, so that a slightly longer prompt needs no new ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A prompt to be answered."""

    number: int
    """What its answer is called."""
    prompt: Prompt
    """The tokens and media."""
    media_key: str = ""
    """Equal keys have equal media, which are encoded once; empty shares with nobody."""
    is_shared: bool = False
    """Whether other prompts about the same media may follow: then what the model made of them is kept too."""
    max_new_tokens: int
    """Maximum tokens of the answer."""

    @property
    def longest_tokens(self) -> int:
        """Tokens of prompt and answer together, at most."""
        return len(self.prompt.ids_T) + self.max_new_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """The answer to a prompt."""

    number: int
    """That of the Ask."""
    tokens: tuple[int, ...]
    """Without the token that ended it."""
    seconds: float
    """Its share of the time of the passes that it was in, by tokens in a packed pass and evenly in a step."""


@dataclass(kw_only=True, slots=True)
class _Answer:
    """An answer on its way; its prompt and media are in the cache, and not needed any more."""

    number: int
    longest_tokens: int
    max_new_tokens: int
    next_token: int
    unread: list[int] = field(default_factory=list)
    """Tokens of the prompt that follow `next_token`, the last one first: a row that began like another reads the rest
    of its prompt token by token."""
    tokens: list[int] = field(default_factory=list)
    seconds: float = 0.0


class Generation:
    """Prompts in, answers out, in rows that never wait for the longest answer."""

    def __init__(
        self,
        model: VideoLlama3,
        stops: Collection[int],
        *,
        choose: Chooser | None = None,
        max_rows: int = 64,
        features: FeatureCache | None = None,
    ) -> None:
        """Begin without prompts.

        Args:
            model: the model, in evaluation mode.
            stops: tokens that end an answer.
            choose: chooses the next tokens; None takes the most probable one.
            max_rows: maximum number of answers that are generated at the same time.
            features: vision tokens that are kept beyond this generation; None keeps them within it.
        """
        self._model, self._stops = model, frozenset(stops)
        self._choose = choose or Chooser(GREEDY)
        self._max_rows = max_rows
        self._features = features or FeatureCache(model)
        self._cache = SlotCache(model.device)
        self._rows: dict[int, _Answer] = {}
        self._beginnings: OrderedDict[bytes, Beginning] = OrderedDict()
        self.num_passes = 0
        """Packed passes and steps so far."""
        self.num_continued = 0
        """Prompts so far that began with a copy of another one's beginning."""

    @torch.inference_mode()
    def run(self, asks: Iterable[Ask]) -> Iterator[Generated]:
        """The answers as they end. Longest prompts first need the least memory and leave no long one for the end.

        Raises:
            DataError: a prompt has more `<image>` tokens than its media have.
        """
        waiting = iter(asks)
        following = next(waiting, None)
        while following is not None or self._rows:
            if following is not None and self._may_refill(following):
                admitted, following = self._take(following, waiting)
                yield from self._prefill(admitted)
            else:
                if following is None:
                    self._close_ranks()
                yield from self._step()

    def _may_refill(self, following: Ask) -> bool:
        rows = self._wanted_rows(following)
        return not self._rows or rows - len(self._rows) >= max(1, rows // _REFILL_SHARE)

    def _wanted_rows(self, following: Ask) -> int:
        """Rows that fit, all as long as the longest of those in use and the next one.

        131072 places: 64 rows of 2048 places each, but 7 rows if one has 16384 and its answer.
        """
        longest = max([following.longest_tokens, *(answer.longest_tokens for answer in self._rows.values())])
        return max(1, min(self._max_rows, CACHE_TOKENS // _rounded(longest)))

    def _take(self, first: Ask, waiting: Iterator[Ask]) -> tuple[list[Ask], Ask | None]:
        """The prompts of the next packed pass, at least one, and the one after them."""
        taken: list[Ask] = []
        following: Ask | None = first
        tokens = 0
        begun = set(self._beginnings)
        while following is not None:
            _check_media(following, self._model.config.image_token_id)
            longest = [one.longest_tokens for one in (*taken, following)]
            longest += [answer.longest_tokens for answer in self._rows.values()]
            room = max(1, min(self._max_rows, CACHE_TOKENS // _rounded(max(longest))))
            beginning = self._beginning_of(following)
            tokens += 0 if beginning in begun else len(following.prompt.ids_T)
            if taken and (len(taken) + len(self._rows) >= room or tokens > BATCH_TOKENS):
                break
            taken.append(following)
            begun |= {beginning} - {b""}
            following = next(waiting, None)
        return taken, following

    def _reserve(self, admitted: list[Ask]) -> list[int]:
        """Free rows for new prompts, with room for their answers."""
        cache = self._cache
        needed = len(self._rows) + len(admitted)
        longest = [answer.longest_tokens for answer in self._rows.values()]
        places = _rounded(max([*longest, *(ask.longest_tokens for ask in admitted)]))
        room = max(needed, min(self._max_rows, CACHE_TOKENS // places))
        has_room = needed <= len(cache.lengths) and places <= cache.capacity_tokens
        if not has_room or len(cache.lengths) * 2 <= room:  # fewer rows than now fit, since prompts became shorter
            self._compact()
            cache.reserve(room, places)
        return cache.free_rows[: len(admitted)]

    def _prefill(self, admitted: list[Ask]) -> Iterator[Generated]:
        """Run new prompts as one packed row; those that begin like another one, media and all, begin with its copy."""
        rows = dict(zip(range(len(admitted)), self._reserve(admitted), strict=True))
        known, first = set(self._beginnings), list[int]()
        for number, ask in enumerate(admitted):
            beginning = self._beginning_of(ask)
            if beginning not in known:
                first.append(number)
            known |= {beginning} - {b""}
        if first:
            self._run_packed([admitted[number] for number in first], [rows[number] for number in first])
        others = sorted(set(rows) - set(first))
        dropped = [number for number in others if not self._continue(admitted[number], rows[number])]
        if dropped:
            self._run_packed([admitted[number] for number in dropped], [rows[number] for number in dropped])
        yield from self._harvest([rows[number] for number in (*first, *dropped)])

    def _continue(self, ask: Ask, row: int) -> bool:
        """Begin a row with what the model made of the same media before, if that is kept; the rest is read in steps."""
        key = self._beginning_of(ask)
        if key not in self._beginnings:
            return False
        self._beginnings.move_to_end(key)
        self._cache.restore(row, self._beginnings[key])
        self.num_continued += 1
        rest = ask.prompt.ids_T[self._beginnings[key].length :].tolist()[::-1]
        self._rows[row] = _Answer(
            number=ask.number,
            longest_tokens=ask.longest_tokens,
            max_new_tokens=ask.max_new_tokens,
            next_token=rest.pop(),
            unread=rest,
        )
        return True

    def _beginning_of(self, ask: Ask) -> bytes:
        """Digest of the media and of the tokens up to the last of them; empty if nobody shares them.

        Empty, too, where that would save little: a rest of 20 tokens takes 20 steps, so the media have 80 at least.
        """
        ids, end = ask.prompt.ids_T, _media_end(ask, self._model.config.image_token_id)
        if not ask.is_shared or not ask.media_key or not 0 < len(ids) - end <= end // _WORTH:
            return b""
        return hashlib.sha256(ask.media_key.encode() + ids[:end].tobytes()).digest()

    def _keep_beginning(self, ask: Ask, row: int) -> None:
        """Keep what the model made of media that others ask about; of few media, because these follow at once."""
        key = self._beginning_of(ask)
        if not key or key in self._beginnings:
            return
        self._beginnings[key] = self._cache.begin_of(row, _media_end(ask, self._model.config.image_token_id))
        while len(self._beginnings) > 1 and sum(one.length for one in self._beginnings.values()) > BEGINNING_TOKENS:
            self._beginnings.popitem(last=False)

    def _run_packed(self, admitted: list[Ask], rows: list[int]) -> None:
        began, lengths = time.monotonic(), [len(ask.prompt.ids_T) for ask in admitted]
        self._cache.begin_packed(rows, lengths)
        hidden_TD = self._model.decode(
            self._embed(admitted),
            torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])),
            segments=Segments.of_similar(lengths, self._model.device),
            cache=self._cache,
        )
        last_BD = hidden_TD[torch.tensor(lengths).cumsum(0).to(hidden_TD.device) - 1]
        chosen = self._choose(self._model.logits(last_BD), [ask.number for ask in admitted])
        seconds = (time.monotonic() - began) / sum(lengths)
        self.num_passes += 1
        for row, ask, token in zip(rows, admitted, chosen, strict=True):
            self._rows[row] = _Answer(
                number=ask.number,
                longest_tokens=ask.longest_tokens,
                max_new_tokens=ask.max_new_tokens,
                next_token=token,
                seconds=seconds * len(ask.prompt.ids_T),
            )
            self._keep_beginning(ask, row)

    def _step(self) -> Iterator[Generated]:
        """Add one token to each row."""
        began, cache = time.monotonic(), self._cache
        cache.begin_step()
        used = len(cache.places_S1)
        ids = [self._rows[row].next_token if row in self._rows else 0 for row in range(used)]
        inputs_S1D = self._model.language_model.embed_tokens(torch.tensor(ids, device=self._model.device))[:, None]
        hidden_S1D = self._model.decode(inputs_S1D, cache.places_S1, cache=cache, key_mask_BQL=cache.key_mask_S1L)
        cache.advance()
        rows = sorted(self._rows)
        last_SD = hidden_S1D[:, -1] if len(rows) == used else hidden_S1D[:, -1][torch.tensor(rows)]
        chosen = self._choose(self._model.logits(last_SD), [self._rows[row].number for row in rows])
        seconds = (time.monotonic() - began) / len(rows)
        self.num_passes += 1
        answering = []
        for row, token in zip(rows, chosen, strict=True):
            answer = self._rows[row]
            answer.seconds += seconds
            if answer.unread:
                answer.next_token = answer.unread.pop()
            else:
                answer.next_token = token
                answering.append(row)
        yield from self._harvest(answering)

    def _harvest(self, rows: list[int]) -> Iterator[Generated]:
        """Take the token that was chosen for each of these rows, and what has ended."""
        for row in rows:
            answer = self._rows[row]
            is_over = answer.next_token in self._stops
            if not is_over:
                answer.tokens.append(answer.next_token)
                is_over = len(answer.tokens) >= answer.max_new_tokens
            if is_over:
                del self._rows[row]
                self._cache.release(row)
                yield Generated(number=answer.number, tokens=tuple(answer.tokens), seconds=answer.seconds)

    def _close_ranks(self) -> None:
        """Move the last rows forward if a quarter of those up to the last one is free: a step computes them all."""
        used = max(self._rows, default=-1) + 1
        if used - len(self._rows) >= max(1, used // _REFILL_SHARE):
            self._compact()

    def _compact(self) -> None:
        """Move the last rows into free ones.

        Rows 0, 3 and 4 of five are in use: row 4 moves to 1 and row 3 to 2, and a step has three rows instead of five.
        """
        free = [row for row in range(len(self._rows)) if row not in self._rows]
        last = sorted((row for row in self._rows if row >= len(self._rows)), reverse=True)
        moves = dict(zip(last, free, strict=True))
        self._cache.move(moves)
        for source, target in moves.items():
            self._rows[target] = self._rows.pop(source)

    def _embed(self, asks: list[Ask]) -> Tensor:
        """Decoder inputs (T, D); the encoder runs over the media that nobody has asked about before."""
        media = {key: ask.prompt.media for ask in asks if (key := _key_of(ask))}
        features = self._features.features(media)
        parts = [
            used_features(features[key], ask.prompt.ids_T, self._model.config.image_token_id)
            for ask in asks
            if (key := _key_of(ask))
        ]
        features_KD = torch.cat(parts) if parts else no_features(self._model)
        return self._model.place(np.concatenate([ask.prompt.ids_T for ask in asks]), features_KD)


def _key_of(ask: Ask) -> str:
    """Key of the media; a key of its own where it shares none, and empty without media."""
    if not len(ask.prompt.media.grid_thw_I3):
        return ""
    return ask.media_key or f"#{ask.number}"


def _media_end(ask: Ask, image_token_id: int) -> int:
    """Number of tokens up to the last one of the media."""
    places = np.flatnonzero(ask.prompt.ids_T == image_token_id)
    return int(places[-1]) + 1 if len(places) else 0


def _check_media(ask: Ask, image_token_id: int) -> None:
    media = ask.prompt.media
    places, kept = int((ask.prompt.ids_T == image_token_id).sum()), int(media.keep_M.sum())
    kept = kept if len(media.grid_thw_I3) else 0
    if places > kept:
        raise DataError(
            f"the text has {places} <image> tokens but there are {kept} kept vision tokens. Each would get the wrong "
            "part of the picture. Expand <image> with the same grid, merge size and mask."
        )


def _rounded(tokens: int) -> int:
    return -(-tokens // _PLACES) * _PLACES
