"""Makes the tiny language base: a Qwen2 decoder that reads pictures as maps of words, and its tokenizer.

The curriculum starts with few kinds of exercise and many supervised tokens, because the ability to look something up
appears suddenly and needs many supervised tokens. First come long repeats, then maps with many cues, then whole
conversations of every category except text-only, which the stages teach.
"""

import logging
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vl3.config.data import Category
from vl3.conventions import IGNORED_LABEL
from vl3.data.sample.tokenizer import ChatTokenizer
from vl3.models.attention import Segments, attend
from vl3.toy.exercises import LOOKUP_CATEGORIES, Exercise, ExerciseBook
from vl3.toy.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

SEED_SPACE = "base-language"
INITIAL_STD = 0.08
OUTPUT_STD = 0.01
"""Initial deviation of the matrices that write to the residual stream; small, so that each layer starts as a small
change."""
CHAT_CATEGORIES = tuple(category for category in Category if category is not Category.TEXT_ONLY)
ACCURACY_SAMPLES = 100
"""Number of conversations per category for the accuracy."""
PACKED_ATTENTION = "vl3_packed"
"""Name under which packed causal attention is registered with transformers, whose folders this base is written as."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of the curriculum."""

    name: str
    share: float
    """Share of all steps."""
    batch_size: int
    peak_rate: float
    final_ratio: float
    """Share of the peak rate at the end of the phase."""
    kinds: dict[str, float]
    """Weight of each kind of exercise."""


def _chats(**weights: float) -> dict[str, float]:
    return {f"chat:{category}": weights.get(category, 1.0) for category in CHAT_CATEGORIES}


def _lookups(weight: float) -> dict[str, float]:
    return {f"lookup:{category}": weight for category in LOOKUP_CATEGORIES}


PHASES = (
    Phase("repeat", 0.15, 16, 2e-3, 1.0, {"repeat": 1.0}),
    Phase(
        "look up",
        0.08,
        16,
        2e-3,
        0.5,
        {
            "lookup:scene_image": 2.0,
            "lookup:document": 1.0,
            "chat:scene_image": 1.0,
            "chat:document": 1.0,
            "repeat": 0.3,
        },
    ),
    Phase("widen", 0.38, 16, 2e-3, 0.3, {**_lookups(0.7), **_chats(), "recall": 0.7, "repeat": 0.3}),
    Phase(
        "settle",
        0.39,
        16,
        2e-3,
        0.02,
        {
            **_lookups(0.3),
            **_chats(chart=1.2, fine_grained=1.7, general_video=1.7, streaming=1.5, temporal_grounding=1.7),
            "recall": 0.4,
        },
    ),
)


def make_language_base(folder: Path, *, steps: int, seed: int) -> dict:
    """Train the decoder and write it, with its tokenizer, as a transformers Qwen2 folder.

    Args:
        folder: folder to write.
        steps: optimizer steps of the whole curriculum.
        seed: seed of the weights and the exercises.

    Returns:
        Facts for the model card, including the held-out accuracy by category.
    """
    vocabulary = build_tokenizer(folder)
    book = ExerciseBook(ChatTokenizer.from_folder(folder))
    model = _new_model(vocabulary, seed)
    rng = random.Random(f"{SEED_SPACE}/{seed}")
    for phase in PHASES:
        _train(model, book, phase, round(steps * phase.share), rng)
    accuracy = _accuracy(model, book, seed)
    model.config._attn_implementation = "sdpa"
    model.save_pretrained(folder)
    return {"steps": steps, "seed": seed, "accuracy": accuracy}


