"""Every family computes what transformers computes: logits and every pattern of attention, read at once or in steps."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from demo.matrix import Matrix
from gpt.cache import KVCache
from gpt.checkpoint import open_checkpoint
from gpt.export import facts, write_everything
from gpt.heads import HeadMetrics
from gpt.interp import Sight, attention_pattern, sight_rows
from gpt.runner import EagerRunner
from gpt.session import Session
from tests.families import LENGTH, TOKENS, VARIANTS, answers, made
from tests.test_model import fed


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    """A reference, and the folder that it was saved in."""
    reference, folder = made(request.param), tmp_path_factory.mktemp("family")
    reference.save_pretrained(folder)
    return reference, folder


@pytest.fixture(scope="module")
def ours(pair):
    return open_checkpoint(pair[1]).model()


@pytest.fixture(scope="module")
def theirs(pair):
    logits, patterns = answers(pair[0])
    assert logits.std() > 0.1  # not a comparison of two constants
    assert patterns.std() > 0.02
    return logits, patterns


def read(model, pieces):
    """A session that read TOKENS in pieces of these lengths, the rest one by one; the logits after each piece."""
    session, runner, logits = Session(KVCache(model.config)), EagerRunner(model), []
    session.rewrite(TOKENS.tolist())
    for piece in (*pieces, *[1] * (LENGTH - sum(pieces))):
        start = session.cache.length
        logits.append(runner.run([(session.cache, session.tokens[start : start + piece])])[0])
    return session, torch.stack(logits)


def patterns_of(session):
    """Every pattern, (L, H, T, T)."""
    return torch.stack([attention_pattern(session, layer) for layer in range(session.cache.config.n_layer)])


def assert_equal(logits, expected):
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_logits_equal_the_reference_with_and_without_a_cache(ours, theirs):
    with torch.inference_mode():
        assert_equal(ours(TOKENS[None], torch.arange(LENGTH))[0], theirs[0])
    assert_equal(fed(ours, [TOKENS])[0], theirs[0])


@pytest.mark.parametrize("pieces", [(LENGTH,), (9, 13, 5), (1, 1)], ids=str)
def test_patterns_and_logits_equal_the_reference_however_a_text_was_read(ours, theirs, pieces):
    session, logits = read(ours, pieces)
    ends = torch.tensor([*pieces, *[1] * (LENGTH - sum(pieces))]).cumsum(0) - 1
    assert_equal(logits, theirs[0][ends])
    torch.testing.assert_close(patterns_of(session), theirs[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", ["gpt_neox", "olmo2", "gemma2", "gemma3_text", "phi3, longrope"])
def test_in_16_bits_it_is_as_close_to_float32_as_the_reference(tmp_path, variant):
    """Also where a norm's 1 + w is rounded, and an embedding's factor."""
    reference = made(variant, initializer_range=0.1)
    reference.save_pretrained(tmp_path)
    exact, _ = answers(reference)
    theirs, _ = answers(reference.bfloat16())
    model = open_checkpoint(tmp_path).model(dtype=torch.bfloat16)
    with torch.inference_mode():
        logits = model(TOKENS[None], torch.arange(LENGTH))[0]
    assert (logits - exact).abs().mean() < 1.5 * (theirs.float() - exact).abs().mean()


def test_a_gpt_neox_with_its_masks_and_frequencies_is_understood_by_either_name_of_its_head(tmp_path):
    reference = made("gpt_neox")
    reference.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
    tensors["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 64, 64).tril()
    tensors["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e4)
    tensors["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, tmp_path / "model.safetensors")
    with torch.inference_mode():
        logits = open_checkpoint(tmp_path).model()(TOKENS[None], torch.arange(LENGTH))[0]
    assert_equal(logits, answers(reference)[0])


def test_the_text_part_of_a_model_that_also_sees_is_loaded_alone(tmp_path):
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = made("gemma3_text", final_logit_softcapping=None).config.to_dict()
    eyes = dict(model_type="siglip_vision_model", hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                num_attention_heads=2, image_size=28, patch_size=14)  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=eyes, mm_tokens_per_image=4, image_token_index=5)
    torch.manual_seed(0)
    reference = Gemma3ForConditionalGeneration(config).eval()
    reference.save_pretrained(tmp_path)
    reference.set_attn_implementation("eager")
    tokens = TOKENS[TOKENS != 5]
    logits, _ = answers(reference, tokens)
    model = open_checkpoint(tmp_path).model()
    with torch.inference_mode():
        assert_equal(model(tokens[None], torch.arange(len(tokens)))[0], logits)
    assert model.config.family == "gemma3_text"


# ---- what is made of patterns ------------------------------------------------------------------------------

ODD = ("gemma2", "qwen3, windows, yarn", "smollm3, windows")


@pytest.fixture(scope="module", params=ODD)
def odd(request, tmp_path_factory):
    """A session of a model with windows, one of them of a single position, or with soft-caps, and its patterns."""
    reference, folder = made(request.param), tmp_path_factory.mktemp("odd")
    reference.save_pretrained(folder)
    return read(open_checkpoint(folder).model(), (9, 13))[0], answers(reference)[1]


def test_a_file_of_everything_derives_the_same_patterns_with_numpy_alone(odd, tokenizer, tmp_path):
    session, expected = odd
    path = tmp_path / "everything.npz"
    write_everything(path, session, tokenizer, facts("tiny", session.cache.config))
    with np.load(path, allow_pickle=False) as file:
        scope = {"np": np}
        exec(json.loads(str(file["metadata"]))["pattern"], scope)
        made = [[scope["pattern"](file, layer, head) for head in range(4)] for layer in range(3)]
    np.testing.assert_allclose(np.array(made), expected.numpy(), atol=1e-5)


def test_metrics_of_heads_are_those_of_the_patterns(odd):
    session, expected = odd
    metrics = HeadMetrics().update(session)
    rows = torch.arange(1, LENGTH)
    seen = torch.stack([(rows + 1).clamp_max(session.cache.config.window(i) or LENGTH) for i in range(3)])
    weights = expected[:, :, 1:]
    entropy = -(weights * weights.clamp_min(1e-30).log()).sum(-1) / seen[:, None].log()
    torch.testing.assert_close(metrics["entropy"], entropy.nan_to_num(0.0).mean(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(metrics["first"], weights[..., 0].mean(-1), atol=1e-5, rtol=0)


def test_scores_are_not_finite_where_a_window_ends(odd):
    session, expected = odd
    for layer in range(3):
        scores = sight_rows(session, Sight(((layer, 1),), what="score"), range(LENGTH))
        assert torch.equal(scores.isfinite(), expected[layer, 1] > 0)
        torch.testing.assert_close(scores.softmax(-1), expected[layer, 1], atol=1e-5, rtol=0)


def test_a_difference_of_scores_is_nothing_where_only_one_head_looks(odd):
    session, _ = odd
    near, far = (next(i for i in range(3) if bool(session.cache.config.window(i)) == windowed) for windowed in (1, 0))
    parts = [Sight(((layer, 0),), what="score") for layer in (near, far)]
    matrix = Matrix(session, parts[0], None, (session, parts[1]))
    assert np.abs(matrix.exact(range(LENGTH))).max() < 100
