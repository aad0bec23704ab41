"""Quantised layers against `gguf` dequantisation in float64, small quantised models against float32 ones."""

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
from gpt.interp import Sight, attention_pattern, output_gram, sight_rows
from gpt.model import GPT, rotate
from gpt.quant import Int4Linear, Int8Linear, QuantEmbedding, fits, linear_of
from gpt.tokenizer import Tokenizer
from gpt.weights import GROUP, GGUFFile, Groups
from tests.conftest import byte_fields
from tests.test_checkpoint import interleaved, make_gpt2, make_llama, write_gguf

GROUPED = [Quant.Q4_0, Quant.Q4_1, Quant.Q4_K, Quant.Q8_0]
OUT, IN, HEAD_DIM = 48, 256, 12
ULP = 2**-8  # what rounding to bfloat16 may change, relative


def stored_matrix(kind: Quant, seed: int = 0) -> np.ndarray:
    """A random matrix (OUT, IN) in a quantisation, as bytes (OUT, b)."""
    rng = np.random.default_rng(seed)
    if kind != Quant.Q4_K:
        return gguf.quantize(rng.normal(0.03, 0.1, (OUT, IN)).astype(np.float32), kind)
    factors = rng.uniform(1e-4, 1e-2, (OUT, 2)).astype(np.float16).view(np.uint8)  # one block a row; gguf makes none
    return np.concatenate((factors, rng.integers(0, 256, (OUT, 140), dtype=np.uint8)), axis=1)


def file_of(path: Path, **matrices: tuple[np.ndarray, Quant]) -> GGUFFile:
    writer = gguf.GGUFWriter(path, "llama")
    for name, (data, kind) in matrices.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()
    return GGUFFile(path)


@pytest.fixture(params=GROUPED, ids=lambda kind: kind.name)
def made(request, tmp_path) -> tuple[Groups, Tensor]:
    """A matrix as groups read from a file, and as what the `gguf` library makes of it, float64."""
    data = stored_matrix(request.param)
    groups = file_of(tmp_path / "made.gguf", a=(data, request.param)).groups("a")
    return groups, torch.from_numpy(gguf.dequantize(data, request.param)).double()


# ---- groups ----------------------------------------------------------------------------------------------------------


def product(groups: Groups) -> Tensor:
    codes = groups.codes.float().unflatten(1, (-1, GROUP))
    return (groups.scale[..., None] * codes + groups.minimum[..., None]).flatten(1)


