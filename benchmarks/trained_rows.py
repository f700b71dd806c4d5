"""What the training benchmarks share: rows, both models with the same weights, and transformers' Trainer on them."""

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.model_gpu import TEXT_TOKENS, Sample, Size, our_row, their_batch
from vl3.data.loader.rows import PackedRow
from vl3.models.config import TextConfig, VideoLlama3Config, VisionConfig
from vl3.planning.shapes import RowShape

WARM_UP_STEPS = 2


def sizes_of(size: Size) -> VideoLlama3Config:
    """The model's sizes in our configuration."""
    text = TextConfig(**size.text, rms_norm_eps=1e-6, tie_word_embeddings=True, rope_theta=1e6)
    return VideoLlama3Config(vision=VisionConfig(**size.vision), text=text, image_token_id=size.image_id)


def packed_row(samples: Sequence[Sample]) -> PackedRow:
    """Samples as a row of ours."""
    row = our_row(samples)
    return PackedRow(
        **row | {"pixels_PC": row["pixels_PC"].numpy()},
        sample_ids=tuple(f"sample-{index}" for index in range(len(samples))),
        visual_tokens=sum(len(sample.keep_M) for sample in samples),
        visual_tokens_kept=sum(int(sample.keep_M.sum()) for sample in samples),
    )


def shape_of(samples: Sequence[Sample]) -> RowShape:
    """The size of a row, from which its FLOPs follow."""
    lengths = np.array([len(sample.ids_T) for sample in samples], dtype=np.float64)
    frames = np.concatenate([np.full(s.grid_I3[0, 0], s.grid_I3[0, 1] * s.grid_I3[0, 2]) for s in samples])
    return RowShape(
        length_tokens=float(lengths.sum()),
        length_pairs=float((lengths**2).sum()),
        patches=float(frames.sum()),
        patch_pairs=float((frames.astype(np.float64) ** 2).sum()),
        projected_tokens=float(sum(sample.keep_M.sum() for sample in samples)),
        supervised_tokens=float(TEXT_TOKENS * len(samples)),
    )


def their_packed(samples: Sequence[Sample], size: Size, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Samples as one row for transformers: positions that restart tell it where samples end, and it builds a mask."""
    batch, row = their_batch(samples, size, device, dtype), our_row(samples)
    ids = row["input_ids_T"]
    if samples[0].is_video:
        ids = np.where(ids == size.image_id, size.video_id, ids)
    labels = row["labels_T"].copy()
    labels[row["cu_seqlens"][:-1]] = -100
    tensors = {"input_ids": ids, "labels": labels, "position_ids": row["position_ids_T"]}
    del batch["attention_mask"]
    return batch | {name: torch.from_numpy(value)[None].to(device) for name, value in tensors.items()}


class _Batches(torch.utils.data.Dataset):
    """Ready batches, one an item, repeated as often as the Trainer asks."""

    def __init__(self, batches: Sequence[dict[str, Any]], length: int) -> None:
        self._batches, self._length = batches, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._batches[index % len(self._batches)]


def trainer_seconds(
    model: nn.Module, batches: Sequence[dict[str, Any]], steps: int, *, recompute: bool, on_cpu: bool
) -> float:
    """Seconds of a step of transformers' Trainer after the warm-up, without logs, evaluation and checkpoints.

    Args:
        model: transformers' model.
        batches: keyword arguments of its forward pass; each process takes all of them in turn.
        steps: steps that are measured.
        recompute: whether its gradient checkpointing is on.
        on_cpu: whether it must not look for a GPU.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if not on_cpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    total = steps + WARM_UP_STEPS
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=1,
            max_steps=total,
            learning_rate=1e-5,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            gradient_checkpointing=recompute,
            gradient_checkpointing_kwargs={"use_reentrant": False} if recompute else None,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            ddp_find_unused_parameters=False,
            use_cpu=on_cpu,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=_Batches(batches, 8 * total),
            data_collator=lambda items: items[0],
            callbacks=[Clock()],
        )
        trainer.train()
    return (times[-1] - times[WARM_UP_STEPS - 1]) / steps
