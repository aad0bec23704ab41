"""A block of packed matrices in two calls of the kernels, one before and one after attention, instead of twenty.

What takes a token's time besides its products are small operations and the waking of threads between them, thirty
times over. The block here computes what Block of model.py does, and keeps its parts under the same names; where a layer
is of another make, the parts themselves are called.
"""

import torch
from torch import Tensor, nn

from gpt.model import Block, Cache, RMSNorm, attend
from gpt.native import Block as Plan
from gpt.native import Matrix, kernels
from gpt.quant import PackedLinear, StackedLinear

__all__ = ["FusedBlock", "fuse_blocks"]


class FusedBlock(nn.Module):
    """A block whose norms are RMS norms, whose matrices are packed, and whose MLP is gated by SiLU."""

    def __init__(self, block: Block, plan: Plan) -> None:
        super().__init__()
        self.norm_1, self.attn, self.norm_2, self.mlp = block.norm_1, block.attn, block.norm_2, block.mlp
        self._plan = plan
        self._heads = block.attn.n_head, block.attn.n_kv_head, block.attn.n_kv_head
        self._head_dim = block.attn.head_dim

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], layer: int, cache: Cache | None) -> Tensor:
        B, T, _ = x.shape
        qkv = kernels().before_attention(self._plan, x, *angles)
        q, k, v = qkv.view(B, T, -1, self._head_dim).transpose(1, 2).split(self._heads, dim=1)
        segments = [(q, k.contiguous(), v.contiguous(), None, True)] if cache is None else cache.append(layer, q, k, v)
        z = [self._attend(*segment) for segment in segments]  # each (B, H, t, D)
        z = z[0] if len(z) == 1 else torch.cat(z, dim=2)
        return kernels().after_attention(self._plan, x, z.transpose(1, 2).reshape(B, T, -1))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        if q.shape[0] == 1:
            return kernels().attention(q, k, v, self._head_dim**-0.5, mask, causal)
        return attend(q, k, v, mask, causal)


def fuse_blocks(model: nn.Module) -> None:
    """Put a FusedBlock in the place of every block that can be one."""
    for i, block in enumerate(model.blocks):
        if plan := _plan_of(block):
            model.blocks[i] = FusedBlock(block, plan)


def _plan_of(block: Block) -> Plan | None:
    """What the kernels need of a block; None for a block that they cannot compute."""
    attn, mlp, norms = block.attn, block.mlp, (block.norm_1, block.norm_2)
    linears = (attn.qkv, attn.out, mlp.up, mlp.down)
    if not (attn.rotary and mlp.gated and all(isinstance(norm, RMSNorm) for norm in norms)):
        return None
    if not all(isinstance(linear, PackedLinear | StackedLinear) for linear in linears):
        return None
    qkv, out, down = (linear.matrices() for linear in (attn.qkv, attn.out, mlp.down))
    gated = mlp.up.matrices(2) if isinstance(mlp.up, PackedLinear) else mlp.up.matrices()
    shares = all(len(part) == 1 for part in (out, down)) and len(gated) == 2 and len(qkv) <= 3
    if not shares or mlp.down.in_features % kernels().block_size:
        return None
    return Plan(
        norms[0].weight.data_ptr(),
        norms[1].weight.data_ptr(),
        norms[0].eps,
        norms[1].eps,
        (Matrix * 3)(*qkv),
        *out,
        *gated,
        *down,
        len(qkv),
        attn.n_head + attn.n_kv_head,
        attn.head_dim,
    )