@pytest.mark.parametrize("kind", GROUPED, ids=lambda kind: kind.name)
def test_scale_times_code_plus_minimum_is_the_dequantised_matrix_in_both_orders(tmp_path, kind):
    data = stored_matrix(kind)
    turned = interleaved(data, OUT // HEAD_DIM)
    file = file_of(tmp_path / "both.gguf", plain=(data, kind), turned=(turned, kind))
    expected = torch.from_numpy(gguf.dequantize(data, kind))
    for groups in (file.groups("plain"), file.groups("turned", "interleaved", HEAD_DIM)):
        assert groups.codes.dtype == torch.uint8
        assert int(groups.codes.max()) == 2**groups.bits - 1
        assert groups.bits == (8 if kind == Quant.Q8_0 else 4)
        assert groups.scale.shape == groups.minimum.shape == (OUT, IN // GROUP)
        torch.testing.assert_close(product(groups), expected, rtol=1e-6, atol=0)
    assert not np.array_equal(data, turned)


def test_numbers_of_other_kinds_and_vectors_have_no_groups(tmp_path):
    floats = np.ones((4, 256), np.float32)
    kinds = {kind.name: (gguf.quantize(floats, kind), kind) for kind in (Quant.F32, Quant.F16, Quant.Q5_0, Quant.Q5_1)}
    file = file_of(
        tmp_path / "other.gguf",
        Q6_K=(np.zeros((4, 210), np.uint8), Quant.Q6_K),
        vector=(gguf.quantize(floats[0], Quant.Q4_1), Quant.Q4_1),
        **kinds,
    )
    assert [name for name in file.shapes if file.groups(name) is not None] == []


def test_a_file_has_int4_when_a_matrix_of_it_has_groups_of_4_bits(tmp_path):
    for kind in GROUPED:
        assert file_of(tmp_path / f"{kind.name}.gguf", a=(stored_matrix(kind), kind)).has_int4 == (kind != Quant.Q8_0)


# ---- layers ----------------------------------------------------------------------------------------------------------


def magnitude(groups: Groups) -> Tensor:
    """What bfloat16 rounds, per weight (OUT, IN): the kernel's terms scale * (code - 8) and minimum + 8 * scale."""
    if groups.bits == 8:
        high = Groups(groups.codes // 16, 16 * groups.scale, groups.minimum)
        return magnitude(high) + magnitude(Groups(groups.codes % 16, groups.scale, 0 * groups.minimum))
    zeros = (groups.minimum + 8 * groups.scale).abs()
    codes = (groups.codes.double() - 8).abs().unflatten(1, (-1, GROUP))
    return (groups.scale[..., None].abs() * codes + zeros[..., None]).flatten(1)


def test_a_product_errs_by_the_rounding_of_inputs_scales_and_outputs(made):
    groups, matrix = made
    torch.manual_seed(0)
    bias, x = nn.Parameter(torch.randn(OUT), requires_grad=False), torch.randn(9, IN)
    layer = linear_of(groups, bias)
    assert isinstance(layer, Int8Linear if groups.bits == 8 else Int4Linear)
    expected = x.double() @ matrix.T
    y = layer(x)
    assert y.dtype == torch.float32
    error = (y - bias).double() - expected
    assert torch.all(error.abs() <= ULP * (x.double().abs() @ magnitude(groups).T))
    assert error.square().mean().sqrt() < 0.005 * expected.square().mean().sqrt()


def test_inputs_may_have_any_leading_shape_and_stride(made):
    layer = linear_of(made[0], None)
    x = torch.randn(2, 3, 5, IN)
    whole = layer(x)
    assert whole.shape == (2, 3, 5, OUT)
    assert torch.equal(layer(x[1, 2, 4]), whole[1, 2, 4])
    assert torch.equal(layer(x.transpose(0, 2)), whole.transpose(0, 2))
    assert torch.equal(layer(x[0, 0].T.contiguous().T), whole[0, 0])
    assert layer(x[:0]).shape == (0, 3, 5, OUT)


def test_a_row_has_the_same_bits_whatever_stands_beside_it(made):
    layer, x = linear_of(made[0], None), torch.randn(33, IN)
    single = torch.cat([layer(row[None]) for row in x])
    for n in (1, 2, 3, 7, 33):
        assert torch.equal(layer(x[:n]), single[:n])
        assert torch.equal(layer(x[-n:]), single[-n:])


def test_weight_is_the_matrix_within_rounding_and_leaves_the_bias_out(made):
    groups, matrix = made
    bias = nn.Parameter(torch.full((OUT,), 2.0), requires_grad=False)
    for layer, rest in ((linear_of(groups, None), 0), (linear_of(groups, bias), 1e-6)):
        assert layer.weight.shape == (OUT, IN)
        assert torch.all((layer.weight - matrix).abs() <= 2.1 * ULP * magnitude(groups) + rest)


def test_an_embedding_gives_exact_rows(made):
    groups, matrix = made
    tokens = torch.tensor([[3, 0, 47], [3, 11, 12]])
    assert torch.equal(QuantEmbedding(groups)(tokens).double(), matrix[tokens])


def test_the_kernel_takes_outputs_by_sixteen(made):
    assert fits(made[0])
    assert not fits(Groups(*(column[:40] for column in made[0][:3]), made[0].bits))


# ---- models from files -----------------------------------------------------------------------------------------------

FAMILIES = {
    "llama": lambda vocab: make_llama(vocab_size=vocab),
    "llama-tied": lambda vocab: make_llama(tied=True, vocab_size=vocab),
    "gpt2": lambda vocab: make_gpt2(vocab_size=vocab, tie_word_embeddings=False),
    "gpt2-tied": lambda vocab: make_gpt2(vocab_size=vocab),
}
FLOAT = {"blk.0.attn_output.weight": Quant.F16, "blk.1.ffn_up.weight": Quant.Q5_0}
TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler"  # 62 tokens of a byte each


def pair(path: Path, family: str, vocab: int = 272, **kinds: Quant) -> tuple[GPT, GPT]:
    """The same GGUF file of Q4_1 as a float32 model and as a quantised one."""
    write_gguf(path, FAMILIES[family](vocab), Quant.Q4_1, kinds=FLOAT | kinds)
    return open_checkpoint(path).model(), open_checkpoint(path).model(quantised=True)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quant")
    return {family: pair(folder / f"{family}.gguf", family) for family in FAMILIES}


def layers_of(model: GPT) -> dict[str, type]:
    kinds = (nn.Linear, nn.Embedding, Int4Linear, Int8Linear, QuantEmbedding)
    return {n: type(m) for n, m in model.named_modules() if isinstance(m, kinds) and not n.endswith(("high", "low"))}


BLOCKS = {
    **{f"blocks.{i}.{name}": Int4Linear for i in (0, 1) for name in ("attn.qkv", "attn.out", "mlp.up", "mlp.down")},
    "blocks.0.attn.out": nn.Linear,
    "blocks.1.mlp.up": nn.Linear,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_in_groups_are_swapped_and_all_others_stay(pairs, family):
    learned = {"wpe": QuantEmbedding} if family.startswith("gpt2") else {}
    assert layers_of(pairs[family][1]) == {"wte": QuantEmbedding, **learned, **BLOCKS, "lm_head": Int4Linear}
    assert {type(m) for m in pairs[family][0].modules()}.isdisjoint({Int4Linear, Int8Linear, QuantEmbedding})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_matrix_whose_outputs_do_not_divide_by_sixteen_stays(tmp_path, family):
    exact, model = pair(tmp_path / "odd.gguf", family, vocab=258)
    learned = {"wpe": QuantEmbedding} if family.startswith("gpt2") else {}
    assert layers_of(model) == {"wte": nn.Embedding, **learned, **BLOCKS, "lm_head": nn.Linear}
    assert (model.lm_head.weight is model.wte.weight) == family.endswith("tied")
    assert torch.equal(model.lm_head.weight, exact.lm_head.weight)


def test_matrices_of_unequal_groups_that_share_a_layer_stay(tmp_path):
    model = pair(tmp_path / "a.gguf", "llama", **{"blk.0.attn_v.weight": Quant.Q8_0})[1]
    assert layers_of(model)["blocks.0.attn.qkv"] is nn.Linear
    model = pair(tmp_path / "b.gguf", "llama", **{"blk.0.attn_v.weight": Quant.Q4_0})[1]
    assert layers_of(model)["blocks.0.attn.qkv"] is Int4Linear


@pytest.mark.parametrize("family", ["llama-tied", "gpt2-tied"])
def test_a_tied_matrix_of_8_bits_serves_both_ends(tmp_path, family):
    exact, model = pair(tmp_path / "tied.gguf", family, **{"token_embd.weight": Quant.Q8_0})
    assert (type(model.wte), type(model.lm_head)) == (QuantEmbedding, Int8Linear)
    assert torch.equal(model.wte(torch.arange(272)), exact.wte.weight)
    torch.testing.assert_close(model.lm_head.weight, exact.lm_head.weight, atol=0.01, rtol=0.01)


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
        if kind is QuantEmbedding:
            assert torch.equal(model.get_submodule(name)(torch.arange(len(theirs))), theirs)
        else:
            torch.testing.assert_close(model.get_submodule(name).weight, theirs, atol=0.01, rtol=0.01)


def test_a_quantised_model_is_smaller_than_half_a_float32_one_and_counts_all_it_holds(pairs):
    exact, model = pairs["llama-tied"]
    assert model.nbytes() < exact.nbytes() / 2
    assert model.lm_head.packed.nbytes == 272 * 64 // 2
    assert sum(b.nbytes for b in model.wte.buffers()) == 272 * (64 + 2 * 2 * 4)


def logits(model: GPT, tokens: list[int]) -> Tensor:
    with torch.inference_mode():
        return model(torch.tensor([tokens]), torch.arange(len(tokens)))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_close_to_those_of_the_float32_model_of_the_same_file(pairs, family):
    tokens = [2 + byte for byte in TEXT.encode()]
    expected, ours = (logits(model, tokens) for model in pairs[family])
    assert (ours - expected).square().mean().sqrt() < 0.02 * expected.std()
    assert (ours.argmax(-1) == expected.argmax(-1)).float().mean() >= 0.9


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
    """Attention rounds otherwise for one row, and a bfloat16 rounding now and then falls to the other side."""
    model = pairs[family][1]
    (whole, once), (steps, each) = (read(model, tokenizer, chat, pieces) for pieces in ((), (1,) * 62))
    torch.testing.assert_close(each, once, atol=0.02 * once.std().item(), rtol=0)
    for layer in range(2):
        torch.testing.assert_close(attention_pattern(steps, layer), attention_pattern(whole, layer), atol=1e-3, rtol=0)


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
        assert (total - written[layer]).square().mean().sqrt() < 0.01 * total.square().mean().sqrt()


# ---- load ------------------------------------------------------------------------------------------------------------


def talking(path: Path, kind: Quant) -> str:
    """A small llama as a GGUF file that has a tokenizer of bytes."""
    fields = byte_fields()
    spare = [f"<|spare {i}|>" for i in range(272 - 259)]
    fields["tokenizer.ggml.tokens"] += ["ab", *spare]
    fields["tokenizer.ggml.token_type"] += [1] + [3] * len(spare)
    fields["tokenizer.ggml.merges"] = ["a b"]
    return str(write_gguf(path, make_llama(vocab_size=272), kind, tokenizer=fields))


def test_int4_is_asked_for_and_keeps_the_cache_in_float32(tmp_path):
    path = talking(tmp_path / "tiny.gguf", Quant.Q4_1)
    assert load(path, device="cpu").precision == "float32"
    assert load(path, device="cpu", dtype=torch.bfloat16).precision == "bfloat16"
    engine = load(path, device="cpu", dtype="int4")
    assert (engine.precision, engine.dtype) == ("int4", torch.float32)
    assert engine.session("abba").cache.keys().dtype == torch.float32
    assert len(list(engine.stream(engine.session("abba")))) > 0


@pytest.mark.parametrize("kind", [Quant.F16, Quant.Q8_0], ids=lambda kind: kind.name)
def test_files_without_groups_of_4_bits_are_float32_and_refuse_int4(tmp_path, kind):
    path = talking(tmp_path / "tiny.gguf", kind)
    assert load(path, device="cpu").precision == "float32"
    with pytest.raises(ValueError, match=r"^tiny holds no matrices of 4-bit groups; int4 needs a GGUF such as Q4_1"):
        load(path, device="cpu", dtype="int4")


def test_a_folder_refuses_int4(tmp_path, monkeypatch, tokenizer, chat):
    make_llama().save_pretrained(tmp_path / "tiny")
    monkeypatch.setattr("gpt.tokenizer.Tokenizer.from_folder", lambda path: tokenizer)
    monkeypatch.setattr("gpt.chat.ChatTemplate.from_folder", lambda path, tokenizer: chat)
    assert load(str(tmp_path / "tiny"), device="cpu").precision == "float32"
    with pytest.raises(ValueError, match=r"^tiny holds no matrices of 4-bit groups; int4 needs a GGUF"):
        load(str(tmp_path / "tiny"), device="cpu", dtype="int4")


def test_int4_on_another_device_and_an_unknown_type_are_refused(tmp_path):
    path = talking(tmp_path / "tiny.gguf", Quant.Q4_1)
    with pytest.raises(ValueError, match=r"^int4 computes on a processor, not on meta; give another dtype, or"):
        load(path, device="meta", dtype="int4")
    for wrong in ("float9", torch.int8):
        with pytest.raises(ValueError, match=r"^dtype must be one of float32, bfloat16, float16, int4, got "):
            load(str(tmp_path / "is not looked for"), device="cpu", dtype=wrong)
