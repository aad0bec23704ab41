"""Quantised layers against `gguf` dequantisation in float64, small quantised models against dequantised ones."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Quant
from torch import Tensor, nn

from gpt import load
from gpt.chat import ChatTemplate
from gpt.checkpoint import open_checkpoint
from gpt.engine import Engine
from gpt.groups import GROUPED, Groups
from gpt.interp import Sight, attention_pattern, output_gram, sight_rows
from gpt.model import GPT, RMSNorm, rotate
from gpt.native import kernels
from gpt.quant import (
    HalfLinear,
    QuantEmbedding,
    QuantLinear,
    QuickRMSNorm,
    StackedLinear,
    is_packed,
    linear_of,
    precision_of,
)
from gpt.tokenizer import Tokenizer
from gpt.weights import GGUFFile
from tests.conftest import byte_fields
from tests.test_checkpoint import interleaved, make_gpt2, make_llama, write_gguf

KINDS = list(GROUPED)
OUT, IN, HEAD_DIM = 48, 256, 12
K_BYTES = {Quant.Q4_K: 144, Quant.Q5_K: 176, Quant.Q6_K: 210}  # of a block of 256; `gguf` reads them but makes none


def stored_matrix(kind: Quant, seed: int = 0) -> np.ndarray:
    """A random matrix (OUT, IN) in a quantisation, as bytes (OUT, b)."""
    rng = np.random.default_rng(seed)
    if kind not in K_BYTES:
        return gguf.quantize(rng.normal(0.03, 0.1, (OUT, IN)).astype(np.float32), kind)
    block = rng.integers(0, 256, (OUT, K_BYTES[kind]), dtype=np.uint8)  # one a row
    factors = rng.uniform(1e-4, 1e-2, (OUT, 2)).astype(np.float16).view(np.uint8)
    if kind == Quant.Q6_K:
        block[:, -2:] = factors[:, :2]
    else:
        block[:, :4] = factors
    return block


def file_of(path: Path, **matrices: tuple[np.ndarray, Quant]) -> GGUFFile:
    writer = gguf.GGUFWriter(path, "llama")
    for name, (data, kind) in matrices.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    return GGUFFile(path)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def made(request, tmp_path) -> tuple[Groups, Tensor]:
    """A matrix as groups read from a file, and as what the `gguf` library makes of it, float64."""
    data = stored_matrix(request.param)
    groups = file_of(tmp_path / "made.gguf", a=(data, request.param)).packed("a")
    return groups, torch.from_numpy(gguf.dequantize(data, request.param)).double()


# ---- groups ----------------------------------------------------------------------------------------------------------


def product(groups: Groups) -> Tensor:
    codes = groups.codes.float().unflatten(1, (-1, groups.size))
    return (groups.scale[..., None] * codes + groups.minimum[..., None]).flatten(1)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_scale_times_code_plus_minimum_is_the_dequantised_matrix_in_both_orders(tmp_path, kind):
    data = stored_matrix(kind)
    turned = interleaved(data, OUT // HEAD_DIM)
    file = file_of(tmp_path / "both.gguf", plain=(data, kind), turned=(turned, kind))
    expected = torch.from_numpy(gguf.dequantize(data, kind))
    for groups in (file.packed("plain"), file.packed("turned", "interleaved", HEAD_DIM)):
        assert groups.codes.dtype == torch.uint8
        assert int(groups.codes.max()) == 2 ** int(kind.name[1]) - 1
        assert groups.bits == (4 if kind.name.startswith("Q4") else 8)
        assert groups.size == (16 if kind == Quant.Q6_K else 32)
        assert groups.scale.shape == groups.minimum.shape == (OUT, IN // groups.size)
        torch.testing.assert_close(product(groups), expected, rtol=1e-6, atol=2e-6)
    assert not np.array_equal(data, turned)


def test_numbers_of_other_kinds_and_vectors_are_not_packed(tmp_path):
    floats = np.ones((4, 256), np.float32)
    kinds = {kind.name: (gguf.quantize(floats, kind), kind) for kind in (Quant.F32, Quant.F16, Quant.BF16)}
    file = file_of(
        tmp_path / "other.gguf",
        Q3_K=(np.zeros((4, 110), np.uint8), Quant.Q3_K),
        vector=(gguf.quantize(floats[0], Quant.Q4_1), Quant.Q4_1),
        **kinds,
    )
    assert [name for name in file.shapes if file.is_packed(name)] == ["F16", "BF16"]
    assert file_of(tmp_path / "one.gguf", a=(stored_matrix(Quant.Q6_K), Quant.Q6_K)).is_packed("a")


# ---- layers ----------------------------------------------------------------------------------------------------------


def assert_product(y: Tensor, x: Tensor, groups: Groups) -> None:
    """y is x times the matrix, up to what float32 rounds of the terms x * scale * code and x * minimum."""
    terms = groups.scale.double()[..., None] * groups.codes.unflatten(1, (-1, groups.size)), groups.minimum[..., None]
    matrix, sizes = sum(terms).flatten(1), sum(term.abs() for term in terms).double().flatten(1)
    assert y.dtype == torch.float32
    assert torch.all((y - x.double() @ matrix.T).abs() <= 1e-6 * (x.double().abs() @ sizes.T))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 13])
def test_a_product_is_that_of_the_dequantised_matrix(made, rows):
    groups, matrix = made
    torch.manual_seed(0)
    bias, x = nn.Parameter(torch.randn(OUT), requires_grad=False), torch.randn(rows, IN)
    layer = linear_of([groups], bias)
    assert isinstance(layer, QuantLinear)
    assert_product(layer(x) - bias, x, groups)
    error = (layer(x) - bias).double() - x.double() @ matrix.T
    assert error.square().mean().sqrt() < 2e-6 * (x.double() @ matrix.T).square().mean().sqrt()


@pytest.mark.parametrize("out", [1, 15, 16, 31, 32, 33, 47])
def test_any_number_of_outputs_will_do(made, out):
    groups = Groups(*(column[:out] for column in made[0][:3]), made[0].bits)
    layer, x = linear_of([groups], None), torch.randn(7, IN)
    assert layer(x).shape == (7, out)
    assert_product(layer(x), x, groups)
    assert layer.weight.shape == (out, IN)


def test_matrices_of_unlike_codes_stand_one_below_the_other(tmp_path):
    kinds = (Quant.Q4_0, Quant.Q4_1, Quant.Q6_K)
    file = file_of(tmp_path / "three.gguf", **{kind.name: (stored_matrix(kind), kind) for kind in kinds})
    parts, x = [file.packed(kind.name) for kind in kinds], torch.randn(2, 5, IN)
    bias = nn.Parameter(torch.randn(3 * OUT), requires_grad=False)
    layer = linear_of(parts, bias)
    assert isinstance(layer, StackedLinear)
    assert [part.out_features for part in layer.parts] == [2 * OUT, OUT]  # neighbours of the same kind are one
    for i, groups in enumerate(parts):
        rows = slice(i * OUT, i * OUT + OUT)
        assert_product((layer(x) - bias)[..., rows], x, groups)
        assert torch.equal(layer.weight[rows], linear_of([groups], None).weight)


def test_inputs_may_have_any_leading_shape_and_stride(made):
    layer = linear_of([made[0]], None)
    x = torch.randn(2, 3, 5, IN)
    whole = layer(x)
    assert whole.shape == (2, 3, 5, OUT)
    assert torch.equal(layer(x[1, 2, 4]), whole[1, 2, 4])
    assert torch.equal(layer(x.transpose(0, 2)), whole.transpose(0, 2))
    assert torch.equal(layer(x[0, 0].T.contiguous().T), whole[0, 0])
    assert layer(x[:0]).shape == (0, 3, 5, OUT)


def test_a_row_has_the_same_bits_whatever_stands_beside_it(made):
    layer, x = linear_of([made[0]], None), torch.randn(33, IN)
    single = torch.cat([layer(row[None]) for row in x])
    for n in (1, 2, 3, 7, 33):
        assert torch.equal(layer(x[:n]), single[:n])
        assert torch.equal(layer(x[-n:]), single[-n:])


def test_weight_is_the_matrix_and_leaves_the_bias_out(made):
    groups, matrix = made
    bias = nn.Parameter(torch.full((OUT,), 2.0), requires_grad=False)
    for layer in (linear_of([groups], None), linear_of([groups], bias)):
        torch.testing.assert_close(layer.weight.double(), matrix, rtol=1e-6, atol=2e-6)


def test_an_embedding_gives_the_rows_of_the_matrix(made):
    groups, matrix = made
    tokens = torch.tensor([[3, 0, 47], [3, 11, 12]])
    rows = QuantEmbedding(QuantLinear(groups))(tokens)
    assert (rows.shape, rows.dtype) == ((2, 3, IN), torch.float32)
    torch.testing.assert_close(rows.double(), matrix[tokens], rtol=1e-6, atol=2e-6)


HALVES = (torch.float16, torch.bfloat16)


def numbers_of(dtype: torch.dtype, out: int = OUT) -> Tensor:
    """A matrix of 16-bit numbers, the smallest and the largest among them."""
    numbers = torch.randn(out, IN).to(dtype)
    numbers[0, :4] = torch.tensor([torch.finfo(dtype).smallest_normal, 1e-7, -0.0, torch.finfo(dtype).max / 8]).to(
        dtype
    )
    numbers[-1, :2] = -numbers[0, :2] / 2
    return numbers


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 13])
@pytest.mark.parametrize("out", [1, 33, OUT])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_product_with_numbers_of_16_bits_loses_nothing(dtype, rows, out):
    torch.manual_seed(0)
    numbers, bias, x = numbers_of(dtype, out), nn.Parameter(torch.randn(out)), torch.randn(rows, IN)
    layer = linear_of([numbers], bias.requires_grad_(False))
    exact = x.double() @ numbers.double().T + bias
    bound = 1e-6 * (x.double().abs() @ numbers.double().abs().T + bias.abs())
    assert isinstance(layer, HalfLinear)
    assert torch.all((layer(x) - exact).abs() <= bound)
    assert torch.equal(layer.weight, numbers.float())
    assert torch.equal(QuantEmbedding(layer)(torch.tensor([[0, out - 1]])), numbers[[0, out - 1]].float()[None])
    assert torch.equal(layer(x), torch.cat([layer(row[None]) for row in x]))


def test_numbers_and_codes_may_stand_one_below_the_other(made):
    a, b, c = numbers_of(torch.bfloat16), numbers_of(torch.bfloat16, 5), numbers_of(torch.float16)
    layer, x = linear_of([a, b, made[0], c], None), torch.randn(3, IN)
    assert [type(part) for part in layer.parts] == [HalfLinear, QuantLinear, HalfLinear]
    for rows, numbers in ((slice(0, OUT), a), (slice(OUT, OUT + 5), b), (slice(2 * OUT + 5, None), c)):
        assert torch.equal(layer.weight[rows], numbers.float())
        torch.testing.assert_close(layer(x)[:, rows], x @ numbers.float().T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dim", [8, 19, 576])
def test_the_quick_norm_is_the_norm(dim):
    norm = RMSNorm(dim, 1e-5)
    nn.init.normal_(norm.weight)
    quick = QuickRMSNorm(norm)
    with torch.no_grad():
        for x in (torch.randn(2, 3, dim) * 100, torch.zeros(1, dim), torch.randn(dim, 4).T):
            torch.testing.assert_close(quick(x), norm(x), rtol=2e-6, atol=1e-6)


# ---- models from files -----------------------------------------------------------------------------------------------

FAMILIES = {
    "llama": lambda vocab: make_llama(vocab_size=vocab),
    "llama-tied": lambda vocab: make_llama(tied=True, vocab_size=vocab),
    "gpt2": lambda vocab: make_gpt2(vocab_size=vocab, tie_word_embeddings=False),
    "gpt2-tied": lambda vocab: make_gpt2(vocab_size=vocab),
}
FLOAT = {"blk.0.attn_output.weight": Quant.F32, "blk.1.ffn_up.weight": Quant.F32}
TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler"  # 62 tokens of a byte each


def pair(path: Path, family: str, vocab: int = 272, **kinds: Quant) -> tuple[GPT, GPT]:
    """The same GGUF file of Q4_1 as a float32 model and as a quantised one."""
    write_gguf(path, FAMILIES[family](vocab), Quant.Q4_1, kinds=FLOAT | kinds)
    return open_checkpoint(path).model(), open_checkpoint(path).model(stored=True)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quant")
    return {family: pair(folder / f"{family}.gguf", family) for family in FAMILIES}


def layers_of(model: GPT) -> dict[str, type]:
    kinds = (nn.Linear, nn.Embedding, QuantLinear, StackedLinear, QuantEmbedding)
    modules = {name: type(module) for name, module in model.named_modules(remove_duplicate=False)}
    return {n: kind for n, kind in modules.items() if kind in kinds and not ("parts" in n or n.endswith("table"))}


BLOCKS = {
    **{f"blocks.{i}.{name}": QuantLinear for i in (0, 1) for name in ("attn.qkv", "attn.out", "mlp.up", "mlp.down")},
    "blocks.0.attn.out": nn.Linear,
    "blocks.1.mlp.up": nn.Linear,
}


@pytest.mark.parametrize("vocab", [272, 258])
@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_in_groups_are_swapped_and_all_others_stay(tmp_path, family, vocab):
    exact, model = pair(tmp_path / "a.gguf", family, vocab)
    learned = {"wpe": QuantEmbedding} if family.startswith("gpt2") else {}
    assert layers_of(model) == {"wte": QuantEmbedding, **learned, **BLOCKS, "lm_head": QuantLinear}
    assert (model.wte.table is model.lm_head) == family.endswith("tied")
    assert is_packed(model)
    assert not is_packed(exact)
    assert {type(m) for m in model.modules()}.isdisjoint({RMSNorm})


def test_matrices_of_unlike_groups_that_share_a_layer_are_stacked(tmp_path):
    model = pair(tmp_path / "a.gguf", "llama", **{"blk.0.attn_v.weight": Quant.Q8_0})[1]
    assert layers_of(model)["blocks.0.attn.qkv"] is StackedLinear
    model = pair(tmp_path / "b.gguf", "llama", **{"blk.0.attn_v.weight": Quant.Q4_0})[1]
    assert layers_of(model)["blocks.0.attn.qkv"] is QuantLinear
    model = pair(tmp_path / "c.gguf", "llama", **{"blk.0.attn_v.weight": Quant.F16})[1]
    assert layers_of(model)["blocks.0.attn.qkv"] is StackedLinear
    model = pair(tmp_path / "d.gguf", "llama", **{"blk.0.attn_v.weight": Quant.F32})[1]
    assert layers_of(model)["blocks.0.attn.qkv"] is nn.Linear


@pytest.mark.parametrize("family", ["llama-tied", "gpt2-tied"])
def test_a_tied_matrix_of_8_bits_serves_both_ends(tmp_path, family):
    exact, model = pair(tmp_path / "tied.gguf", family, **{"token_embd.weight": Quant.Q8_0})
    assert model.wte.table is model.lm_head
    assert model.lm_head.bits == 8
    for ours in (model.wte(torch.arange(272)), model.lm_head.weight):
        torch.testing.assert_close(ours, exact.lm_head.weight, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_norm_and_bias_is_that_of_the_file(pairs, family):
    exact, model = pairs[family]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, exact.get_parameter(name)), name
        assert not parameter.requires_grad
    biases = {name for name, _ in exact.named_parameters() if name.endswith("bias")}
    assert biases == {name for name, _ in model.named_parameters() if name.endswith("bias")}
    for name, kind in layers_of(model).items():
        theirs = exact.get_submodule(name).weight
        ours = model.get_submodule(name)
        ours = ours(torch.arange(len(theirs))) if kind is QuantEmbedding else ours.weight
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_a_quantised_model_is_smaller_than_half_a_float32_one_and_counts_all_it_holds(pairs):
    exact, model = pairs["llama-tied"]
    assert model.nbytes() < exact.nbytes() / 2
    rows = -(-272 // kernels().block_size) * kernels().block_size
    assert model.lm_head.packed.nbytes == rows * 64 // 2
    assert sum(b.nbytes for b in model.wte.buffers()) == rows * (64 // 2 + 2 * 2 * 2)


def logits(model: GPT, tokens: list[int]) -> Tensor:
    with torch.inference_mode():
        return model(torch.tensor([tokens]), torch.arange(len(tokens)))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_dequantised_model_of_the_same_file(pairs, family):
    tokens = [2 + byte for byte in TEXT.encode()]
    expected, ours = (logits(model, tokens) for model in pairs[family])
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


# ---- a session of a quantised model ----------------------------------------------------------------------------------


def read(model: GPT, tokenizer: Tokenizer, chat: ChatTemplate, pieces: tuple[int, ...] = ()):
    """A session over TEXT that was read in pieces of these lengths, the rest at once; its logits."""
    engine = Engine(model, tokenizer, chat, "tiny")
    session = engine.session(TEXT, raw=True)
    for piece in pieces:
        engine.read(session, session.cache.length + piece)
    engine.feed(session)
    return session, torch.stack([engine.logits(session, i + 1) for i in range(session.cache.length)])


@pytest.mark.parametrize("family", FAMILIES)
def test_patterns_are_those_of_the_pass_itself(pairs, tokenizer, chat, family):
    model, inputs = pairs[family][1], []
    hooks = [b.attn.qkv.register_forward_hook(lambda _, __, out: inputs.append(out[0])) for b in model.blocks]
    session, _ = read(model, tokenizer, chat)
    for hook in hooks:
        hook.remove()
    config, n = model.config, session.cache.length
    assert session.cache.keys().dtype == session.cache.queries().dtype == torch.float32
    for layer, qkv in enumerate(inputs):
        q, k, _ = qkv.view(n, -1, 16).transpose(0, 1).split((4, config.n_kv_head, config.n_kv_head))
        if model.rotary is not None:
            q, k = (rotate(x, *model.rotary.angles(torch.arange(n))) for x in (q, k))
        scores = q @ k.repeat_interleave(4 // config.n_kv_head, 0).transpose(1, 2) / 4
        expected = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(-1)
        torch.testing.assert_close(attention_pattern(session, layer), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_token_by_token_gives_what_one_read_gives(pairs, tokenizer, chat, family):
    model = pairs[family][1]
    (whole, once), (steps, each) = (read(model, tokenizer, chat, pieces) for pieces in ((), (1,) * 62))
    torch.testing.assert_close(each, once, atol=1e-4, rtol=0)
    for layer in range(2):
        torch.testing.assert_close(attention_pattern(steps, layer), attention_pattern(whole, layer), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_contributions_are_made_with_the_matrix_of_the_products(pairs, tokenizer, chat, family):
    model, written = pairs[family][1], []
    hooks = [b.attn.register_forward_hook(lambda _, __, out: written.append(out[0])) for b in model.blocks]
    session, _ = read(model, tokenizer, chat)
    for hook in hooks:
        hook.remove()
    rows, n_group = range(session.cache.length), 4 // model.config.n_kv_head
    for layer, block in enumerate(model.blocks):
        out = block.attn.out
        total = torch.zeros_like(written[layer]) + (0 if out.bias is None else out.bias)
        for head, weights in enumerate(attention_pattern(session, layer)):
            v = session.cache.values()[layer, head // n_group]
            vectors = v @ out.weight[:, 16 * head : 16 * head + 16].T  # (S, C)
            total += weights @ vectors
            sight = Sight(((layer, head),), what="value")
            shown = sight_rows(session, sight, rows, lambda layer: output_gram(model, layer))
            torch.testing.assert_close(shown, weights * vectors.norm(dim=-1), atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(total, written[layer], atol=1e-4, rtol=1e-4)


# ---- load ------------------------------------------------------------------------------------------------------------


def talking(path: Path, kind: Quant) -> str:
    """A small llama as a GGUF file that has a tokenizer of bytes."""
    fields = byte_fields()
    spare = [f"<|spare {i}|>" for i in range(272 - 259)]
    fields["tokenizer.ggml.tokens"] += ["ab", *spare]
    fields["tokenizer.ggml.token_type"] += [1] + [3] * len(spare)
    fields["tokenizer.ggml.merges"] = ["a b"]
    return str(write_gguf(path, make_llama(vocab_size=272), kind, tokenizer=fields))


def test_nothing_is_compiled_for_a_type_that_needs_no_codes(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt.native.kernels", lambda: pytest.fail("the kernels were asked for"))
    assert load(talking(tmp_path / "tiny.gguf", Quant.Q4_1), device="cpu", dtype="float32").precision == "float32"


@pytest.mark.parametrize(("kind", "name"), [(Quant.Q4_1, "int4"), (Quant.Q5_1, "int8"), (Quant.Q8_0, "int8")])
def test_a_processor_leaves_groups_as_they_are_unless_asked_otherwise(tmp_path, kind, name):
    path = talking(tmp_path / "tiny.gguf", kind)
    assert load(path, device="cpu", dtype="float32").precision == "float32"
    assert load(path, device="cpu", dtype=torch.bfloat16).precision == "bfloat16"
    for dtype in (None, "stored"):
        engine = load(path, device="cpu", dtype=dtype)
        assert (engine.precision, engine.dtype) == (name, torch.float32)
        assert engine.session("abba").cache.keys().dtype == torch.float32
        assert len(list(engine.stream(engine.session("abba")))) > 0


@pytest.mark.parametrize(("kind", "name"), [(Quant.F16, "float16"), (Quant.BF16, "bfloat16")])
def test_a_file_of_16_bits_keeps_them(tmp_path, kind, name):
    path = talking(tmp_path / "tiny.gguf", kind)
    engine, exact = load(path, device="cpu"), load(path, device="cpu", dtype="float32")
    assert (engine.precision, engine.dtype) == (name, torch.float32)
    assert engine.model.nbytes() < 0.6 * exact.model.nbytes()
    torch.testing.assert_close(*(logits(e.model, [5, 9, 100]) for e in (engine, exact)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_folder_of_16_bits_keeps_them_and_computes_in_float32(tmp_path, make, dtype):
    make(vocab_size=96).to(dtype).save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    exact, model = checkpoint.model(), checkpoint.model(stored=True)
    assert precision_of(model) == str(dtype).removeprefix("torch.")
    assert model.nbytes() < 0.6 * exact.nbytes()
    torch.testing.assert_close(*(logits(m, list(range(40))) for m in (model, exact)), atol=1e-4, rtol=0)


def test_a_folder_of_float32_is_that_and_cannot_be_packed(tmp_path, monkeypatch, tokenizer, chat):
    make_llama().save_pretrained(tmp_path / "tiny")
    monkeypatch.setattr("gpt.tokenizer.Tokenizer.from_folder", lambda path: tokenizer)
    monkeypatch.setattr("gpt.chat.ChatTemplate.from_folder", lambda path, tokenizer: chat)
    assert load(str(tmp_path / "tiny"), device="cpu").precision == "float32"
    with pytest.raises(ValueError, match=r"^stored needs a checkpoint in 16 bits or a GGUF .*, which tiny is not;"):
        load(str(tmp_path / "tiny"), device="cpu", dtype="stored")


def test_without_a_compiler_a_file_is_dequantised(tmp_path, monkeypatch):
    path = talking(tmp_path / "tiny.gguf", Quant.Q4_1)
    monkeypatch.setattr("gpt.native.kernels", lambda: None)
    assert load(path, device="cpu").precision == "float32"
    with pytest.raises(ValueError, match=r"^stored needs a C compiler \(gcc or clang\) that makes working code"):
        load(path, device="cpu", dtype="stored")


def test_packing_on_another_device_and_an_unknown_type_are_refused(tmp_path):
    path = talking(tmp_path / "tiny.gguf", Quant.Q4_1)
    with pytest.raises(ValueError, match=r"^stored needs a processor, and not meta; give another dtype"):
        load(path, device="meta", dtype="stored")
    for wrong in ("float9", torch.int8):
        with pytest.raises(ValueError, match=r"^dtype must be one of stored, float32, bfloat16, float16, got "):
            load(str(tmp_path / "is not looked for"), device="cpu", dtype=wrong)
