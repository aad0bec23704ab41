"""A GPT, read from top to bottom: norm, rotary positions, attention, MLP, block, model.

It computes logits and nothing else: no files, no sampling, no hooks, no capture. Families differ by config values
that are resolved in `__init__`. Attention patterns are derived afterwards from the queries and keys that the cache
keeps (interp.py).

Dimensions: B batch, T new positions, S cached positions, C n_embd, H n_head, G n_kv_head, D head_dim, V vocab_size, L
n_layer.

Sources: Vaswani et al. 2017 (attention), Radford et al. 2019 (GPT-2: pre-norm, learned positions, tanh GELU, tied
head), Touvron et al. 2023 (Llama), Su et al. 2021 (rotary positions), Zhang & Sennrich 2019 (RMSNorm), Shazeer 2020
(SwiGLU), Ainslie et al. 2023 (grouped queries).
"""

from collections.abc import Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.config import GPTConfig

__all__ = ["GPT", "Cache", "Segment"]

Segment = tuple[Tensor, Tensor, Tensor, Tensor | None, bool]
"""Queries (B, H, t, D), keys and values (B, G, S, D), a mask (t, S), True where one may look, or None; is_causal."""


class Cache(Protocol):
    """What a model asks of a cache: keep each layer's new q, k, v and say what each run of queries attends to; then
    keep what the last norm gave.
    """

    def append(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Iterable[Segment]: ...

    def keep(self, hidden: Tensor) -> None: ...


class RMSNorm(nn.Module):
    """x / rms(x) * weight, the mean square taken in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def make_norm(config: GPTConfig) -> nn.Module:
    if config.norm == "rmsnorm":
        return RMSNorm(config.n_embd, config.norm_eps)
    return nn.LayerNorm(config.n_embd, eps=config.norm_eps, bias=config.bias)


class Rotary(nn.Module):
    """Rotary position embedding: position p turns the pair (i, i + D/2) of a head by the angle p * theta^(-2i/D)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.theta, self.dim = config.rope_theta, config.head_dim

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin for positions (..., T): each (..., 1, T, D) float32; the same in every head and layer."""
        exponent = torch.arange(0, self.dim, 2, device=positions.device, dtype=torch.float32) / self.dim
        freqs = positions[..., None].float() * self.theta**-exponent  # (..., T, D/2)
        freqs = torch.cat((freqs, freqs), dim=-1).unsqueeze(-3)  # (..., 1, T, D)
        return freqs.cos(), freqs.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x (B, H, T, D) by the angles of `Rotary.angles`."""
    half = x.shape[-1] // 2
    swapped = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + swapped * sin


class Attention(nn.Module):
    """Causal self-attention with grouped queries: H query heads share G key/value heads, H / G in a row."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        self.rotary = config.position == "rope"
        self.qkv = nn.Linear(config.n_embd, (config.n_head + 2 * config.n_kv_head) * config.head_dim, bias=config.bias)
        self.out = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None, layer: int, cache: Cache | None) -> Tensor:
        B, T, _ = x.shape
        qkv = self.qkv(x).view(B, T, -1, self.head_dim).transpose(1, 2)  # (B, H + 2G, T, D)
        qk, v = qkv.split((self.n_head + self.n_kv_head, self.n_kv_head), dim=1)
        if angles is not None:
            qk = rotate(qk, *angles)
        q, k = qk.split((self.n_head, self.n_kv_head), dim=1)
        segments = [(q, k, v, None, True)] if cache is None else cache.append(layer, q, k, v)
        z = [attend(*segment) for segment in segments]  # each (B, H, t, D)
        z = z[0] if len(z) == 1 else torch.cat(z, dim=2)  # (B, H, T, D)
        return self.out(z.transpose(1, 2).reshape(B, T, -1))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """softmax(q k^T / sqrt(D)) v by torch's fused kernel: q (B, H, t, D), k and v (B, G, S, D) -> (B, H, t, D)."""
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


class MLP(nn.Module):
    """down(gelu(up(x))), or down(silu(gate(x)) * up(x)) with gate and up fused in one matrix."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gated = config.mlp == "swiglu"
        self.up = nn.Linear(config.n_embd, config.d_mlp * (1 + self.gated), bias=config.bias)
        self.down = nn.Linear(config.d_mlp, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if self.gated:
            gate, up = x.chunk(2, dim=-1)
            return self.down(F.silu(gate) * up)
        return self.down(F.gelu(x, approximate="tanh"))


class Block(nn.Module):
    """One layer: the residual stream gains what attention read, then what the MLP made of it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm_1, self.attn = make_norm(config), Attention(config)
        self.norm_2, self.mlp = make_norm(config), MLP(config)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None, layer: int, cache: Cache | None) -> Tensor:
        x = x + self.attn(self.norm_1(x), angles, layer, cache)
        return x + self.mlp(self.norm_2(x))


class GPT(nn.Module):
    """Tokens in, logits for the next token out."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if config.position == "learned" else None
        self.rotary = Rotary(config) if config.position == "rope" else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm_f = make_norm(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.wte.weight

    @property
    def device(self) -> torch.device:
        return self.norm_f.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.norm_f.weight.dtype

    def nbytes(self) -> int:
        """Bytes of all weights, a tied matrix counted once."""
        return sum(p.nbytes for p in (*self.parameters(), *self.buffers()))

    def forward(
        self, tokens: Tensor, positions: Tensor, cache: Cache | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Logits (B, R, V) in float32 for the positions named by `rows` (indices into T; all T of them when None).

        tokens (B, T) and positions (B, T) or (T,) are int64. Without a cache every row of the batch is a sequence of
        its own that starts at its first token. With a cache, B is 1 and T may hold pieces of several sequences one
        after another: the cache says which queries belong to which keys.
        """
        x = self.wte(tokens)  # (B, T, C)
        if self.wpe is not None:
            x = x + self.wpe(positions)
        angles = None
        if self.rotary is not None:
            cos, sin = self.rotary.angles(positions)
            angles = cos.to(x.dtype), sin.to(x.dtype)
        for layer, block in enumerate(self.blocks):
            x = block(x, angles, layer, cache)
        x = self.norm_f(x)
        if cache is not None:
            cache.keep(x)
        return self.unembed(x if rows is None else x[:, rows])

    def unembed(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) in float32 from hidden states (..., C) after the last norm."""
        return self.lm_head(hidden).float()
