"""The whole model on a GPU against transformers': `python -m benchmarks.model_gpu` (`--small` for a trial on CPU).

The same random weights of the 2B model, the same packed rows. transformers has no packed rows for this model, so its
best way without extra packages is taken: a padded batch of the same samples under scaled dot product attention. MFU is
measured against a large matmul of the same run; DiffFP's bandwidth against a copy on the device.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.record import write_result
from vl3.models.config import TextConfig, VideoLlama3Config, VisionConfig
from vl3.models.model import VideoLlama3
from vl3.planning.flops import row_flops
from vl3.planning.parameters import TrainedParts

IMAGE_ID, VIDEO_ID = 151665, 151656


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of the model and the samples."""

    text: dict[str, Any]
    vision: dict[str, Any]
    image_id: int
    video_id: int
    video: tuple[int, int, int, int]
    """Frames, rows, columns and merge of the video of a sample."""
    images: tuple[tuple[int, int], ...]
    """Rows and columns of the image of each sample of an image row."""
    video_samples: int
    matmul: int


RELEASED = Size(
    text={
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
    },
    vision={"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16},
    image_id=IMAGE_ID,
    video_id=VIDEO_ID,
    video=(32, 24, 24, 2),
    images=((32, 32), (24, 40), (40, 24), (28, 30), (48, 20), (36, 36), (20, 24), (26, 44)),
    video_samples=2,
    matmul=8192,
)
SMALL = Size(
    text={
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    },
    vision={"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
    image_id=500,
    video_id=501,
    video=(4, 8, 8, 2),
    images=((6, 6), (4, 8), (8, 4)),
    video_samples=2,
    matmul=256,
)
TEXT_TOKENS = 64
"""Words after the media of each sample; all of them are supervised."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample: its items, what DiffFP keeps, and its ids with the media first."""

    grid_I3: np.ndarray
    merges_I: np.ndarray
    pixels_PC: torch.Tensor
    keep_M: np.ndarray
    ids_T: np.ndarray
    is_video: bool


def make_samples(size: Size, kind: str, generator: np.random.Generator) -> list[Sample]:
    """The samples of one row; half of a video's tokens after the first frame are dropped."""
    if kind == "video":
        frames, rows, columns, merge = size.video
        shapes = [(frames, rows, columns, merge)] * size.video_samples
    else:
        shapes = [(1, rows, columns, 1) for rows, columns in size.images]
    samples = []
    for frames, rows, columns, merge in shapes:
        per_frame = rows * columns // merge**2
        keep = np.ones(frames * per_frame, dtype=bool)
        keep[per_frame:] = generator.random((frames - 1) * per_frame) < 0.5
        words = generator.integers(0, size.image_id - 1, TEXT_TOKENS)
        samples.append(
            Sample(
                grid_I3=np.array([[frames, rows, columns]]),
                merges_I=np.array([merge]),
                pixels_PC=torch.from_numpy(generator.integers(0, 256, (frames * rows * columns, 588), dtype=np.uint8)),
                keep_M=keep,
                ids_T=np.concatenate([np.full(int(keep.sum()), size.image_id), words]),
                is_video=kind == "video",
            )
        )
    return samples


def our_row(samples: Sequence[Sample]) -> dict[str, Any]:
    """The samples as one packed row."""
    lengths = [len(sample.ids_T) for sample in samples]
    labels = [np.where(np.arange(n) >= n - TEXT_TOKENS, s.ids_T, -100) for s, n in zip(samples, lengths, strict=True)]
    return {
        "input_ids_T": np.concatenate([sample.ids_T for sample in samples]),
        "position_ids_T": np.concatenate([np.arange(length) for length in lengths]),
        "cu_seqlens": np.cumsum([0, *lengths]),
        "pixels_PC": torch.cat([sample.pixels_PC for sample in samples]),
        "grid_thw_I3": np.concatenate([sample.grid_I3 for sample in samples]),
        "merge_sizes_I": np.concatenate([sample.merges_I for sample in samples]),
        "keep_M": np.concatenate([sample.keep_M for sample in samples]),
        "labels_T": np.concatenate(labels),
    }


def their_batch(samples: Sequence[Sample], size: Size, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The samples as a batch padded on the right."""
    longest = max(len(sample.ids_T) for sample in samples)
    is_video = samples[0].is_video
    ids = np.zeros((len(samples), longest), dtype=np.int64)
    labels = np.full_like(ids, -100)
    mask = np.zeros_like(ids)
    for row, sample in enumerate(samples):
        length = len(sample.ids_T)
        ids[row, :length] = np.where(sample.ids_T == size.image_id, size.video_id, sample.ids_T)
        if not is_video:
            ids[row, :length] = sample.ids_T
        labels[row, length - TEXT_TOKENS : length] = sample.ids_T[length - TEXT_TOKENS :]
        mask[row, :length] = 1
    pixels = (torch.cat([sample.pixels_PC for sample in samples]).to(device).float() / 127.5 - 1).to(dtype)
    names = (
        ("pixel_values_videos", "video_grid_thw", "video_merge_sizes")
        if is_video
        else ("pixel_values", "image_grid_thw", "image_merge_sizes")
    )
    batch = {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "labels": torch.from_numpy(labels),
        names[0]: pixels,
        names[1]: torch.from_numpy(np.concatenate([sample.grid_I3 for sample in samples])),
        names[2]: torch.from_numpy(np.concatenate([sample.merges_I for sample in samples])),
    }
    if is_video:
        batch["video_compression_mask"] = torch.from_numpy(np.concatenate([sample.keep_M for sample in samples]))
    return {name: value.to(device) for name, value in batch.items()}


def make_models(size: Size, device: torch.device, dtype: torch.dtype) -> tuple[VideoLlama3, Any]:
    """Ours and transformers' with the same random weights."""
    from transformers.models.video_llama_3.configuration_video_llama_3 import VideoLlama3Config as TheirConfig
    from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3ForConditionalGeneration

    torch.manual_seed(0)
    text = size.text | {"rms_norm_eps": 1e-6, "tie_word_embeddings": True}
    with torch.device(device):
        theirs = VideoLlama3ForConditionalGeneration._from_config(
            TheirConfig(
                text_config=text
                | {"model_type": "qwen2", "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
                vision_config=size.vision | {"model_type": "video_llama_3_vision", "patch_size": 14},
                image_token_id=size.image_id,
                video_token_id=size.video_id,
                tie_word_embeddings=True,
            ),
            attn_implementation="sdpa",
        ).to(dtype)
    config = VideoLlama3Config(
        vision=VisionConfig(**size.vision), text=TextConfig(**text, rope_theta=1e6), image_token_id=size.image_id
    )
    ours = VideoLlama3(config).to(device, dtype)
    state = theirs.state_dict()
    prefixes = {"vision_encoder.": "model.vision_model.", "mm_projector.": "model.projector."}
    prefixes["language_model."] = "model.language_model."
    renamed = {}
    for name, _ in ours.named_parameters():
        ours_prefix = next(prefix for prefix in prefixes if name.startswith(prefix))
        renamed[name] = state[prefixes[ours_prefix] + name.removeprefix(ours_prefix)]
    ours.load_state_dict(renamed)
    return ours, theirs


def seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds of a call after two warm-up calls."""
    times = []
    for _ in range(repeats + 2):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - start)
    return sorted(times[2:])[repeats // 2]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mib(call: Callable[[], Any], device: torch.device) -> str:
    """Peak of allocated device memory during a call."""
    if device.type != "cuda":
        return "-"
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}"


def matmul_flops(size: Size, device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    """Measured FLOP/s of a large square matmul."""
    a, b = (torch.randn(size.matmul, size.matmul, device=device, dtype=dtype) for _ in range(2))
    return 2 * size.matmul**3 / seconds(lambda: a @ b, device, repeats)


def forward_flops(samples: Sequence[Sample], size: Size) -> float:
    """FLOP of one forward pass over the samples as one row."""
    from benchmarks.trained_rows import shape_of, sizes_of  # it imports this module

    everything = TrainedParts(vision=True, projector=True, language=True)
    return row_flops(sizes_of(size), everything, [shape_of(samples)]).total.forward


def row_results(
    kind: str, size: Size, models: tuple[VideoLlama3, Any], device: torch.device, dtype: torch.dtype, repeats: int
) -> list[list[str]]:
    """Forward, and forward with backward, of both models on one kind of row."""
    samples = make_samples(size, kind, np.random.default_rng(0))
    ours, theirs = models
    row, batch = our_row(samples), their_batch(samples, size, device, dtype)
    row["pixels_PC"] = row["pixels_PC"].to(device)
    tokens, work = sum(len(sample.ids_T) for sample in samples), forward_flops(samples, size)
    speed = matmul_flops(size, device, dtype, repeats)

    def run(model: str, *, backward: bool) -> None:
        with torch.set_grad_enabled(backward):
            loss = ours(**row).loss_sum / (TEXT_TOKENS * len(samples)) if model == "ours" else theirs(**batch).loss
        if backward:
            loss.backward()
            (ours if model == "ours" else theirs).zero_grad(set_to_none=True)

    with torch.no_grad():
        output = ours(**row)
        gap = abs(output.loss_sum.item() / output.num_supervised - theirs(**batch).loss.item())
    print(f"{kind}: {tokens} tokens, {work / 1e12:.3f} TFLOP forward, losses differ by {gap:.1e}")
    rows = []
    for backward in (False, True):
        took = {}
        for model in ("ours", "transformers"):

            def call(model: str = model, backward: bool = backward) -> None:
                run(model, backward=backward)

            took[model] = seconds(call, device, repeats)
            mfu = work * (3 if backward else 1) / took[model] / speed
            pass_name = "forward + backward" if backward else "forward"
            numbers = f"{1000 * took[model]:.1f}", f"{tokens / took[model]:,.0f}", f"{mfu:.1%}"
            rows.append([kind, pass_name, model, *numbers, peak_mib(call, device), f"{took['ours'] / took[model]:.2f}"])
            print(json.dumps(rows[-1]))
    return rows


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tiny model: only shows that the script works")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = torch.device(options.device)
    size = SMALL if options.small else RELEASED
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    models = make_models(size, device, dtype)
    rows = [
        row for kind in ("video", "image") for row in row_results(kind, size, models, device, dtype, options.repeats)
    ]
    trial = (
        " This only tests the script with a tiny model; its numbers say nothing about a GPU." if options.small else ""
    )
    write_result(
        "model_gpu_trial" if options.small else "model_gpu",
        title="The whole model against transformers'" + (" (trial on CPU)" if options.small else ""),
        question=f"Same random weights, same samples, on {name} in {dtype}.".replace("torch.", "") + trial,
        command="python -m benchmarks.model_gpu" + (" --small" if options.small else ""),
        columns=["row", "pass", "model", "ms", "tokens/s", "MFU", "peak MiB", "speed, ours = 1"],
        rows=rows,
        notes=[
            "Ours runs the samples as one packed row; transformers cannot, so it runs them as a padded batch with its "
            "scaled dot product attention. MFU counts the same FLOPs for both, against a matmul measured in the same "
            "run.",
        ],
        libraries=["torch", "transformers"],
    )


if __name__ == "__main__":
    main()
