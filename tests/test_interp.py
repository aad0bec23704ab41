"""Derived patterns are the reference's own attention, whatever a page did; quantities equal their definitions."""

import json
import math

import pytest
import torch

from demo.stream import run
from gpt.cache import BLOCK, KVCache
from gpt.interp import MIXES, QUANTITIES, Sight, attention_pattern, output_gram, rollout, sight_rows
from gpt.runner import EagerRunner
from gpt.session import Session
from tests.conftest import random_model
from tests.page import NO_END, Page

TOKENS = torch.randint(0, 101, (40,), generator=torch.Generator().manual_seed(2)).tolist()
FAMILIES = ["gpt2", "llama", "gemma2"]  # the last with windows and soft-caps


def session_of(model, prompt: int, steps: int, tokens=TOKENS, query_bytes=None) -> Session:
    """A session that read `prompt` tokens at once and then `steps` more, one at a time."""
    session, runner = Session(KVCache(model.config, query_bytes=query_bytes)), EagerRunner(model)
    session.rewrite(tokens[: prompt + steps])
    runner.run([(session.cache, tokens[:prompt])])
    for token in tokens[prompt : prompt + steps]:
        runner.run([(session.cache, [token])])
    return session


# ---- patterns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [0, 20])
def test_patterns_of_every_head_equal_the_reference(references, family, steps):
    reference, model = references[family]
    session = session_of(model, 12, steps)
    with torch.inference_mode():
        theirs = reference(torch.tensor([TOKENS[: 12 + steps]]), output_attentions=True).attentions
    assert max(a.std().item() for a in theirs) > 0.05
    for layer, expected in enumerate(theirs):
        torch.testing.assert_close(attention_pattern(session, layer), expected[0], atol=1e-5, rtol=0)


def send_again(page):
    page.act("send", text="and then?")


def edit(page):
    page.act("edit", message=0, text="hallo, du")


def fork(page):
    page.act("fork", position=page.session.reply_start + 3, token=70)


def regenerate(page):
    page.act("regenerate", seed=99)


def stop_and_continue(page):
    page.call("set_params", max_new_tokens=400, logit_bias=NO_END)
    reply = page.call("send", text="more")
    messages = run(page.entry, reply["run"])
    next(messages)
    page.call("stop")
    list(messages)
    page.call("set_params", max_new_tokens=7)
    page.act("resume")


def switch_there_and_back(page):
    regenerate(page)
    page.call("switch_branch", branch=0)
    page.call("switch_branch", branch=1)
    page.call("switch_branch", branch=0)


def pick_one_of_several(page):
    page.act("samples", n=3)
    page.call("pick_sample", k=1)


def delete_the_branch_shown(page):
    fork(page)
    page.call("delete_branch", branch=page.session.branch)


def save_and_open(page):
    page.call("open", record=json.loads(json.dumps(page.call("save")["record"])))


ACTIONS = [
    send_again, edit, fork, regenerate, stop_and_continue, switch_there_and_back, pick_one_of_several,
    delete_the_branch_shown, save_and_open,
]  # fmt: skip


