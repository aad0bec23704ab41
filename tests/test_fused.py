"""A block in two calls of the kernels against the same block part by part, and attention against torch's."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from gguf import GGMLQuantizationType as Quant
from torch import Tensor, nn

from gpt.cache import KVCache, PackedCaches
from gpt.checkpoint import open_checkpoint
from gpt.config import GPTConfig, Rope
from gpt.fused import FusedBlock, fuse_blocks
from gpt.groups import Groups
from gpt.model import GPT, Block
from gpt.native import kernels
from gpt.quant import linear_of
from tests.test_checkpoint import make_gpt2, make_llama, write_gguf


def loaded(path: Path, kinds: dict[str, Quant], monkeypatch: pytest.MonkeyPatch) -> tuple[GPT, GPT]:
    """The same quantised file with blocks in two calls and with blocks part by part."""
    write_gguf(path, make_llama(vocab_size=272), Quant.Q4_1, kinds=kinds)
    fused = open_checkpoint(path).model(stored=True)
    monkeypatch.setattr("gpt.checkpoint.fuse_blocks", lambda model: None)
    return fused, open_checkpoint(path).model(stored=True)


MIXED = {
    "blk.0.attn_v.weight": Quant.Q8_0,
    "blk.0.ffn_up.weight": Quant.Q5_1,
    "blk.1.attn_output.weight": Quant.Q8_0,
    "blk.1.ffn_down.weight": Quant.BF16,
}
TOKENS = torch.randint(0, 272, (40,), generator=torch.Generator().manual_seed(3))


def kinds_of(model: GPT) -> list[type]:
    return [type(block) for block in model.blocks]


@pytest.mark.parametrize("kinds", [{}, MIXED], ids=["one kind", "mixed"])
@torch.inference_mode()
def test_a_fused_model_gives_what_its_parts_give(tmp_path, monkeypatch, kinds):
    fused, parts = loaded(tmp_path / "a.gguf", kinds, monkeypatch)
    assert kinds_of(fused) == [FusedBlock] * 2
    assert kinds_of(parts) == [Block] * 2
    for batch in (TOKENS[None], TOKENS.view(4, 10)):
        ours, theirs = (model(batch, torch.arange(batch.shape[1])) for model in (fused, parts))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    positions = torch.stack((torch.arange(10), torch.arange(20, 30)))
    ours, theirs = (model(TOKENS[:20].view(2, 10), positions) for model in (fused, parts))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_token_by_token_and_several_at_once_as_in_one_read(tmp_path, monkeypatch):
    fused, parts = loaded(tmp_path / "a.gguf", {}, monkeypatch)
    expected = parts(TOKENS[None], torch.arange(40))[0]
    caches = [KVCache(fused.config) for _ in range(2)]
    for i in range(0, 20):  # two sessions, of which one is 20 tokens ahead
        pair = PackedCaches(caches, (1, 1) if i else (1, 21))
        pair.reserve()
        second = slice(20 + i, 21 + i) if i else slice(0, 21)
        tokens = torch.cat((TOKENS[i : i + 1], TOKENS[second]))
        positions = torch.cat((torch.tensor([i]), torch.arange(second.start, second.stop)))
        logits = fused(tokens[None], positions, pair)[0]
        pair.advance()
        torch.testing.assert_close(logits[0], expected[i], rtol=0, atol=1e-4)
        torch.testing.assert_close(logits[-1], expected[20 + i], rtol=0, atol=1e-4)


def test_what_the_kernels_cannot_compute_stays_as_it_is(tmp_path):
    for name, kinds in (("down", {"blk.0.ffn_down.weight": Quant.F32}), ("query", {"blk.0.attn_q.weight": Quant.F32})):
        write_gguf(tmp_path / f"{name}.gguf", make_llama(vocab_size=272), Quant.Q4_1, kinds=kinds)
        model = open_checkpoint(tmp_path / f"{name}.gguf").model(stored=True)
        assert kinds_of(model) == [Block, FusedBlock]
    write_gguf(tmp_path / "gpt2.gguf", make_gpt2(vocab_size=272), Quant.Q4_1)
    assert kinds_of(open_checkpoint(tmp_path / "gpt2.gguf").model(stored=True)) == [Block] * 2


OPTIONS = {
    "plain": {},
    "biases": dict(qkv_bias=True, out_bias=True, mlp_bias=True),
    "norms of heads": dict(qk_norm="head"),
    "norms on both sides": dict(norm_place="both"),
    "geglu": dict(mlp="geglu"),
    "part of a head turns": dict(rope=Rope(dim=8, theta=100.0)),
    "no rotation": dict(unturned=(0,)),
    "window": dict(windows=(3,)),
    "scale": dict(scale=0.7),
    "soft-cap": dict(softcap=2.0),
    "Gemma's": dict(mlp="geglu", norm_place="both", qk_norm="head", windows=(5,), scale=0.1, n_kv_head=1),
}


def random_block(**options: object) -> tuple[GPT, tuple[Tensor, Tensor] | None]:
    """A model of one block with packed matrices of every kind, and its angles for 9 positions."""
    torch.manual_seed(0)
    shape = dict(n_layer=1, n_head=4, n_kv_head=4, n_embd=64, head_dim=24, d_mlp=96, block_size=64, vocab_size=9)
    config = GPTConfig(**shape | options)
    model = GPT(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.5)
    block = model.blocks[0]
    if config.mlp_bias:
        block.mlp.up.bias.data[:96] *= 200  # gates that are wide open, and shut
    parts = [(4, 32), (8, 16), (8, 32)] if config.n_kv_head == 4 else [(4, 32)]
    block.attn.qkv = random_linear(block.attn.qkv, *parts)
    block.attn.out, block.mlp.down = random_linear(block.attn.out, (8, 32)), random_linear(block.mlp.down, (16, 0))
    block.mlp.up = random_linear(block.mlp.up, (8, 16), (4, 32))
    return model, model._angles(torch.arange(9), torch.float32)[0]


def random_linear(old: nn.Linear, *kinds: tuple[int, int]) -> nn.Module:
    """Random matrices of (bits, group) in the place of one: each an equal part of its outputs."""
    out, parts = old.out_features // len(kinds), []
    for bits, group in kinds:
        if bits == 16:
            parts.append(torch.randn(out, old.in_features).bfloat16() / old.in_features**0.5)
            continue
        codes = torch.randint(0, 2**bits, (out, old.in_features), dtype=torch.uint8)
        scale = torch.rand(out, old.in_features // group) / 2**bits / old.in_features**0.5
        parts.append(Groups(codes, scale, -scale * 2 ** (bits - 1), bits))
    return linear_of(parts, old.bias)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@torch.inference_mode()
def test_every_option_of_a_block_is_what_its_parts_make_of_it(options):
    model, angles = random_block(**options)
    x = torch.randn(1, 9, 64)
    expected = model.blocks[0](x, angles, 0, None)
    fuse_blocks(model)
    assert kinds_of(model) == [FusedBlock]
    torch.testing.assert_close(model.blocks[0](x, angles, 0, None), expected, rtol=1e-5, atol=1e-5)
    cache = KVCache(model.config)
    for i in range(9):
        cache.reserve(1)
        here = angles and tuple(angle[..., i : i + 1, :] for angle in angles)
        row = model.blocks[0](x[:, i : i + 1], here, 0, cache)
        cache.keep(row)
        cache.advance(1)
        torch.testing.assert_close(row, expected[:, i : i + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [dict(norm="layernorm"), dict(norm_place="after"), dict(parallel=True), dict(mlp="gelu"), dict(qk_norm="all")],
    ids=str,
)
def test_blocks_of_another_make_stay_as_they_are(options):
    shape = dict(n_layer=1, n_head=4, n_kv_head=4, n_embd=96, head_dim=24, d_mlp=96, block_size=64, vocab_size=9)
    model = GPT(GPTConfig(**shape | options))
    block = model.blocks[0]
    for parent, name in ((block.attn, "qkv"), (block.attn, "out"), (block.mlp, "up"), (block.mlp, "down")):
        setattr(parent, name, random_linear(getattr(parent, name), (4, 32)))
    fuse_blocks(model)
    assert kinds_of(model) == [Block]


# ---- attention -------------------------------------------------------------------------------------------------------


def ours(q: Tensor, k: Tensor, v: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double(), mask, scale=scale, enable_gqa=True)
    return kernels().attention(q, k, v, scale, mask).double(), exact


@pytest.mark.parametrize("dim", [4, 24, 64, 80, 128, 256])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 500])
def test_one_query_reads_what_torch_reads(dim, length):
    torch.manual_seed(dim)
    q, buffers = torch.randn(1, 6, 1, dim), torch.randn(2, 1, 2, 512, dim)
    k, v = buffers[:, :, :, :length]  # heads stand apart, as in a cache
    torch.testing.assert_close(*ours(q, k, v, dim**-0.5), rtol=0, atol=2e-6)


def test_scores_that_are_far_apart_or_large_do_no_harm():
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 1, 64), torch.randn(1, 1, 300, 64), torch.randn(1, 1, 300, 64)
    for factor in (0.0, 30.0, 1e4):
        torch.testing.assert_close(*ours(q * factor, k, v), rtol=0, atol=1e-5)
    k[0, 0, 7] = torch.nan
    assert kernels().attention(q, k, v, 1.0).isnan().all()


def test_exponentials_are_right_from_end_to_end():
    """Two keys, of which the second's weight is e^x / (1 + e^x)."""
    x = torch.linspace(-90, 90, 181)
    q, k = torch.ones(1, 181, 1, 16) * x[:, None, None], torch.zeros(1, 1, 2, 16)
    k[..., 1, 0] = 1
    v = torch.tensor([0.0, 1.0])[:, None].expand(2, 16).contiguous()[None, None]
    z = kernels().attention(q, k, v, 1.0)[0, :, 0, 0].double()
    torch.testing.assert_close(z, x.double().sigmoid(), rtol=3e-6, atol=1e-37)


