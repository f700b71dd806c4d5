"""The evaluation's engine against one question at a time. `python -m benchmarks.evaluate [--videos 8] [--write]`.

The other side is what lmms-eval's model class for VideoLLaMA3 does: for each question it decodes the media, prepares
them, and calls transformers' `generate` at batch 1. Preparation is ours on both sides (transformers' processor needs
torchvision, and is slower), so the ratio is that of what the engine does: one decode and one pass of the encoder for
all questions about a video, prompts of unequal length together, decoding beside generation. Both have the same random
weights and the same items, and the greedy answers are compared.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import write_result
from vl3.config.data import Category
from vl3.data.sample.clips import Clip, in_prompt_order
from vl3.data.sample.difffp import keep_mask
from vl3.data.sample.prepare import PreparedSample, PrepareSettings, prepare_sample
from vl3.data.sample.records import Record, Turn
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.evaluation.engine.engine import Engine
from vl3.evaluation.engine.request import Loaded, Request
from vl3.inference.generate import stop_tokens
from vl3.models.config import TextConfig, VideoLlama3Config, VisionConfig
from vl3.models.convert import convert
from vl3.models.layouts.names import Layout
from vl3.models.model import VideoLlama3
from vl3.models.weights import load_model, save_model
from vl3.recipes.catalog import get_recipe
from vl3.toy.corpus import encode_video
from vl3.toy.tokenizer import build_tokenizer

WORDS = ("What colour is the shape", "Which shape moves", "What changes", "Read the number", "Describe the image")
SIDE_PX = 224
CASES = (("video", 16, 5.0), ("image", 16, 2.0), ("image", 64, 2.0))
"""What is asked about, tokens of each answer, and how many times as fast the engine should be."""


def main(arguments: argparse.Namespace) -> None:
    """Measure both sides on videos with several questions and on images with one."""
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="vl3-benchmark-") as name:
        folder = Path(name)
        ours, theirs, tokenizer = make_models(folder, arguments)
        rows = []
        for kind, longest, needed in CASES:
            items = make_items(kind, arguments)
            alone = one_by_one(theirs, items, tokenizer, longest, arguments)
            together = all_at_once(ours, items, tokenizer, longest, arguments)
            differing = [name for name in alone["tokens"] if alone["tokens"][name] != together["tokens"][name]]
            for which, side in (("one by one, transformers", alone), ("engine", together)):
                rows.append(row_of(f"{kind}, {longest} tokens", which, side, len(items)))
            ratio = alone["cpu_seconds"] / together["cpu_seconds"]
            clock = alone["seconds"] / together["seconds"]
            print(
                f"{kind}, answers of {longest} tokens: {ratio:.1f} times in CPU time, {clock:.1f} on the clock; at "
                f"least {needed:g} is wanted; {len(differing)} of {len(items)} answers differ"
            )
            if differing:
                raise SystemExit(f"different answers: {', '.join(differing[:5])}")
    for row in rows:
        print(row)
    if arguments.write:
        write(rows, arguments)


def row_of(kind: str, which: str, side: dict[str, Any], count: int) -> list[Any]:
    """A row of the table."""
    tokens = sum(map(len, side["tokens"].values()))
    return [
        kind,
        which,
        count,
        tokens,
        f"{side['seconds']:.1f}",
        f"{side['cpu_seconds']:.1f}",
        f"{count / side['seconds']:.2f}",
    ]


def make_models(folder: Path, arguments: argparse.Namespace) -> tuple[VideoLlama3, Any, ChatTokenizer]:
    """Our model and transformers' with the same random weights."""
    from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3ForConditionalGeneration

    words = folder / "tokenizer"
    words.mkdir()
    vocabulary = build_tokenizer(words)
    tokenizer = ChatTokenizer.from_folder(words)
    width = arguments.width
    vision = VisionConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=4, num_attention_heads=4)
    text = TextConfig(
        vocab_size=vocabulary,
        hidden_size=2 * width,
        intermediate_size=6 * width,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = VideoLlama3(VideoLlama3Config(vision=vision, text=text, image_token_id=tokenizer.image_id))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=1.5 / parameter.flatten(1).shape[1] ** 0.5)
        model.lm_head.weight[tokenizer.image_id] = 0  # type: ignore[union-attr]
    save_model(model, words, folder / "ours")
    convert(folder / "ours", folder / "theirs", Layout.TRANSFORMERS, max_shard_bytes=1 << 30)
    theirs = VideoLlama3ForConditionalGeneration.from_pretrained(folder / "theirs").eval().to(arguments.device)
    return load_model(folder / "ours", device=arguments.device), theirs, tokenizer


def make_items(kind: str, arguments: argparse.Namespace) -> list[tuple[str, Record, dict[str, bytes]]]:
    """Name, record and media of each item: several questions about each video, or one about each image."""
    rng = np.random.default_rng(0)
    if kind == "image":
        return [
            (f"image-{number}", record_of(f"<image>\n{question(rng)}", images=["i.png"]), {"i.png": picture(rng)})
            for number in range(arguments.images)
        ]
    items = []
    for number in range(arguments.videos):
        frames = [rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8) for _ in range(arguments.seconds)]
        clip = encode_video(frames, fps=10)
        for asked in range(arguments.questions):
            record = record_of(f"<video>\n{question(rng)}", clips=[Clip(path="v.mp4")])
            items.append((f"video-{number}-{asked}", record, {"v.mp4": clip}))
    return items