def check_patterns(page, reference):
    page.engine.feed(page.session)
    tokens = page.session.tokens
    with torch.inference_mode():
        theirs = reference(torch.tensor([tokens]), output_attentions=True).attentions
    for layer, expected in enumerate(theirs):
        torch.testing.assert_close(attention_pattern(page.session, layer), expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_patterns_equal_the_reference_after_whatever_a_page_did(talkers, family, action):
    reference, engine = talkers[family]
    page = Page(engine)
    page.act("send", text="hello", seed=3)
    page.call("grid", metric="first")  # derived before, as while the panel is open
    action(page)
    check_patterns(page, reference)


@pytest.mark.parametrize("family", FAMILIES)
def test_patterns_equal_the_reference_after_one_thing_after_another(talkers, family):
    reference, engine = talkers[family]
    page = Page(engine)
    page.act("send", text="hello", seed=3)
    for action in ACTIONS:
        action(page)
        check_patterns(page, reference)


def test_rows_and_heads_can_be_chosen(references):
    session = session_of(references["llama"][1], 10, 0)
    whole = attention_pattern(session, 1)
    assert whole.shape == (6, 10, 10)
    torch.testing.assert_close(attention_pattern(session, 1, heads=[5, 2], rows=[9, 3]), whole[[5, 2]][:, [9, 3]])
    torch.testing.assert_close(attention_pattern(session, 1, heads=4), whole[[4]])
    torch.testing.assert_close(attention_pattern(session, 1, rows=range(4, 7)), whole[:, 4:7])
    assert attention_pattern(session, 1, rows=[]).shape == (6, 0, 10)


def test_an_empty_session_has_no_rows(references):
    session = Session(KVCache(references["llama"][1].config))
    assert attention_pattern(session, 0).shape == (6, 0, 0)
    assert rollout(session, 2).shape == (0, 0)


NOWHERE = [
    (3, 0, [0], "layer 3"),
    (-1, 0, [0], "layer -1"),
    (0, 6, [0], "head 6"),
    (0, [0, -1], [0], "head -1"),
    (0, 0, [10], "row 10"),
    (0, 0, range(5, 11), "row 10"),
    (0, 0, [-1], "row -1"),
]


@pytest.mark.parametrize(("layer", "heads", "rows", "named"), NOWHERE)
def test_what_does_not_exist_is_named(references, layer, heads, rows, named):
    with pytest.raises(IndexError, match=f"no {named}"):
        attention_pattern(session_of(references["llama"][1], 10, 0), layer, heads, rows)


# ---- a bound for the queries -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bounded():
    """The same long text, read with every query kept and with the last ones only."""
    model = random_model(block_size=700)
    tokens = torch.randint(0, 258, (620,), generator=torch.Generator().manual_seed(1)).tolist()
    return model, *(session_of(model, 600, 20, tokens, query_bytes) for query_bytes in (None, 0))


def test_the_rows_whose_queries_were_kept_are_the_same_and_the_others_are_refused_in_words(bounded):
    _, free, windowed = bounded
    first = windowed.cache.first_query
    assert first == 600 - BLOCK
    for layer in range(3):
        assert torch.equal(attention_pattern(windowed, layer), attention_pattern(free, layer)[:, first:])
    for rows in (range(first - 1, 620), [619, first - 1]):
        with pytest.raises(IndexError, match=f"row {first - 1} cannot be derived: queries are kept from .* {first} on"):
            attention_pattern(windowed, 0, 0, rows)


@pytest.mark.parametrize("what", QUANTITIES)
def test_every_quantity_of_a_row_that_was_kept_is_the_same(bounded, what):
    model, *sessions = bounded
    sight, rows = Sight(((2, 1), (0, 3)), what=what), range(sessions[1].cache.first_query, 620)
    free, windowed = (sight_rows(s, sight, rows, lambda layer: output_gram(model, layer)) for s in sessions)
    assert torch.equal(windowed, free)
    with pytest.raises(IndexError, match="cannot be derived"):
        sight_rows(sessions[1], sight, range(rows.start - 1, 620), lambda layer: output_gram(model, layer))


def test_a_rollout_needs_every_row(bounded):
    with pytest.raises(IndexError, match="rollout needs every row, and the queries of the first 344 were not kept"):
        rollout(bounded[2], 1)


# ---- quantities ------------------------------------------------------------------------------------------------------


def by_hand(model, session, layer, head, what) -> torch.Tensor:
    """A head's rows from the definitions, with loops; 0 where a query does not look, -inf in scores."""
    cache, config = session.cache, model.config
    dim, group = config.head_dim, config.n_head // config.n_kv_head
    queries = cache.queries()[layer, head].tolist()
    keys, values = (x[layer, head // group].tolist() for x in (cache.keys(), cache.values()))
    out = model.blocks[layer].attn.out.weight[:, head * dim : (head + 1) * dim].tolist()  # (C, D)
    rows = torch.full((len(queries), len(keys)), -math.inf if what == "score" else 0.0)
    for i, q in enumerate(queries):
        scores = [sum(a * b for a, b in zip(q, k, strict=True)) * config.score_scale for k in keys[: i + 1]]
        if config.softcap:
            scores = [config.softcap * math.tanh(score / config.softcap) for score in scores]
        if config.window(layer):
            scores = [score if j > i - config.window(layer) else -math.inf for j, score in enumerate(scores)]
        if what == "score":
            cells = scores
        else:
            total = sum(math.exp(s - max(scores)) for s in scores)
            cells = [math.exp(s - max(scores)) / total for s in scores]
        if what == "rest":
            cells = [0.0, *(w / sum(cells[1:]) for w in cells[1:])]
        if what == "value":
            norms = [math.hypot(*(sum(a * b for a, b in zip(o, v, strict=True)) for o in out)) for v in values]
            cells = [w * norm for w, norm in zip(cells, norms[: i + 1], strict=True)]
        rows[i, : i + 1] = torch.tensor(cells)
    return rows


def gram_of(model):
    return lambda layer: output_gram(model, layer)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("what", QUANTITIES)
def test_a_quantity_of_every_head_equals_its_definition(references, family, what):
    model = references[family][1]
    session = session_of(model, 9, 3)
    for layer in range(3):
        for head in range(model.config.n_head):
            cells = sight_rows(session, Sight(((layer, head),), what=what), range(12), gram_of(model))
            expected = by_hand(model, session, layer, head, what)
            torch.testing.assert_close(cells, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("what", QUANTITIES)
def test_some_rows_are_those_of_the_whole(references, what):
    model = references["llama"][1]
    session, sight = session_of(model, 12, 0), Sight(((1, 4), (2, 0)), what=what)
    whole = sight_rows(session, sight, range(12), gram_of(model))
    part = sight_rows(session, sight, range(5, 9), gram_of(model))
    torch.testing.assert_close(part, whole[5:9, :9])
    assert sight_rows(session, sight, range(5, 5), gram_of(model)).shape == (0, 5)


def test_rest_sums_to_one_in_every_row_but_the_first(references):
    model = references["gpt2"][1]
    cells = sight_rows(session_of(model, 12, 0), Sight(((0, 1),), what="rest"), range(12))
    assert cells.sum(-1).tolist() == pytest.approx([0] + [1] * 11, abs=1e-6)
    assert not cells[:, 0].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_vectors_whose_norms_are_shown_add_up_to_what_attention_wrote(references, family):
    """The sum over heads and keys of weight times v W_o, and the bias, is the attention layer's output."""
    model = references[family][1]
    session, config = session_of(model, 12, 0), model.config
    written = []
    hooks = [b.attn.register_forward_hook(lambda _, __, out: written.append(out[0])) for b in model.blocks]
    with torch.inference_mode():
        model(torch.tensor([TOKENS[:12]]), torch.arange(12))
    for hook in hooks:
        hook.remove()
    for layer, block in enumerate(model.blocks):
        out = block.attn.out
        total = torch.zeros(12, config.n_embd) if out.bias is None else out.bias.repeat(12, 1)
        for head, weights in enumerate(attention_pattern(session, layer)):
            v = session.cache.values()[layer, head // (config.n_head // config.n_kv_head)]
            vectors = v @ out.weight.view(-1, config.n_head, config.head_dim)[:, head].T  # (S, C)
            total += weights @ vectors
            shown = sight_rows(session, Sight(((layer, head),), what="value"), range(12), gram_of(model))
            torch.testing.assert_close(shown, weights * vectors.norm(dim=-1), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(total, written[layer], atol=1e-4, rtol=1e-4)


# ---- several heads ---------------------------------------------------------------------------------------------------

SETS = [((0, 2), (0, 1)), ((2, 3), (0, 0), (2, 1)), tuple((layer, head) for layer in range(3) for head in range(4))]


@pytest.mark.parametrize("what", QUANTITIES)
@pytest.mark.parametrize("heads", SETS, ids=len)
def test_sets_of_heads_across_layers_show_the_mean_or_the_largest_of_each_cell(references, heads, what):
    model = references["gpt2"][1]
    session = session_of(model, 12, 0)
    each = torch.stack([by_hand(model, session, *head, what) for head in heads])
    for mix, expected in (("mean", each.mean(0)), ("max", each.amax(0))):
        cells = sight_rows(session, Sight(heads, mix, what), range(12), gram_of(model))
        torch.testing.assert_close(cells, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [1, 12])
def test_rollout_multiplies_the_mean_patterns_of_all_layers_with_half_of_it_staying_where_it_is(
    references, family, length
):
    model = references[family][1]
    session = session_of(model, length, 0)
    flow = [[float(i == j) for j in range(length)] for i in range(length)]
    for layer in range(3):
        mean = attention_pattern(session, layer).mean(0).tolist()
        read = [[sum(mean[i][k] * flow[k][j] for k in range(length)) for j in range(length)] for i in range(length)]
        flow = [[(read[i][j] + flow[i][j]) / 2 for j in range(length)] for i in range(length)]
        rolled = rollout(session, layer)
        torch.testing.assert_close(rolled, torch.tensor(flow), atol=1e-5, rtol=0)
        assert rolled.sum(-1).tolist() == pytest.approx([1] * length, abs=1e-5)
        assert torch.equal(sight_rows(session, Sight(((layer, 1),), "rollout"), range(length)), rolled)


def test_rollout_over_several_blocks_of_rows_is_the_same_product():
    model = random_model()
    tokens = torch.randint(0, 258, (300,), generator=torch.Generator().manual_seed(3)).tolist()
    session, flow = session_of(model, 300, 0, tokens), torch.eye(300)
    for layer in range(3):
        flow = (attention_pattern(session, layer).mean(0) + torch.eye(300)) / 2 @ flow
    torch.testing.assert_close(rollout(session, 2), flow, atol=1e-5, rtol=0)


def test_a_rollout_that_is_given_is_used_and_can_be_written_over(references):
    session, sight = session_of(references["llama"][1], 10, 0), Sight(((2, 0),), "rollout")
    rolled = rollout(session, 2)
    rows = sight_rows(session, sight, range(3, 7), rolled=rolled)
    assert torch.equal(rows, rolled[3:7, :7])
    rows.numpy()[:] = 9
    assert torch.equal(rolled, rollout(session, 2))
    with pytest.raises(IndexError, match="no row 10"):
        sight_rows(session, sight, range(9, 11), rolled=rolled)


# ---- what is refused -------------------------------------------------------------------------------------------------

REFUSED = [
    (((),), "at least one head"),
    ((((0, 0),), "median"), f"mix must be one of {', '.join(MIXES)}, got 'median'"),
    ((((0, 0),), ["mean"]), "mix must be one of"),
    ((((0, 0),), "mean", "beauty"), f"what must be one of {', '.join(QUANTITIES)}, got 'beauty'"),
    ((((0, 0), (0, 1)), "rollout"), "rollout takes one head"),
    ((((0, 0),), "rollout", "score"), "shows weights only"),
]


@pytest.mark.parametrize(("args", "said"), REFUSED)
def test_a_sight_that_makes_no_sense_is_refused_in_words(args, said):
    with pytest.raises(ValueError, match=said):
        Sight(*args)


@pytest.mark.parametrize(
    ("heads", "rows", "named"),
    [(((3, 0),), range(4), "layer 3"), (((0, 0), (1, 6)), range(4), "head 6"), (((0, 0),), range(8, 11), "row 10")],
)
@pytest.mark.parametrize("mix", ["mean", "max"])
def test_a_sight_of_what_does_not_exist_is_refused(references, heads, rows, named, mix):
    with pytest.raises(IndexError, match=f"no {named}"):
        sight_rows(session_of(references["llama"][1], 10, 0), Sight(heads, mix), rows)


def test_a_rollout_up_to_a_layer_that_does_not_exist_is_refused(references):
    with pytest.raises(IndexError, match="no layer 3"):
        rollout(session_of(references["llama"][1], 10, 0), 3)


def test_contributions_need_the_output_matrices(references):
    with pytest.raises(ValueError, match="give gram"):
        sight_rows(session_of(references["llama"][1], 10, 0), Sight(((0, 0),), what="value"), range(4))