def _new_model(vocabulary: int, seed: int) -> "Qwen2ForCausalLM":
    from transformers.modeling_utils import AttentionInterface
    from transformers.models.qwen2.configuration_qwen2 import Qwen2Config
    from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

    AttentionInterface.register(PACKED_ATTENTION, _packed_attention)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=384,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 300.0},
        initializer_range=INITIAL_STD,
        tie_word_embeddings=True,
        attn_implementation=PACKED_ATTENTION,
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config)
    for layer in model.model.layers:
        nn.init.normal_(layer.self_attn.o_proj.weight, std=OUTPUT_STD)
        nn.init.normal_(layer.mlp.down_proj.weight, std=OUTPUT_STD)
    return model


def _packed_attention(
    _module: nn.Module,
    query_1NTH: Tensor,
    key_1GTH: Tensor,
    value_1GTH: Tensor,
    _attention_mask: Tensor | None,
    *,
    segments: Segments,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each exercise, as transformers' AttentionInterface calls it: output (1, T, N, H)."""
    q_TNH, k_TGH, v_TGH = (x.squeeze(0).transpose(0, 1) for x in (query_1NTH, key_1GTH, value_1GTH))
    return attend(q_TNH, k_TGH, v_TGH, segments, causal=True).unsqueeze(0), None


def _train(model: "Qwen2ForCausalLM", book: ExerciseBook, phase: Phase, steps: int, rng: random.Random) -> None:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=phase.peak_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    kinds, weights = list(phase.kinds), list(phase.kinds.values())
    losses, started = [], time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = phase.peak_rate * _rate(step, steps, phase.final_ratio)
        exercises = [book.draw(kind, rng) for kind in rng.choices(kinds, weights, k=phase.batch_size)]
        logits_SV, targets_S = _predict(model, exercises)
        loss = functional.cross_entropy(logits_SV, targets_S)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            mean, seconds = sum(losses) / len(losses), time.monotonic() - started
            _log.info("language base: %s %d of %d, loss %.3f, %.0f s", phase.name, step + 1, steps, mean, seconds)
            losses.clear()


def _rate(step: int, steps: int, final_ratio: float) -> float:
    """Linear warm-up over 50 steps, then cosine down to final_ratio."""
    return min(1.0, (step + 1) / 50) * (final_ratio + (1 - final_ratio) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _predict(model: "Qwen2ForCausalLM", exercises: list[Exercise]) -> tuple[Tensor, Tensor]:
    """Logits at the supervised positions of all exercises, in one packed row, and their targets."""
    lengths = [len(exercise.tokens_T) for exercise in exercises]
    tokens_T = torch.tensor([token for exercise in exercises for token in exercise.tokens_T])
    # The target of a position is the next token; after the last position comes another exercise, so it has none.
    targets_T = torch.tensor([t for exercise in exercises for t in (*exercise.targets_T[1:], IGNORED_LABEL)])
    positions_T = torch.cat([torch.arange(length) for length in lengths])
    hidden_1TD = model.model(
        inputs_embeds=model.model.embed_tokens(tokens_T)[None],
        position_ids=positions_T[None],
        segments=Segments.of_similar(lengths),
        use_cache=False,
    ).last_hidden_state
    supervised_T = targets_T != IGNORED_LABEL
    return model.lm_head(hidden_1TD[0, supervised_T]), targets_T[supervised_T]


@torch.no_grad()
def _accuracy(model: "Qwen2ForCausalLM", book: ExerciseBook, seed: int) -> dict[str, float]:
    """Share of conversations in which every supervised token is predicted correctly, on scenes not used in training."""
    result = {}
    for category in CHAT_CATEGORIES:
        rng = random.Random(f"{SEED_SPACE}-heldout/{seed}/{category}")
        exercises = [book.draw(f"chat:{category}", rng) for _ in range(ACCURACY_SAMPLES)]
        logits_SV, targets_S = _predict(model, exercises)
        wrong = (logits_SV.argmax(-1) != targets_S).tolist()
        right, start = 0, 0
        for exercise in exercises:
            count = sum(target != IGNORED_LABEL for target in exercise.targets_T[1:])
            right += not any(wrong[start : start + count])
            start += count
        result[str(category)] = right / ACCURACY_SAMPLES
    return result