def question(rng: np.random.Generator) -> str:
    """A question of one to eight phrases."""
    return " ".join(rng.choice(WORDS) for _ in range(int(rng.integers(1, 9))))


def picture(rng: np.random.Generator) -> bytes:
    """A PNG of random size."""
    import io

    from PIL import Image

    height_px, width_px = rng.integers(112, 2 * SIDE_PX, 2)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def record_of(text: str, *, images: Sequence[str] = (), clips: Sequence[Clip] = ()) -> Record:
    """A record that asks a text about media."""
    return Record(
        sample_id="item",
        split="heldout",
        category=Category.TEXT_ONLY,
        source="benchmark",
        media=in_prompt_order([text], list(images), list(clips)),
        turns=(Turn(role="user", text=text), Turn(role="assistant", text="")),
        events=(),
        chance=None,
        where="benchmark",
    )


def settings() -> PrepareSettings:
    """The limits of the released models, with fewer vision tokens so that a CPU can do it."""
    from dataclasses import replace

    data = replace(
        get_recipe("tiny").data, max_length_tokens=8192, visual_budget_tokens=2048, max_row_visual_tokens=2048
    )
    return PrepareSettings(image_merge_size=1, video_merge_size=2, difffp=True, data=data)


def one_by_one(
    theirs: Any, items: Sequence[Any], tokenizer: ChatTokenizer, longest: int, arguments: Any
) -> dict[str, Any]:
    """As lmms-eval's class does it: decode, prepare and generate, one question after the other."""
    began, cpu_began = time.perf_counter(), time.process_time()
    tokens = {}
    stops = sorted(stop_tokens(tokenizer))
    for name, record, media in items:
        sample = prepare_sample(record, media, tokenizer, settings(), keep_mask)
        inputs = their_inputs(sample, tokenizer.image_id, theirs.config, is_video=bool(record.clips))
        with torch.inference_mode():
            output = theirs.generate(
                **{key: value.to(arguments.device) for key, value in inputs.items()},
                do_sample=False,
                max_new_tokens=longest,
                eos_token_id=stops,
                pad_token_id=stops[0],
            )
        answer = output[0, inputs["input_ids"].shape[1] :].tolist()
        tokens[name] = answer[: next((place for place, token in enumerate(answer) if token in stops), len(answer))]
    return {
        "tokens": {name: tokenizer.decode(answer).strip() for name, answer in tokens.items()},
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu_began,
    }


def their_inputs(sample: PreparedSample, image_id: int, config: Any, *, is_video: bool) -> dict[str, torch.Tensor]:
    """A prepared sample in the words of transformers' model."""
    ids = torch.from_numpy(sample.input_ids_T[: sample.answer_start])
    pixels = torch.from_numpy(sample.pixels_PC).float() / 255 * 2 - 1
    grid, merges = torch.from_numpy(sample.grid_thw_I3), torch.from_numpy(sample.merge_sizes_I)
    wanted = config.video_token_id if is_video else config.image_token_id
    inputs = {"input_ids": ids.masked_fill(ids == image_id, wanted)[None]}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if is_video:
        inputs |= {"pixel_values_videos": pixels, "video_grid_thw": grid, "video_merge_sizes": merges}
        return inputs | {"video_compression_mask": torch.from_numpy(sample.keep_M)}
    return inputs | {"pixel_values": pixels, "image_grid_thw": grid, "image_merge_sizes": merges}


def all_at_once(
    ours: VideoLlama3, items: Sequence[Any], tokenizer: ChatTokenizer, longest: int, arguments: Any
) -> dict[str, Any]:
    """All items by the engine."""
    began, cpu_began = time.perf_counter(), time.process_time()
    requests = [
        Request(
            name=name,
            load=partial(Loaded, record=record, media=media),
            max_new_tokens=longest,
            group=name.rpartition("-")[0] if record.clips else "",
            length_tokens=sum(map(len, media.values())),
        )
        for name, record, media in items
    ]
    replies = list(Engine(ours, tokenizer, settings(), threads=arguments.threads).answer_all(requests))
    failed = [reply.failure for reply in replies if reply.text is None]
    if failed:
        raise SystemExit(f"{len(failed)} questions failed: {failed[0]}")
    return {
        "tokens": {reply.name: reply.text for reply in replies},
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu_began,
    }


def write(rows: list[list[Any]], arguments: argparse.Namespace) -> None:
    """Write benchmarks/results/evaluate.json."""
    write_result(
        "evaluate",
        title="Evaluation: the engine against one question at a time",
        question="At least 5 times the items a second of transformers' class at batch 1 on videos with several "
        "questions, at least 2 times on images, with the same greedy answers.",
        command="python -m benchmarks.evaluate --write",
        columns=("items", "by", "count", "characters", "seconds", "CPU seconds", "items/s"),
        rows=rows,
        notes=(
            f"{arguments.videos} videos of {arguments.seconds} s with {arguments.questions} questions each, "
            f"{arguments.images} images; random weights, width {arguments.width}, {arguments.device}, "
            f"{arguments.threads} threads, {os.cpu_count()} cores.",
            "The other side decodes and prepares with our code, once for each question: transformers' processor needs "
            "torchvision, and lmms-eval runs it in an environment of its own.",
        ),
        libraries=("torch", "transformers"),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--questions", type=int, default=12, help="about each video")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--seconds", type=int, default=16, help="length of a video")
    parser.add_argument("--width", type=int, default=64, help="of the encoder; the decoder is twice as wide")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/evaluate.json")
    main(parser.parse_args())
