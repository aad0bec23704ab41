"""A GPT, read from top to bottom: norm, rotary positions, attention, MLP, block, model.

It computes logits and nothing else: no files, no sampling, no hooks, no capture. Families differ by config values
that are resolved in `__init__`: what a layer does not need is not there, and costs nothing. Attention patterns are
derived afterwards from the queries and keys that the cache keeps (interp.py).

Dimensions: B batch, T new positions, S cached positions, C n_embd, H n_head, G n_kv_head, D head_dim, V vocab_size, L
n_layer.

Sources: Vaswani et al. 2017 (attention), Radford et al. 2019 (GPT-2: pre-norm, learned positions, tanh GELU, tied
head), Touvron et al. 2023 (Llama), Su et al. 2021 (rotary positions), Zhang & Sennrich 2019 (RMSNorm), Shazeer 2020
(SwiGLU and GeGLU), Ainslie et al. 2023 (grouped queries), Black et al. 2022 (GPT-NeoX: attention and MLP side by side,
positions over a part of a head), Jiang et al. 2023 (Mistral: sliding windows), Henry et al. 2020 (norms of queries and
keys), Gemma Team 2024 (soft-caps, norms on both sides), OLMo Team 2025 (norms after).
"""

from collections.abc import Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.config import GPTConfig, Rope
from gpt.rope import frequencies

__all__ = ["GPT", "Cache", "Segment", "sight_mask"]

Angles = tuple[Tensor, Tensor]
"""cos and sin (..., 1, T, dim) of what positions turn the first dim dimensions of a head by."""

Segment = tuple[Tensor, Tensor, Tensor, Tensor | None, bool]
"""Queries (B, H, t, D), keys and values (B, G, S, D), a mask (t, S), or one more for each row of a batch (B, 1, t, S),
True where one may look, or None; is_causal."""


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
    return nn.LayerNorm(config.n_embd, eps=config.norm_eps)


