"""A block of packed matrices in two calls of the kernels, one before and one after attention, instead of twenty.

What takes a token's time besides its products are small operations and the waking of threads between them, thirty
times over. The block here computes what Block of model.py does, and keeps its parts under the same names; where a layer
is of another make, the parts themselves are called.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.bindings import Block as Plan
from gpt.bindings import Matrix
from gpt.model import Angles, Block, Cache, RMSNorm, attend, gelu_tanh
from gpt.native import kernels
from gpt.quant import PackedLinear, StackedLinear

__all__ = ["FusedBlock", "fuse_blocks"]


class FusedBlock(nn.Module):
    """A block with RMS norms before attention and MLP, whose matrices are packed, and whose MLP is gated."""

    def __init__(self, block: Block, plan: Plan) -> None:
        super().__init__()
        for name, part in block.named_children():
            setattr(self, name, part)
        self._plan, attn = plan, block.attn
        self._heads, self._head_dim = (attn.n_head, attn.n_kv_head, attn.n_kv_head), attn.head_dim
        self._scale = attn.scale or attn.head_dim**-0.5

    def forward(self, x: Tensor, angles: Angles | None, layer: int, cache: Cache | None) -> Tensor:
        B, T, _ = x.shape
        qkv = kernels().before_attention(self._plan, x, angles)
        q, k, v = qkv.view(B, T, -1, self._head_dim).transpose(1, 2).split(self._heads, dim=1)
        segments = (
            [self.attn.alone(q, k.contiguous(), v.contiguous())] if cache is None else cache.append(layer, q, k, v)
        )
        z = [self._attend(*segment) for segment in segments]  # each (B, H, t, D)
        z = z[0] if len(z) == 1 else torch.cat(z, dim=2)
        return kernels().after_attention(self._plan, x, z.transpose(1, 2).reshape(B, T, -1))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        if q.shape[0] == 1 and not self.attn.softcap:
            return kernels().attention(q, k, v, self._scale, mask, causal)
        return attend(q, k, v, mask, causal, self._scale, self.attn.softcap)


def fuse_blocks(model: nn.Module) -> None:
    """Put a FusedBlock in the place of every block that can be one."""
    for i, block in enumerate(model.blocks):
        if plan := _plan_of(block):
            model.blocks[i] = FusedBlock(block, plan)


def _plan_of(block: Block) -> Plan | None:
    """What the kernels need of a block; None for a block that they cannot compute."""
    attn, mlp = block.attn, block.mlp
    norms = block.norm_1, block.norm_2, block.post_norm_1, block.post_norm_2, attn.q_norm, attn.k_norm
    linears = attn.qkv, attn.out, mlp.up, mlp.down
    activation = {F.silu: 0, gelu_tanh: 1}.get(mlp.activation)
    over_heads = attn.q_norm is None or attn.q_norm.weight.numel() == attn.head_dim
    if block.parallel or not (mlp.gated and over_heads and activation is not None):
        return None
    if not all(isinstance(norm, RMSNorm) or (i > 1 and norm is None) for i, norm in enumerate(norms)):
        return None
    if not all(isinstance(linear, PackedLinear | StackedLinear) for linear in linears):
        return None
    qkv, out, down = (linear.matrices() for linear in (attn.qkv, attn.out, mlp.down))
    gated = mlp.up.matrices(2) if isinstance(mlp.up, PackedLinear) else mlp.up.matrices()
    shares = all(len(part) == 1 for part in (out, down)) and len(gated) == 2 and len(qkv) <= 3
    if not shares or mlp.down.in_features % kernels().block_size:
        return None
    at = (None if norm is None else norm.weight.data_ptr() for norm in norms)
    matrices = (Matrix * 3)(*qkv), *out, *gated, *down
    return Plan(*at, *matrices, len(qkv), attn.n_head, attn.n_kv_head, attn.head_dim, activation, norms[0].eps)
