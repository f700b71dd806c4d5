"""`vl3 chat`: ask a model about text, images and videos, once or in a conversation."""

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vl3.errors import ConfigError, Vl3Error

if TYPE_CHECKING:
    from vl3.inference.chat import Chat
    from vl3.inference.question import Question
    from vl3.inference.sampling import Sampling

HELP = "/image FILE and /video FILE add media to the next question, /reset starts over, /quit (or Ctrl-D) ends."


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerSettings:
    """How answers are generated."""

    sampling: "Sampling"
    max_new_tokens: int
    system: str | None


def chat(
    model: Annotated[Path, typer.Option("--model", help="Folder of a model: config.json, safetensors, tokenizer.")],
    question: Annotated[str | None, typer.Argument(help="One question; without it a conversation starts.")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="Image before the question; repeatable.")] = None,
    video: Annotated[Path | None, typer.Option(help="Video before the question.")] = None,
    start: Annotated[float | None, typer.Option(help="Start of the part to use, in seconds.")] = None,
    end: Annotated[float | None, typer.Option(help="End of that part, in seconds.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second. Default: as trained.")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Maximum frames. Default: as trained.")] = None,
    max_visual_tokens: Annotated[int | None, typer.Option(help="Maximum vision tokens. Default: as trained.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Watch frame by frame; the model may speak.")] = False,
    temperature: Annotated[float, typer.Option(help="0 is greedy; above 0, tokens are sampled.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens of this total probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Maximum tokens of an answer.", min=1)] = 512,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: a GPU if there is one.")] = None,
) -> None:
    """Ask about text, images and a video; answers appear while they are generated."""
    _check_arguments(model, question, video, stream=stream, start=start, end=end)
    from vl3.inference.chat import Chat
    from vl3.inference.question import Question
    from vl3.inference.sampling import Sampling

    first = Question(
        text=question or "",
        images=tuple(image or ()),
        video=video,
        start_seconds=start,
        end_seconds=end,
        fps=fps,
        max_frames=max_frames,
    )
    sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    settings = AnswerSettings(sampling=sampling, max_new_tokens=max_new_tokens, system=system)
    loaded = Chat.load(model, device=device, max_visual_tokens=max_visual_tokens)
    if stream:
        _watch(loaded, first, settings)
    elif question is not None:
        conversation = loaded.conversation(system=system)
        _print_pieces(conversation.stream(first, max_new_tokens=max_new_tokens, sampling=sampling))
    else:
        _converse(loaded, first, settings)


def _check_arguments(
    model: Path, question: str | None, video: Path | None, *, stream: bool, start: float | None, end: float | None
) -> None:
    """Check what can be checked before the model is loaded.

    Raises:
        ConfigError: options contradict each other, or the model folder does not exist.
    """
    if stream and video is None:
        raise ConfigError("--stream needs a video, but --video is missing. Add --video FILE.")
    if video is None and (start is not None or end is not None):
        raise ConfigError("--start and --end cut a video, but --video is missing. Add --video FILE.")
    if question is not None and not question.strip():
        raise ConfigError("the question is empty. Write one, or leave it out for a conversation.")
    if not model.is_dir():
        raise ConfigError(f"{model} is not a folder. Set --model to the folder of a model, with its config.json.")


def _print_pieces(pieces: Iterator[str]) -> None:
    for piece in pieces:
        print(piece, end="", flush=True)
    print(flush=True)


def _watch(loaded: "Chat", question: "Question", settings: AnswerSettings) -> None:
    """Show the model the video frame by frame; print what it says with the time in the video."""
    from vl3.inference.question import open_frames

    spoken = 0
    with open_frames(question, loaded.settings) as (num_frames, frames):
        watcher = loaded.watch(
            expected_frames=num_frames, max_new_tokens=settings.max_new_tokens, sampling=settings.sampling
        )
        said = question.text or None
        for seconds, frame_HWC in frames:
            utterance, said = watcher.feed(frame_HWC, seconds, said=said), None
            if utterance is not None:
                spoken += 1
                print(f"[{seconds:6.1f} s] {utterance}", flush=True)
    if not spoken:
        print(f"the model said nothing in {watcher.num_frames} frames", file=sys.stderr)


def _converse(loaded: "Chat", first: "Question", settings: AnswerSettings) -> None:
    """Ask until the input ends. An error or Ctrl-C ends the answer, not the conversation."""
    is_terminal = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is not UTF-8 then costs its question alone
    if is_terminal:
        import readline  # noqa: F401 (gives input() its line editing)

        print(HELP)
    session = ChatSession(loaded, first, settings)
    while True:
        try:
            line = input("> " if is_terminal else "").strip()
        except EOFError:
            if is_terminal:
                print()
            return
        if line == "/quit":
            return
        try:
            session.take(line)
        except Vl3Error as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print(" (stopped)", file=sys.stderr)


class ChatSession:
    """A conversation at the keyboard: the turns so far and the media for the next question."""

    def __init__(self, loaded: "Chat", first: "Question", settings: AnswerSettings) -> None:
        self._loaded, self._settings = loaded, settings
        self._conversation = loaded.conversation(system=settings.system)
        self._next = first
        self._blank = replace(first, images=(), video=None)
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self._add_image,
            "/video": self._set_video,
            "/reset": lambda _: self._reset(),
            "/help": lambda _: print(HELP),
        }

    def take(self, line: str) -> None:
        """Execute a command, or ask a question and print its answer.

        Raises:
            Vl3Error: the command is unknown or its file is missing (the media for the next question are kept), or the
                question cannot be answered (they are dropped).
        """
        word, _, rest = line.partition(" ")
        if word in self._commands:
            self._commands[word](rest.strip())
        elif word.startswith("/") and "/" not in word[1:]:
            raise ConfigError(f"{word} is unknown. {HELP}")
        elif line:
            question, self._next = replace(self._next, text=line), self._blank
            settings = self._settings
            _print_pieces(
                self._conversation.stream(question, max_new_tokens=settings.max_new_tokens, sampling=settings.sampling)
            )

    def _add_image(self, name: str) -> None:
        self._next = replace(self._next, images=(*self._next.images, self._file(name)))

    def _set_video(self, name: str) -> None:
        self._next = replace(self._next, video=self._file(name))

    def _reset(self) -> None:
        self._conversation = self._loaded.conversation(system=self._settings.system)
        self._next = self._blank

    @staticmethod
    def _file(name: str) -> Path:
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigError(f"{name or '(no name)'} is not a file. Write the path of an image or video.")
        return path