class Rotary(nn.Module):
    """Rotary position embedding: position p turns the pair (i, i + dim/2) of a head by the angle p * frequency i."""

    def __init__(self, rope: Rope, head_dim: int) -> None:
        super().__init__()
        self.amplitude = rope.amplitude
        self.frequencies = frequencies(rope, head_dim)  # no buffer: it must stay float32 whatever the model becomes

    def angles(self, positions: Tensor) -> Angles:
        """cos and sin for positions (..., T): each (..., 1, T, dim) float32; the same in every head."""
        if self.frequencies.device != positions.device:
            self.frequencies = self.frequencies.to(positions.device)
        freqs = positions[..., None].float() * self.frequencies  # (..., T, dim/2)
        freqs = torch.cat((freqs, freqs), dim=-1).unsqueeze(-3)  # (..., 1, T, dim)
        if self.amplitude != 1:
            return freqs.cos() * self.amplitude, freqs.sin() * self.amplitude
        return freqs.cos(), freqs.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first dim dimensions of x (B, H, T, D) by the angles of `Rotary.angles`."""
    dim = cos.shape[-1]
    if dim < x.shape[-1]:
        return torch.cat((rotate(x[..., :dim], cos, sin), x[..., dim:]), dim=-1)
    half = dim // 2
    swapped = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + swapped * sin


class Attention(nn.Module):
    """Causal self-attention with grouped queries: H query heads share G key/value heads, H / G in a row."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        rope = config.rope_of(layer)
        self.rotary = 0 if rope is None else rope.dim or config.head_dim  # how many dimensions of a head turn
        self.window, self.scale, self.softcap = config.window(layer), config.scale or None, config.softcap
        widths = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
        self.qkv = nn.Linear(config.n_embd, widths[0] + 2 * widths[1], bias=config.qkv_bias)
        self.out = nn.Linear(widths[0], config.n_embd, bias=config.out_bias)
        self.q_norm = self.k_norm = None
        if config.qk_norm != "none":  # over each head, or over all heads together
            q, k = widths if config.qk_norm == "all" else (config.head_dim, config.head_dim)
            self.q_norm, self.k_norm = RMSNorm(q, config.norm_eps), RMSNorm(k, config.norm_eps)

    def forward(self, x: Tensor, angles: Angles | None, layer: int, cache: Cache | None) -> Tensor:
        B, T, _ = x.shape
        qkv = self.qkv(x).view(B, T, -1, self.head_dim)
        if self.q_norm is not None:
            qkv = self._normed(qkv)
        qkv = qkv.transpose(1, 2)  # (B, H + 2G, T, D)
        qk, v = qkv.split((self.n_head + self.n_kv_head, self.n_kv_head), dim=1)
        if angles is not None:
            qk = rotate(qk, *angles)
        q, k = qk.split((self.n_head, self.n_kv_head), dim=1)
        segments = [self.alone(q, k, v)] if cache is None else cache.append(layer, q, k, v)
        z = [attend(*segment, self.scale, self.softcap) for segment in segments]  # each (B, H, t, D)
        z = z[0] if len(z) == 1 else torch.cat(z, dim=2)  # (B, H, T, D)
        return self.out(z.transpose(1, 2).reshape(B, T, -1))

    def _normed(self, qkv: Tensor) -> Tensor:
        """Queries and keys of qkv (B, T, H + 2G, D) after their norms."""
        q, k, v = qkv.split((self.n_head, self.n_kv_head, self.n_kv_head), dim=2)
        q, k = (
            norm(x.reshape(*x.shape[:2], -1, norm.weight.shape[0])).view(x.shape)
            for norm, x in ((self.q_norm, q), (self.k_norm, k))
        )
        return torch.cat((q, k, v), dim=2)

    def alone(self, q: Tensor, k: Tensor, v: Tensor) -> Segment:
        """A whole text that attends to itself."""
        T = q.shape[2]
        if self.window is None or self.window >= T:
            return q, k, v, None, True
        return q, k, v, sight_mask(0, 0, T, self.window, q.device), False


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None = None, softcap: float = 0.0
) -> Tensor:
    """softmax(q k^T * scale) v by torch's fused kernel: q (B, H, t, D), k and v (B, G, S, D) -> (B, H, t, D).

    `scale` is 1 / sqrt(D) when it is None. With a soft-cap, which that kernel does not know, in float32 by hand.
    """
    grouped = q.shape[1] != k.shape[1]
    if not softcap:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped
        )
    (B, H, t, D), (G, S) = q.shape, k.shape[1:3]
    q = q.reshape(B, G, H // G * t, D).float()  # queries that share a key head, one below the other
    scores = (q @ k.float().transpose(-1, -2)).view(B, H, t, S) * (D**-0.5 if scale is None else scale)
    scores = softcap * torch.tanh(scores / softcap)
    if causal:
        mask = sight_mask(0, 0, t, None, q.device)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    z = scores.softmax(-1).view(B, G, -1, S) @ v.float()
    return z.view(B, H, t, D).to(v.dtype)


def sight_mask(start: int, first: int, end: int, window: int | None, device: torch.device) -> Tensor:
    """Which of the keys first..end-1 the queries start..end-1 look at: (t, S), True where they do.

    None after the query itself, and of a window so many up to it.
    """
    ago = torch.arange(start, end, device=device)[:, None] - torch.arange(first, end, device=device)
    return ago >= 0 if window is None else (ago >= 0) & (ago < window)


def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


MLPS = {"gelu": (False, F.gelu), "gelu_tanh": (False, gelu_tanh), "swiglu": (True, F.silu), "geglu": (True, gelu_tanh)}
"""What the names of GPTConfig.mlp stand for: whether it is gated, and by what."""


class MLP(nn.Module):
    """down(activation(up(x))), or down(activation(gate(x)) * up(x)) with gate and up fused in one matrix."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gated, self.activation = MLPS[config.mlp]
        self.up = nn.Linear(config.n_embd, config.d_mlp * (1 + self.gated), bias=config.mlp_bias)
        self.down = nn.Linear(config.d_mlp, config.n_embd, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if self.gated:
            gate, up = x.chunk(2, dim=-1)
            return self.down(self.activation(gate) * up)
        return self.down(self.activation(x))


class Block(nn.Module):
    """One layer: the residual stream gains what attention read, then what the MLP made of it.

    Or both at once of the same stream, side by side. Norms stand before either, after it (`post_norm`), or both.
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        before, after = config.norm_place != "after", config.norm_place != "before"
        self.norm_1, self.attn = make_norm(config) if before else nn.Identity(), Attention(config, layer)
        self.norm_2, self.mlp = make_norm(config) if before else nn.Identity(), MLP(config)
        self.post_norm_1 = make_norm(config) if after else None
        self.post_norm_2 = make_norm(config) if after else None
        self.parallel = config.parallel

    def forward(self, x: Tensor, angles: Angles | None, layer: int, cache: Cache | None) -> Tensor:
        read = self.attn(self.norm_1(x), angles, layer, cache)
        if self.parallel:
            return x + read + self.mlp(self.norm_2(x))
        x = x + (read if self.post_norm_1 is None else self.post_norm_1(read))
        made = self.mlp(self.norm_2(x))
        return x + (made if self.post_norm_2 is None else self.post_norm_2(made))


class GPT(nn.Module):
    """Tokens in, logits for the next token out."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if config.position == "learned" else None
        turned = config.position == "rope"
        self.rotary = Rotary(config.rope, config.head_dim) if turned else None
        self.local_rotary = Rotary(config.local_rope, config.head_dim) if turned and config.local_rope else None
        tables = None, config.rope, config.local_rope
        self._turned_by = [tables.index(config.rope_of(layer)) for layer in range(config.n_layer)]
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
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
        its own that starts at its first token. With a cache, T may hold pieces of several sequences one after another:
        the cache says which queries belong to which keys.
        """
        x = self.wte(tokens)  # (B, T, C)
        if self.config.embed_scale != 1:
            x = x * torch.tensor(self.config.embed_scale, dtype=x.dtype)  # rounded as the reference rounds it
        if self.wpe is not None:
            x = x + self.wpe(positions)
        angles = self._angles(positions, x.dtype)
        for layer, block in enumerate(self.blocks):
            x = block(x, angles[layer], layer, cache)
        x = self.norm_f(x)
        if cache is not None:
            cache.keep(x)
        return self.unembed(x if rows is None else x[:, rows])

    def unembed(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) in float32 from hidden states (..., C) after the last norm."""
        logits = self.lm_head(hidden).float()
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def _angles(self, positions: Tensor, dtype: torch.dtype) -> list[Angles | None]:
        """What turns queries and keys of each layer: made once for all layers that turn alike."""

        def made(rotary: Rotary | None) -> Angles | None:
            return None if rotary is None else tuple(angle.to(dtype) for angle in rotary.angles(positions))

        tables = None, made(self.rotary), made(self.local_rotary)
        return [tables[table] for table in self._turned_by]