@pytest.mark.parametrize("dim", [4, 24, 64, 80, 128, 256])
@pytest.mark.parametrize(("length", "past"), [(2, 0), (33, 0), (70, 0), (2, 62), (5, 300), (64, 64)])
def test_many_queries_read_what_torch_reads(dim, length, past):
    torch.manual_seed(dim)
    rows = torch.randn(1, length, 6, dim).transpose(1, 2)  # a head's queries stand apart, as they come from a product
    k, v = torch.randn(2, 1, 2, 512, dim)[:, :, :, : past + length]
    below = torch.ones(length, past + length, dtype=torch.bool).tril_(past)
    masks = [below, below.triu(past - 20), torch.ones_like(below), below & (torch.rand(below.shape) < 0.5)]
    masks[-1][:, 0] = True  # a query that sees nothing has no answer
    for mask in masks:
        torch.testing.assert_close(*ours(rows, k, v, dim**-0.5, mask), rtol=0, atol=2e-6)
    if not past:
        assert torch.equal(*(kernels().attention(rows, k, v, 0.3, *how) for how in ((below,), (None, True))))
    assert torch.equal(*(kernels().attention(rows, k, v, 0.3, *how) for how in ((masks[2],), (None, False))))


def test_a_query_reads_the_same_bits_whatever_is_read_beside_it():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, 90, 64) for heads in (4, 2, 2))
    mask = torch.ones(90, 90, dtype=torch.bool).tril_()
    whole = kernels().attention(q, k, v, 0.125, mask)
    for start, end in ((0, 2), (7, 40), (40, 90)):
        piece = kernels().attention(q[:, :, start:end], k, v, 0.125, mask[start:end])
        assert torch.equal(piece, whole[:, :, start:end])


def test_many_queries_with_scores_far_apart_or_not_a_number():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, 70, 64) for heads in (2, 1, 1))
    mask = torch.ones(70, 70, dtype=torch.bool).tril_()
    for scale in (0.0, 3.0):
        torch.testing.assert_close(*ours(q, k, v, scale, mask), rtol=0, atol=2e-5)
    assert kernels().attention(q, k, v, 1e30, mask).abs().max() <= v.abs().max()
    k[0, 0, 50] = torch.nan
    z = kernels().attention(q, k, v, 0.125, mask)
    assert z[:, :, 50:].isnan().all()
    assert not z[:, :, :50].isnan().any()
