"""Whether kernels compute what they should: small products, attention and blocks against torch in float64.

A compiler may be wrong, or its flags; what does not come out right here is not used.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.bindings import Block, Kernels, Matrix

__all__ = ["is_right"]


def is_right(made: Kernels) -> bool:
    """Whether small products, what one query reads, and a block equal what torch makes of the same numbers."""
    generator = torch.Generator().manual_seed(0)
    kinds = [(bits, group, halves) for bits, group in ((4, 32), (8, 32), (8, 16)) for halves in (False, True)]
    kinds += [(16, 32, False), (16, 32, True)]
    matrices = [_Random(made, kind, (made.block_size + 1, 64), generator) for kind in kinds]
    return all(m.is_right(made) for m in matrices) and _reads_right(made, generator) and _blocks_right(made, generator)


class _Random:
    """A random matrix as the kernels know it, and in float64."""

    def __init__(
        self, made: Kernels, kind: tuple[int, int, bool], shape: tuple[int, int], generator: torch.Generator
    ) -> None:
        bits, group, halves = kind
        codes = torch.randint(0, 2 ** min(bits, 8), shape, generator=generator, dtype=torch.uint8)
        scale, minimum = torch.randn(2, shape[0], shape[1] // group, generator=generator)
        if halves:
            scale, minimum = scale.half().float(), minimum.half().float()
        terms = scale.double()[..., None] * codes.unflatten(1, (-1, group)), minimum.double()[..., None]
        self.exact, self.bound = sum(terms).flatten(1), 1e-5 * sum(term.abs() for term in terms).flatten(1)
        if bits == 16:
            numbers = self.exact.to(torch.float16 if halves else torch.bfloat16)
            self.exact, self._kept = numbers.double(), (made.pack_halves(numbers), None)
        else:
            self._kept = made.pack(codes, bits), made.pack_scales(scale, minimum)
        self.matrix = made.matrix(*self._kept, shape, bits, halves)

    def is_right(self, made: Kernels) -> bool:
        x = torch.linspace(-1, 1, 8 * self.exact.shape[1]).view(8, -1).sin()
        error = made.linear(x, self.matrix) - x.double() @ self.exact.T
        return bool(torch.all(error.abs() <= x.double().abs() @ self.bound.T))


def _reads_right(made: Kernels, generator: torch.Generator) -> bool:
    mask = torch.ones(70, 150, dtype=torch.bool).tril_(80)
    for D, T in ((D, T) for D in (24, 64, 128) for T in (1, 70)):
        q, k, v = (torch.randn(1, heads, n, D, generator=generator) for heads, n in ((4, T), (2, 150), (2, 150)))
        visible = mask if T > 1 else None
        expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), visible, enable_gqa=True)
        if not torch.allclose(made.attention(q, k, v, D**-0.5, visible).double(), expected, rtol=0, atol=1e-5):
            return False
    return True


def _blocks_right(made: Kernels, generator: torch.Generator) -> bool:
    """A block of 2 + 1 heads of 16 numbers, with and without its options."""
    C, D, inner, T = 64, 16, 2 * made.block_size, 5
    shapes = {"qkv": (4 * D, C), "out": (C, 2 * D), "gate": (inner, C), "up": (inner, C), "down": (C, inner)}
    m = {name: _Random(made, (4, 32, True), shape, generator) for name, shape in shapes.items()}
    norms = [torch.rand(n, generator=generator) for n in (C, C, C, C, D, D)]
    norms[1] /= 100  # so that gates are neither open nor shut
    x, z, angles = (torch.randn(1, T, n, generator=generator) / 64 for n in (C, 2 * D, D))
    matrices = (Matrix * 3)(m["qkv"].matrix), *(m[name].matrix for name in ("out", "gate", "up", "down"))
    for more in (False, True):
        at = (norm.data_ptr() if more or i < 2 else None for i, norm in enumerate(norms))
        block = Block(*at, *matrices, 1, 2, 1, D, more, 1e-5)
        exact = _Exact({name: random.exact for name, random in m.items()}, norms, more)
        ours = made.before_attention(block, x, (angles.cos(), angles.sin())), made.after_attention(block, x, z)
        theirs = exact.before(x.double(), angles.double()), exact.after(x.double(), z.double())
        errors = [(a - b).abs().max() / b.abs().max() for a, b in zip(ours, theirs, strict=True)]
        if not max(errors) < 1e-4:  # nor NaN
            return False
    return True


class _Exact(NamedTuple):
    """What a block gives, in float64; `more`: with norms after attention and MLP and over heads, and by GELU."""

    weights: dict[str, Tensor]
    norms: list[Tensor]
    more: bool

    def of(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[name].T

    def normed(self, x: Tensor, i: int, wanted: bool = True) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.norms[i].double(), 1e-5) if wanted else x

    def before(self, x: Tensor, angles: Tensor) -> Tensor:
        q, k, v = self.of("qkv", self.normed(x, 0)).view(*x.shape[:2], 4, -1).split((2, 1, 1), dim=2)
        qk = torch.cat((self.normed(q, 4, self.more), self.normed(k, 5, self.more)), dim=2)
        half = qk.shape[-1] // 2
        swapped = torch.cat((-qk[..., half:], qk[..., :half]), dim=-1)
        turned = qk * angles.cos()[:, :, None] + swapped * angles.sin()[:, :, None]
        return torch.cat((turned, v), dim=2).flatten(2)

    def after(self, x: Tensor, z: Tensor) -> Tensor:
        x = x + self.normed(self.of("out", z), 2, self.more)
        hidden = self.normed(x, 1)
        gate = self.of("gate", hidden)
        opened = F.gelu(gate, approximate="tanh") if self.more else F.silu(gate)
        return x + self.normed(self.of("down", opened * self.of("up", hidden)), 3, self.more)
