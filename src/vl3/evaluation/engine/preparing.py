"""Prepares the next requests in threads while the model generates; the media of many questions are decoded once.

A decoder may hang, in a library that no thread can be called back from. Then its request fails by name, the threads are
replaced, and the process ends without waiting for them (os._exit).
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from vl3.config.codec import digest, to_dict
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.prepare import (
    PreparedMedia,
    PreparedSample,
    PrepareSettings,
    decode_media,
    place_media,
    prepare_media,
)
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import DataError
from vl3.evaluation.engine.request import Loaded, Request, media_key

MEDIA_BYTES = 1 << 30
"""Decoded media that are kept, for other questions and other models."""
AHEAD_BYTES = 2 << 30
"""Decoded media of prepared requests that wait for the model; beyond it no further request is prepared."""
AHEAD_REQUESTS = 128
"""Requests that are prepared ahead at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A request that the model can be given."""

    request: Request
    loaded: Loaded
    media: PreparedMedia
    media_key: str
    sample: PreparedSample
    """Tokens and media; the prompt ends at `answer_start`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unprepared:
    """A request that failed before the model saw it."""

    request: Request
    failure: str


class MediaCache:
    """The media that were decoded last, by key. Who asks while another thread decodes them waits for it."""

    def __init__(self, limit_bytes: int = MEDIA_BYTES) -> None:
        """Keep nothing yet."""
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[PreparedMedia]] = OrderedDict()
        self.num_decoded = 0
        """How often media were decoded."""

    def get(self, key: str, loaded: Loaded, settings: PrepareSettings) -> PreparedMedia:
        """The media of a key.

        Raises:
            DataError: they cannot be decoded; everybody who asks for them is told.
        """
        with self._lock:
            known = self._kept.get(key)
            mine: Future[PreparedMedia] = Future()
            if known is None:
                self._kept[key] = mine
                self.num_decoded += 1
            else:
                self._kept.move_to_end(key)
        if known is not None:
            return known.result()
        try:
            decoded = decode_media(
                loaded.record,
                loaded.media,
                settings.data,
                [settings.merges],
                settings.patch_size,
                picture=settings.picture,
            )
            mine.set_result(prepare_media(decoded, settings, keep_mask))
        except BaseException as error:
            mine.set_exception(error)
            raise
        self._drop()
        return mine.result()

    def _drop(self) -> None:
        """Forget the media that nobody asked for the longest."""
        with self._lock:
            done = {key: size_bytes(one.result()) for key, one in self._kept.items() if _is_good(one)}
            size = sum(done.values())
            for key, media_bytes in done.items():
                if size <= self._limit_bytes or len(self._kept) == 1:
                    return
                del self._kept[key]
                size -= media_bytes


class Preparing:
    """Prepares requests in their order, a few ahead of the one that is taken."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        settings: PrepareSettings,
        *,
        cache: MediaCache,
        threads: int,
        timeout_seconds: float,
    ) -> None:
        """Start no thread yet.

        Args:
            tokenizer: the model's tokenizer.
            settings: how media become tokens.
            cache: keeps decoded media.
            threads: number of requests that are prepared at the same time.
            timeout_seconds: how long the model waits for one request before it fails.
        """
        self._tokenizer, self._settings, self._cache = tokenizer, settings, cache
        self._threads, self._timeout_seconds = threads, timeout_seconds
        self._preparation = settings_digest(settings)

    def prepare(self, request: Request) -> Prepared | Unprepared:
        """Read, decode and tokenise one request."""
        try:
            loaded = request.load()
            key = media_key(loaded, self._preparation)
            media = self._cache.get(key, loaded, self._settings) if key else _without_media(loaded, self._settings)
            sample = place_media(loaded.record, media, self._tokenizer, self._settings.data)
        except DataError as error:
            return Unprepared(request=request, failure=str(error))
        except OSError as error:
            return Unprepared(request=request, failure=f"{request.name}: its media cannot be read ({error.strerror}).")
        except MemoryError:
            return Unprepared(request=request, failure=f"{request.name}: its media need more memory than there is.")
        return Prepared(request=request, loaded=loaded, media=media, media_key=key, sample=sample)

    def each(self, requests: Sequence[Request]) -> Iterator[Prepared | Unprepared]:
        """The requests in their order, prepared."""
        pool, left = self._pool(), deque(requests)
        ahead: deque[tuple[Request, Future[Prepared | Unprepared]]] = deque()
        hung: set[str] = set()
        try:
            while left or ahead:
                while left and len(ahead) < AHEAD_REQUESTS and _waiting_bytes(ahead) < AHEAD_BYTES:
                    ahead.append((left[0], pool.submit(self.prepare, left.popleft())))
                request, future = ahead.popleft()
                if request.group and request.group in hung:
                    yield self._too_slow(request)
                    continue
                try:
                    yield future.result(self._timeout_seconds)
                except TimeoutError:
                    hung.add(request.group)
                    pool.shutdown(wait=False, cancel_futures=True)
                    pool = self._pool()  # the former one's threads may all hang
                    kept = {one.name: was for one, was in ahead if was.done() and not was.cancelled()}
                    ahead = deque((one, kept.get(one.name) or pool.submit(self.prepare, one)) for one, _ in ahead)
                    yield self._too_slow(request)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="prepare")

    def _too_slow(self, request: Request) -> Unprepared:
        reason = f"its media were not decoded within {self._timeout_seconds:g} s, so the decoder has hung"
        return Unprepared(request=request, failure=f"{request.name}: {reason}.")


def settings_digest(settings: PrepareSettings) -> str:
    """Digest of what decides how media are prepared."""
    names = ("image_merge_size", "video_merge_size", "difffp", "patch_size")
    picture = None if settings.picture is None else to_dict(settings.picture)
    return digest(
        {name: getattr(settings, name) for name in names} | {"data": to_dict(settings.data), "picture": picture}
    )


def size_bytes(media: PreparedMedia) -> int:
    """Memory of the pixels."""
    return media.pixels_PC.nbytes


def _without_media(loaded: Loaded, settings: PrepareSettings) -> PreparedMedia:
    return prepare_media(decode_media(loaded.record, {}, settings.data, [(1, 1)]), settings, keep_mask)


def _waiting_bytes(ahead: deque[tuple[Request, "Future[Prepared | Unprepared]"]]) -> int:
    """Pixels of what is prepared and not taken yet; media that several share count once."""
    sizes = {}
    for _, future in ahead:
        if _is_good(future) and isinstance(found := future.result(), Prepared):
            sizes[id(found.media)] = size_bytes(found.media)
    return sum(sizes.values())


def _is_good(future: "Future[Any]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
