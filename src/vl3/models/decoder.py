"""The language decoder: Qwen2 over packed rows, with the parameter names and the numbers of transformers' Qwen2.

Ours for three reasons: transformers' modules inspect their signatures in every call and look their attention up by
name, importing them takes longer than the rest of a worker's start, and packed rows need no batch dimension, masks or
outputs with names. tests/parity compares every shape of sample with transformers.

Shapes: T packed tokens · B rows · Q new tokens of a row · L places of the longest row · D text dim · F inner width ·
N heads · G key-value heads · H head dim · K half of a head. Where a T stands, rows of new tokens (B, Q) may stand too.
"""

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from vl3.errors import DataError
from vl3.models.attention import Segments, attend
from vl3.models.config import TextConfig
from vl3.models.fused import rms_norm, swiglu
from vl3.models.recompute import run_block
from vl3.models.rotary import Tables, rotate_both, tables_of

_INITIAL_STD = 0.02
"""Deviation of random weights, transformers' `initializer_range`; real weights are read from a folder."""


class KeyValueCache(Protocol):
    """What generation keeps of the tokens so far."""

    def update(self, key: Tensor, value: Tensor, layer_index: int) -> tuple[Tensor, Tensor]:
        """Store new keys and values (B, G, Q, H) of a layer; returns all that the new tokens may attend to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """Which tokens each token attends to."""

    segments: Segments | None = None
    """The samples of a packed row (T, D)."""
    cache: KeyValueCache | None = None
    """Where keys and values are stored, in the packed pass and after it."""
    key_mask_BQL: Tensor | None = None
    """For rows that grow (B, Q, D): the cached keys to which each new token attends."""

    def __post_init__(self) -> None:
        if self.segments is None and (self.cache is None or self.key_mask_BQL is None):
            raise DataError(
                "the decoder got neither segments nor a cache with its mask, so the samples of a packed row would see "
                "each other. Pass `segments` for a packed row, `cache` and `key_mask_BQL` for rows that grow."
            )


class WordEmbedding(nn.Embedding):
    """Rows of words. The decoder draws them, but not on the meta device, where a draw imports torch's compiler."""

    def reset_parameters(self) -> None:
        """Leave the rows as they are."""


class RmsNorm(nn.Module):
    """Each vector divided by its root mean square, times a weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x_TD: Tensor) -> Tensor:
        """(T, D) to (T, D)."""
        return rms_norm(x_TD, self.weight, self.eps)


class DecoderAttention(nn.Module):
    """Causal attention inside each sample; several query heads share a key-value head."""

    def __init__(self, config: TextConfig, index: int) -> None:
        super().__init__()
        head_dim = config.hidden_size // config.num_attention_heads
        self.index = index
        self.query_shape = (config.num_attention_heads, head_dim)
        self.key_shape = (config.num_key_value_heads, head_dim)
        key_size = config.num_key_value_heads * head_dim
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, key_size)
        self.v_proj = nn.Linear(config.hidden_size, key_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden_TD: Tensor, rotary: Tables, reach: Reach) -> Tensor:
        """(T, D) to (T, D)."""
        q_TNH = self.q_proj(hidden_TD).unflatten(-1, self.query_shape)
        k_TGH = self.k_proj(hidden_TD).unflatten(-1, self.key_shape)
        v_TGH = self.v_proj(hidden_TD).unflatten(-1, self.key_shape)
        q_TNH, k_TGH = rotate_both(q_TNH, k_TGH, rotary)
        if reach.segments is None:
            return self.o_proj(self._attend_to_cache(q_TNH, k_TGH, v_TGH, reach).flatten(-2))
        if reach.cache is not None:
            reach.cache.update(k_TGH.transpose(0, 1)[None], v_TGH.transpose(0, 1)[None], self.index)
        return self.o_proj(attend(q_TNH, k_TGH, v_TGH, reach.segments, causal=True).flatten(-2))

    def _attend_to_cache(self, q_BQNH: Tensor, k_BQGH: Tensor, v_BQGH: Tensor, reach: Reach) -> Tensor:
        """A rectangle of new tokens against cached keys."""
        assert reach.cache is not None
        assert reach.key_mask_BQL is not None
        keys_BGLH, values_BGLH = reach.cache.update(k_BQGH.transpose(1, 2), v_BQGH.transpose(1, 2), self.index)
        out_BNQH = functional.scaled_dot_product_attention(
            q_BQNH.transpose(1, 2),
            keys_BGLH,
            values_BGLH,
            attn_mask=reach.key_mask_BQL[:, None],
            enable_gqa=self.query_shape != self.key_shape,
        )
        return out_BNQH.transpose(1, 2)


class DecoderMlp(nn.Module):
    """SwiGLU between three linear layers."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden_TD: Tensor) -> Tensor:
        """(T, D) to (T, D)."""
        return self.down_proj(swiglu(self.gate_proj(hidden_TD), self.up_proj(hidden_TD)))


class DecoderLayer(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: TextConfig, index: int) -> None:
        super().__init__()
        self.self_attn = DecoderAttention(config, index)
        self.mlp = DecoderMlp(config)
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_TD: Tensor, rotary: Tables, reach: Reach) -> Tensor:
        """(T, D) to (T, D)."""
        hidden_TD = hidden_TD + self.self_attn(self.input_layernorm(hidden_TD), rotary, reach)
        return hidden_TD + self.mlp(self.post_attention_layernorm(hidden_TD))


class Decoder(nn.Module):
    """Embeddings to final hidden states; the head is the caller's."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.rope_theta = config.rope_theta
        self.embed_tokens = WordEmbedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.recompute = "none"
        """What backward computes again: see `vl3.models.recompute`."""
        self.apply(draw_weights)

    def forward(self, inputs_TD: Tensor, positions_T: Tensor, reach: Reach) -> Tensor:
        """Final hidden states (T, D), after the last norm.

        Args:
            inputs_TD: word embeddings, with vision tokens in their places.
            positions_T: position of each token in its sample, on the same device.
            reach: what each token attends to.
        """
        frequencies_K = rotary_frequencies(self.head_dim, self.rope_theta, inputs_TD.device)
        rotary = tables_of(positions_T[..., None].float() * frequencies_K)
        hidden_TD = inputs_TD
        kind = self.recompute if self.training else "none"
        for layer in self.layers:
            hidden_TD = run_block(layer, kind, hidden_TD, rotary, reach)
        return self.norm(hidden_TD)


@cache
def rotary_frequencies(head_dim: int, theta: float, device: torch.device) -> Tensor:
    """Angle per position of each pair of a head (K), fp32: H=4 and theta 10000 give 1 and 0.01.

    Computed on CPU as transformers does, because devices round powers differently, and kept, because the copy to a GPU
    makes the CPU wait.
    """
    with torch.inference_mode(False):
        exponents_K = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
        return (1.0 / theta**exponents_K).to(device)


@torch.no_grad()
def draw_weights(module: nn.Module) -> None:
    """Random first weights of one module, as transformers draws them: normal matrices, no biases."""
    if not isinstance(module, nn.Linear | nn.Embedding) or module.weight.is_meta:
        return
    module.weight.normal_(std=_INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        module.bias.zero_()
