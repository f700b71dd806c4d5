"""Draws pages from a corpus (`vl3 data make pages`): pictures, annotations and a card, in a data folder.

<out>/annotations/train.jsonl.gz    one line a page: its text in reading order
<out>/pages/000000/000000123.jpg    1000 a folder
<out>/annotations/train.card.json   seed, fonts with their digests, what was left out and why
"""

import json
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from vl3.data.catalogue.adapter import turns
from vl3.data.derive.ocr import READ_DOCUMENT
from vl3.data.derive.output import MadeCard, made_files
from vl3.data.derive.pages.drawing import draw_page
from vl3.data.derive.pages.fonts import Fonts, find_fonts
from vl3.data.derive.pages.layout import Page, lay_out
from vl3.data.derive.pages.text import Text
from vl3.data.derive.runner import Progress, lines_of, require_samples
from vl3.data.sample.records import annotations_file, parse_record
from vl3.errors import ClusterError
from vl3.lifeline import RUNNER_VARIABLE, runner_mark, start_lifeline
from vl3.system.files import storage_errors
from vl3.system.folders import whole_folder

ANNOTATIONS = annotations_file("train") + ".gz"
_PAGES_A_FOLDER = 1000
_AHEAD = 4
"""Pages laid out for each process before the first of them is awaited."""


def make_pages(
    corpus: Sequence[Path],
    out: Path,
    *,
    pages: int,
    seed: int,
    fonts_folder: Path | None = None,
    source_name: str = "pages",
    workers: int = 1,
    progress: Progress | None = None,
) -> MadeCard:
    """Draw pages until there are as many as asked for, or the corpus has ended.

    Args:
        corpus: text files, a paragraph a line, plain or packed.
        out: data folder to make.
        pages: how many at most.
        seed: of everything drawn.
        fonts_folder: folder with fonts; None: those of the system.
        source_name: `source` of the samples.
        workers: processes that draw.
        progress: called with pages done and asked for.

    Raises:
        ConfigError: there is no font.
        DataError: the corpus cannot be read, or no page can be drawn of it.
        StorageError: `out` exists, or cannot be written.
    """
    fonts = find_fonts(fonts_folder)
    settings = {
        "pages": pages,
        "seed": seed,
        "fonts": {Path(font.path).name: font.sha256 for font in fonts.files},
        "unusable fonts": list(fonts.unusable),
        "source": source_name,
    }
    card = MadeCard(maker="pages", sources=[path.name for path in corpus], settings=settings)
    with whole_folder(out) as folder, made_files(folder / ANNOTATIONS, card) as made:

        def leave_out(where: str, reason: str) -> None:
            card.dropped[reason] = card.dropped.get(reason, 0) + 1
            made.note(where, "paragraph", reason)

        text = Text(_counted(lines_of(corpus), card), leave_out)
        for page, content in _drawn(text, fonts, pages, seed, workers):
            path = f"pages/{page.number // _PAGES_A_FOLDER:06d}/{page.number:09d}.jpg"
            with storage_errors(folder / path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
            made.add(_line(page, path, source_name))
            if progress is not None:
                progress(card.samples, pages)
        require_samples(card)
    return card


def _counted(lines: Iterator[tuple[str, bytes]], card: MadeCard) -> Iterator[tuple[str, bytes]]:
    for line in lines:
        card.lines += 1
        yield line


def _drawn(text: Text, fonts: Fonts, pages: int, seed: int, workers: int) -> Iterator[tuple[Page, bytes]]:
    """Pages in order with their pictures. The next ones are laid out while processes draw."""
    environment = {RUNNER_VARIABLE: runner_mark(os.getpid())}
    waiting: deque[tuple[Page, Future[bytes]]] = deque()
    try:
        with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(environment,)) as pool:
            for page in _laid_out(text, fonts, pages, seed):
                waiting.append((page, pool.submit(draw_page, page)))
                if len(waiting) >= _AHEAD * workers:
                    done, future = waiting.popleft()
                    yield done, future.result()
            for done, future in waiting:
                yield done, future.result()
    except BrokenProcessPool as error:
        raise ClusterError(
            "A process that draws pages died, perhaps for lack of memory. Use fewer --workers."
        ) from error


def _laid_out(text: Text, fonts: Fonts, pages: int, seed: int) -> Iterator[Page]:
    for number in range(pages):
        page = lay_out(text, fonts, seed=seed, number=number)
        if page is None:
            return
        yield page


def _start_worker(environment: dict[str, str]) -> None:
    """Leave Ctrl-C to the parent, which ends the workers, and end when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start_lifeline(environment, kill_group=False)


def _line(page: Page, path: str, source_name: str) -> bytes:
    line = {
        "id": f"{source_name}-{page.number}",
        "image": [path],
        "category": "document",
        "source": source_name,
        "conversations": turns(READ_DOCUMENT, "\n".join(page.lines)),
    }
    raw = json.dumps(line, ensure_ascii=False).encode()
    parse_record(raw, where=path, split="train")
    return raw
