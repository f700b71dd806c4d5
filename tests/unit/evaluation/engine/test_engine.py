"""The engine answers as each question is answered alone, decodes and encodes each medium once, and names failures."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.samples import image_bytes, video_bytes
from vl3.config.data import Category
from vl3.data.sample.clips import Clip, in_prompt_order
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.media import FileRange
from vl3.data.sample.prepare import PreparedSample, PrepareSettings, prepare_sample
from vl3.data.sample.records import Record, Turn
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.errors import ConfigError, DataError
from vl3.evaluation.engine import preparing
from vl3.evaluation.engine.engine import Engine, in_order
from vl3.evaluation.engine.preparing import MediaCache
from vl3.evaluation.engine.request import Loaded, Request, media_key
from vl3.models.attention import Segments
from vl3.models.model import VideoLlama3
from vl3.models.start import assemble
from vl3.recipes.catalog import get_recipe
from vl3.store.bases import base_folder

CONFIG = get_recipe("tiny")


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer.from_folder(base_folder(CONFIG.model.language_base))


@pytest.fixture(scope="module")
def model() -> VideoLlama3:
    vision, language = base_folder(CONFIG.model.vision_base), base_folder(CONFIG.model.language_base)
    return assemble(vision, language, seed=5).eval()


@pytest.fixture(scope="module")
def settings() -> PrepareSettings:
    return PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=True, data=CONFIG.data)


@pytest.fixture(scope="module")
def clip() -> bytes:
    rng = np.random.default_rng(1)
    return video_bytes([rng.integers(0, 256, (56, 84, 3), dtype=np.uint8) for _ in range(4)], fps=1)


def record(text: str, *, images: tuple[str, ...] = (), clips: tuple[Clip, ...] = ()) -> Record:
    tags = "<image>\n" * len(images) + "<video>\n" * len(clips)
    return Record(
        sample_id="s",
        split="heldout",
        category=Category.TEXT_ONLY,
        source="test",
        media=in_prompt_order([tags + text], list(images), list(clips)),
        turns=(Turn(role="user", text=tags + text), Turn(role="assistant", text="")),
        events=(),
        chance=None,
        where="test:1",
    )


def request(name: str, loaded: Loaded | Callable[[], Loaded], *, group: str = "", length: int = 0) -> Request:
    load = loaded if callable(loaded) else lambda: loaded
    return Request(name=name, load=load, max_new_tokens=6, group=group, length_tokens=length)


@pytest.fixture(scope="module")
def asked(clip: bytes) -> dict[str, Loaded]:
    """Text, pictures of two sizes, five questions about a clip, of unequal length."""
    found = {"text": Loaded(record=record("Which colour is it"), media={})}
    for number in range(3):
        picture = image_bytes(56 + 28 * number, 84, seed=number)
        text = " ".join(["What is at the top"] * (1 + number))
        found[f"image-{number}"] = Loaded(record=record(text, images=("a.png",)), media={"a.png": picture})
    for number in range(5):
        text = " ".join(["Which way does it move"] * (1 + number % 3))
        name = f"v{number}.mp4"  # one video under five names
        found[f"video-{number}"] = Loaded(record=record(text, clips=(Clip(path=name),)), media={name: clip})
    return found


@torch.no_grad()
def alone(model: VideoLlama3, tokenizer: ChatTokenizer, sample: PreparedSample) -> str:
    """The answer by forward passes over the whole sequence, without a cache."""
    ids, answer = sample.input_ids_T[: sample.answer_start].tolist(), list[int]()
    while len(answer) < 6:
        row = model.embed(
            input_ids_T=np.array(ids + answer),
            pixels_PC=sample.pixels_PC,
            grid_thw_I3=sample.grid_thw_I3,
            merge_sizes_I=sample.merge_sizes_I,
            keep_M=sample.keep_M,
        )
        length = len(ids) + len(answer)
        hidden = model.decode(row, torch.arange(length), segments=Segments.of_runs([length]))
        token = int(model.logits(hidden[-1:]).argmax())
        if token in (tokenizer.im_end_id, tokenizer.end_of_text_id):
            break
        answer.append(token)
    return tokenizer.decode(answer).strip()


def test_answers_are_those_of_each_question_alone(model, tokenizer, settings, asked) -> None:
    requests = [request(name, one, group=name.partition("-")[0]) for name, one in asked.items()]
    engine = Engine(model, tokenizer, settings, max_rows=3)
    found = {reply.name: reply.text for reply in engine.answer_all(requests)}
    assert found == {
        name: alone(model, tokenizer, prepare_sample(one.record, one.media, tokenizer, settings, keep_mask))
        for name, one in asked.items()
    }
    assert len(set(found.values())) > 2, "the questions should have different answers"


def test_media_of_many_questions_are_decoded_once(model, tokenizer, settings, asked) -> None:
    media = MediaCache()
    requests = [request(name, one, group="v") for name, one in asked.items() if name.startswith("video")]
    engine = Engine(model, tokenizer, settings, media=media, threads=4)
    assert len(list(engine.answer_all(requests))) == 5
    assert media.num_decoded == 1
    assert len(list(engine.answer_all(requests[:1]))) == 1
    assert media.num_decoded == 1, "kept for the next call"
    other = Engine(model, tokenizer, replace(settings, video_merge_size=1), media=media)
    assert len(list(other.answer_all(requests[:1]))) == 1
    assert media.num_decoded == 2, "another preparation"


def test_few_media_are_kept(tokenizer, settings, asked) -> None:
    cache = MediaCache(limit_bytes=1)
    pictures = [asked[f"image-{number}"] for number in range(3)]
    for one in (*pictures, pictures[2], pictures[0]):
        cache.get(media_key(one, "p"), one, settings)
    assert cache.num_decoded == 4


def test_replies_do_not_depend_on_the_order_of_requests(model, tokenizer, settings, asked) -> None:
    requests = [request(name, one) for name, one in asked.items()]
    first, second = (
        [(reply.name, reply.text) for reply in Engine(model, tokenizer, settings, max_rows=2).answer_all(order)]
        for order in (requests, requests[::-1])
    )
    assert first == second


def test_what_cannot_be_decoded_is_named_and_the_others_are_answered(model, tokenizer, settings, asked) -> None:
    broken = Loaded(record=record("What", clips=(Clip(path="v.mp4"),)), media={"v.mp4": b"no video"})
    gone = FileRange(path=Path("/nowhere/a.png"), offset_bytes=0, length_bytes=9)
    missing = Loaded(record=record("What", images=("a.png",)), media={"a.png": gone})
    long = Loaded(record=record("red " * 700), media={})

    def refused() -> Loaded:
        raise DataError("heldout.jsonl:7: its shard is damaged.")

    requests = [
        request("text", asked["text"]),
        request("broken", broken, group="b"),
        request("again", broken, group="b"),
    ]
    requests += [request("missing", missing), request("long", long), request("refused", refused)]
    replies = {reply.name: reply for reply in Engine(model, tokenizer, settings).answer_all(requests)}
    assert len(replies) == 6
    assert replies["text"].text is not None
    assert "test:1: v.mp4" in replies["broken"].failure
    assert replies["again"].failure == replies["broken"].failure
    assert replies["missing"].failure == "missing: its media cannot be read (No such file or directory)."
    assert "tokens, a row has 640" in replies["long"].failure
    assert replies["refused"].failure == "heldout.jsonl:7: its shard is damaged."
    assert {reply.text for name, reply in replies.items() if name != "text"} == {None}


def test_a_decoder_that_hangs_fails_its_own_questions(model, tokenizer, settings, asked, monkeypatch) -> None:
    """Two questions about the media that hang; the others are prepared by other threads."""
    may_end, whole = threading.Event(), preparing.decode_media

    def decode(record: Record, *others: Any, **settings: Any) -> object:
        if record.clips:
            may_end.wait(60)
        return whole(record, *others, **settings)

    monkeypatch.setattr(preparing, "decode_media", decode)
    requests = [request(name, asked[name], group=name[:5]) for name in ("video-0", "video-1", "image-0", "text")]
    engine = Engine(model, tokenizer, settings, threads=1, timeout_seconds=1.0)
    replies = {reply.name: reply for reply in engine.answer_all(requests)}
    may_end.set()
    assert replies["video-0"].failure == ("video-0: its media were not decoded within 1 s, so the decoder has hung.")
    assert replies["video-1"].failure.startswith("video-1: its media were not decoded")
    assert replies["image-0"].text is not None
    assert replies["text"].text is not None


def test_requests_of_one_name_are_refused(model, tokenizer, settings, asked) -> None:
    with pytest.raises(ConfigError, match=r"two requests are named 'a', so their replies"):
        list(Engine(model, tokenizer, settings).answer_all([request("a", asked["text"])] * 2))


def test_groups_with_long_prompts_come_first(asked) -> None:
    one = asked["text"]
    requests = [
        request("b", one, group="x", length=4),
        request("c", one, length=7),
        request("a", one, group="x", length=9),
    ]
    assert [each.name for each in in_order(requests)] == ["a", "b", "c"]
    assert [each.name for each in in_order(requests[::-1])] == ["a", "b", "c"]


def test_a_key_follows_content_and_interval_and_not_names(clip: bytes) -> None:
    def key(name: str, end: float | None = None, content: bytes = clip) -> str:
        medium = Clip(path=name, end_seconds=end)
        return media_key(Loaded(record=record("What", clips=(medium,)), media={name: content}), "p")

    assert key("a.mp4") == key("b.mp4")
    assert len({key("a.mp4"), key("a.mp4", 2.0), key("a.mp4", 3.0), key("a.mp4", content=clip + b"x")}) == 4
    assert media_key(Loaded(record=record("What"), media={}), "p") == ""
