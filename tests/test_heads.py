"""Head metrics, thumbnails and likeness equal their definitions written out, on real heads and on some made by hand."""

import math

import pytest
import torch

from gpt import heads
from gpt.cache import BLOCK, KVCache
from gpt.chat import Span
from gpt.config import GPTConfig
from gpt.heads import METRICS, SIDE, HeadMetrics, Thumbnails, similarity
from gpt.interp import attention_pattern
from gpt.runner import EagerRunner
from gpt.session import Session
from tests.conftest import random_model

SPANS = (Span("template", 0, 3), Span("user", 3, 8), Span("assistant", 8, 20), Span("user", 20, 27))


def text(n: int, seed: int = 2, kinds: int = 7) -> list[int]:
    """Tokens of few kinds, so that most occurred before."""
    return torch.randint(0, kinds, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def read(session: Session, model, n: int | None = None) -> Session:
    """Let the model read the next n tokens, or all that are left."""
    pending = session.tokens[session.cache.length :][:n]
    EagerRunner(model).run([(session.cache, pending)])
    return session


def session_of(model, tokens: list[int], spans=SPANS, query_bytes=None, length: int | None = None) -> Session:
    session = Session(KVCache(model.config, query_bytes=query_bytes))
    session.rewrite(tokens, spans)
    return read(session, model, length)


@pytest.fixture(scope="module")
def model():
    return random_model(block_size=800)


# ---- metrics of real heads -------------------------------------------------------------------------------------------


def by_hand(pattern: list[list[float]], tokens: list[int], message=None, start: int = 0, rows=None) -> dict[str, float]:
    """The metrics of one head from their definitions, with loops. pattern[i] is the row of position start + i."""
    found = {name: [] for name in METRICS}
    for q in range(max(start, 1), start + len(pattern)) if rows is None else rows:
        row = pattern[q - start][: q + 1]
        earlier = [p for p in range(q) if tokens[p] == tokens[q]]
        after = [p + 1 for p in earlier if p + 1 < q]
        found["first"].append(row[0])
        found["previous"].append(row[q - 1])
        found["self"].append(row[q])
        if earlier:
            found["duplicate"].append(sum(row[p] for p in earlier))
        if after:
            found["induction"].append(sum(row[p] for p in after))
        if message and q >= message[1]:
            found["user"].append(sum(row[slice(*message)]))
        found["entropy"].append(-sum(a * math.log(a) for a in row if a > 0) / math.log(q + 1))
        found["distance"].append(sum(a * (q - k) for k, a in enumerate(row)))
    return {name: sum(values) / len(values) if values else math.nan for name, values in found.items()}


def check(metrics, session: Session, message=None, some=None, **how) -> None:
    n_layer, n_head = metrics["first"].shape
    for layer, head in some or ((layer, head) for layer in range(n_layer) for head in range(n_head)):
        pattern = attention_pattern(session, layer, head)[0].tolist()
        for name, expected in by_hand(pattern, session.tokens, message, **how).items():
            assert metrics[name][layer, head].item() == pytest.approx(expected, abs=1e-4, nan_ok=True), name


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_metrics_of_every_head_equal_their_definitions(references, family):
    session = session_of(references[family][1], text(60))
    metrics = HeadMetrics().update(session)
    assert tuple(metrics) == METRICS
    check(metrics, session, message=(20, 27))
    assert not any(values.isnan().any() for values in metrics.values())


def test_the_last_user_message_counts_over_the_rows_after_it_alone(model):
    session = session_of(model, text(60), length=24)
    metrics = HeadMetrics()
    check(metrics.update(session), session, message=(3, 8))  # the second one is not read to its end
    read(session, model, 3)
    assert metrics.update(session)["user"].isnan().all()  # no row comes after it yet
    read(session, model, 1)
    check(metrics.update(session), session, message=(20, 27))


def test_a_metric_without_a_row_that_counts_has_no_value(model):
    nothing = HeadMetrics().update(Session(KVCache(model.config)))
    alone = HeadMetrics().update(session_of(model, [5], spans=()))
    assert all(values.shape == (3, 4) and values.isnan().all() for values in (*nothing.values(), *alone.values()))


def test_repetition_counts_where_there_is_some(model):
    different = HeadMetrics().update(session_of(model, [1, 2, 3, 4], spans=()))
    assert {name for name in METRICS if different[name].isnan().all()} == {"duplicate", "induction", "user"}
    twice = HeadMetrics().update(session_of(model, [1, 2, 2], spans=()))  # what follows the first 2 is the query itself
    assert {name for name in METRICS if twice[name].isnan().all()} == {"induction", "user"}
    session = session_of(model, [1, 2, 2, 2], spans=())
    check(HeadMetrics().update(session), session)


# ---- metrics of heads made by hand -----------------------------------------------------------------------------------

TEXT = [9, 1, 2, 3, 8, 1, 2, 3, 7, 2, 3, 6]  # "1 2 3" twice, then "2 3"; the user said "1 2 3" the first time
MESSAGE = Span("user", 1, 4)
HEADS = {  # kind -> what the row of position q reads; the first position where there is nothing else
    "first": lambda q: [0],
    "previous": lambda q: [max(q - 1, 0)],
    "self": lambda q: [q],
    "duplicate": lambda q: [p for p in range(q) if TEXT[p] == TEXT[q]],
    "induction": lambda q: [p + 1 for p in range(q - 1) if TEXT[p] == TEXT[q]],
    "user": lambda q: [1, 2, 3] if q > 3 else [],
    "uniform": lambda q: range(q + 1),
}


def planted(*targets, tokens=TEXT, spans=(MESSAGE,)) -> Session:
    """A session of one layer whose head h reads, from position q, the positions targets[h](q), all alike."""
    n = len(tokens)
    config = GPTConfig(
        n_layer=1, n_head=len(targets), n_kv_head=1, n_embd=8, head_dim=n, d_mlp=8, block_size=64, vocab_size=10
    )
    queries = torch.zeros(1, len(targets), n, n)
    for head, target in enumerate(targets):
        for q in range(n):
            queries[0, head, q, list(target(q)) or [0]] = 400.0
    keys = torch.eye(n)[None, None]  # position p is the p-th axis
    session = Session(KVCache(config))
    session.rewrite(tokens, spans)
    session.cache.extend(queries, keys, torch.zeros_like(keys), torch.zeros(n, 8))
    return session


def test_a_head_that_does_one_thing_scores_one_for_it():
    metrics = HeadMetrics().update(planted(*HEADS.values()))
    for head, kind in enumerate(HEADS):
        if kind in METRICS:
            assert metrics[kind][0, head].item() == pytest.approx(1, abs=1e-6), kind
    uniform = list(HEADS).index("uniform")
    assert metrics["entropy"][0, uniform].item() == pytest.approx(1, abs=1e-6)
    assert metrics["entropy"][0, :3].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert metrics["distance"][0, [1, 2]].tolist() == pytest.approx([1, 0], abs=1e-5)
    assert metrics["distance"][0, 0].item() == pytest.approx(sum(range(1, 12)) / 11)
    assert metrics["distance"][0, uniform].item() == pytest.approx(sum(q / 2 for q in range(1, 12)) / 11)


def test_a_head_scores_for_other_things_no_more_than_it_does_of_them():
    metrics = HeadMetrics().update(planted(*HEADS.values()))
    of = {name: dict(zip(HEADS, metrics[name][0].tolist(), strict=True)) for name in METRICS}
    assert [of["induction"][kind] for kind in ("first", "self", "duplicate")] == pytest.approx([0] * 3, abs=1e-5)
    assert [of["duplicate"][kind] for kind in ("first", "previous", "self")] == pytest.approx([0] * 3, abs=1e-5)
    assert of["first"]["user"] == pytest.approx(3 / 11)  # rows 1 to 3 stand in the message and read the first position
    # rows 5, 6, 7, 9, 10 hold a token that came before; uniform rows give 1/(q+1) to each earlier place of it
    once, twice = (1 / 6, 1 / 7, 1 / 8), (2 / 10, 2 / 11)
    assert of["duplicate"]["uniform"] == pytest.approx(sum(once + twice) / 5)
    assert of["induction"]["uniform"] == pytest.approx(sum(once + twice) / 5)
    assert of["user"]["uniform"] == pytest.approx(sum(3 / (q + 1) for q in range(4, 12)) / 8)


# ---- kept up to date -------------------------------------------------------------------------------------------------


def same(metrics: dict, fresh: dict) -> None:
    for name in METRICS:
        torch.testing.assert_close(metrics[name], fresh[name], atol=1e-4, rtol=1e-5, equal_nan=True, msg=name)


@pytest.mark.parametrize("chunks", [[1] * 140, [63, 1, 1, 63, 1, 1], [50, 100, 5], [130]], ids=len)
def test_growing_over_block_borders_gives_what_one_reading_gives(model, chunks):
    session, metrics = session_of(model, text(sum(chunks)), length=chunks[0]), HeadMetrics()
    for n in [*chunks[1:], 0]:
        updated = metrics.update(session)
        if session.cache.length % 9 == 2 or session.cache.length % 64 < 2 or not n:
            same(updated, HeadMetrics().update(session))
        if n:
            read(session, model, n)


@pytest.mark.parametrize("kept", [1, 12, 63, 64, 65, 100, 129])
def test_another_text_after_a_cut_gives_what_one_reading_gives(model, kept):
    session, metrics = session_of(model, text(130)), HeadMetrics()
    metrics.update(session)
    session.rewrite([*session.tokens[:kept], *text(90, seed=kept)], SPANS)
    same(metrics.update(session), HeadMetrics().update(session))  # cut, and nothing new read
    read(session, model)
    same(metrics.update(session), HeadMetrics().update(session))


def test_a_new_user_message_gives_what_one_reading_gives(model):
    session, metrics = session_of(model, text(100)), HeadMetrics()
    metrics.update(session)
    for end in (110, 140):
        session.rewrite([*session.tokens, *text(end - len(session.tokens))], (*SPANS, Span("user", end - 8, end - 2)))
        while session.cache.length < end:
            read(session, model, 1)
            same(metrics.update(session), HeadMetrics().update(session))
    assert not metrics.update(session)["user"].isnan().any()


def test_messages_that_are_told_apart_otherwise_give_what_one_reading_gives(model):
    session, metrics = session_of(model, text(100), spans=()), HeadMetrics()
    assert metrics.update(session)["user"].isnan().all()
    session.rewrite(session.tokens, (Span("user", 30, 40),))
    same(metrics.update(session), HeadMetrics().update(session))


def test_a_text_that_is_cut_while_it_is_read_leaves_nothing_wrong(model, monkeypatch):
    old, other = text(130), text(130, seed=9)
    session, metrics, reader = session_of(model, old), HeadMetrics(), heads._read

    def overtaken(reading, tokens, start, *rest):
        if start == 64:  # another thread has the model read another text, into the memory that is being looked at
            session.rewrite([*old[:70], *other], SPANS)
            read(session, model)
        return reader(reading, tokens, start, *rest)

    monkeypatch.setattr(heads, "_read", overtaken)
    metrics.update(session)
    monkeypatch.undo()
    session.rewrite(old, SPANS)
    same(metrics.update(read(session, model)), HeadMetrics().update(session))


def test_rows_whose_queries_were_dropped_still_count_if_they_were_read_in_time(model):
    tokens = text(700)
    free, bounded = (session_of(model, tokens, query_bytes=few, length=90) for few in (None, 0))
    metrics = HeadMetrics()
    metrics.update(bounded)
    while free.cache.length < 700:
        for session in (free, bounded):
            read(session, model, 90)
        updated = metrics.update(bounded)
    assert bounded.cache.first_query > 0
    same(updated, HeadMetrics().update(free))


def test_of_a_bounded_cache_the_rows_that_can_be_derived_count(model):
    session = session_of(model, text(600), query_bytes=0)
    first = session.cache.first_query
    assert first == 600 - BLOCK
    check(HeadMetrics().update(session), session, message=(20, 27), some=[(1, 2)], start=first)


def test_after_a_cut_below_all_queries_kept_whole_blocks_from_before_count(model):
    tokens = text(600)
    session, metrics = session_of(model, tokens, query_bytes=0, length=200), HeadMetrics()
    metrics.update(session)
    metrics.update(read(session, model))
    session.rewrite([*tokens[:150], *text(60, seed=8)], SPANS)
    updated = metrics.update(read(session, model))
    assert session.cache.first_query == 150
    free = session_of(model, session.tokens)
    check(updated, free, message=(20, 27), some=[(2, 0)], rows=[*range(1, 128), *range(150, 210)])


# ---- thumbnails ------------------------------------------------------------------------------------------------------


def pooled_by_hand(session: Session, size: int) -> torch.Tensor:
    """The largest weight in squares of size x size, without the first key, (L, H, n, n); rows not kept are 0."""
    n, first = session.cache.length, session.cache.first_query
    cells = range(-(-n // size))
    whole = torch.zeros(3, 4, n, n)
    for layer in range(3):
        whole[layer, :, first:] = attention_pattern(session, layer)
    whole[..., 0] = 0
    squares = [
        [whole[..., y * size : (y + 1) * size, x * size : (x + 1) * size].amax((-2, -1)) for x in cells] for y in cells
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in squares], dim=-2)


def check_pictures(thumbnails: Thumbnails, session: Session) -> int:
    pictures, size = thumbnails.update(session)
    torch.testing.assert_close(pictures, pooled_by_hand(session, size), atol=1e-6, rtol=0)
    assert pictures.shape[-1] <= SIDE
    return size


@pytest.mark.parametrize("chunks", [[1] * 140, [5, 28, 40, 61], [31, 1, 1, 31, 1, 64], [140]], ids=len)
def test_a_picture_holds_the_largest_weight_of_every_square_however_the_text_grew(model, chunks):
    session, thumbnails, length = session_of(model, text(140), length=chunks[0]), Thumbnails(), chunks[0]
    for n in [*chunks[1:], 0]:
        if length % 8 < 2 or not n:  # others are taken up later, several at once
            size = check_pictures(thumbnails, session)
            assert size == max(2 ** math.ceil(math.log2(length / SIDE)), 1)
        if n:
            read(session, model, n)
            length += n


@pytest.mark.parametrize("kept", [1, 30, 32, 33, 64, 90, 100, 139])
def test_a_picture_of_another_text_after_a_cut_holds_nothing_of_the_old_one(model, kept):
    session, thumbnails = session_of(model, text(140)), Thumbnails()
    thumbnails.update(session)
    session.rewrite([*session.tokens[:kept], *text(110, seed=kept)], SPANS)
    size = check_pictures(thumbnails, session)
    assert size * SIDE <= 2 * max(kept, SIDE)  # a short text is not shown in a corner
    while session.cache.length < len(session.tokens):
        check_pictures(thumbnails, read(session, model, 13))


def test_a_picture_of_a_text_that_is_cut_while_it_is_read_is_right_afterwards(model, monkeypatch):
    old = text(130)
    session, thumbnails, scores = session_of(model, old), Thumbnails(), heads.block_scores

    def overtaken(reading, layer, start, end):
        if (layer, start) == (0, 64):
            session.rewrite([*old[:70], *text(60, seed=9)], SPANS)
            read(session, model)
        return scores(reading, layer, start, end)

    monkeypatch.setattr(heads, "block_scores", overtaken)
    thumbnails.update(session)
    monkeypatch.undo()
    session.rewrite(old, SPANS)
    check_pictures(thumbnails, read(session, model))


def test_a_picture_of_a_bounded_cache_shows_what_was_seen_in_time(model):
    tokens = text(600)
    session = session_of(model, tokens, query_bytes=0)
    check_pictures(Thumbnails(), session)
    bounded, thumbnails = session_of(model, tokens, query_bytes=0, length=200), Thumbnails()
    thumbnails.update(bounded)
    while bounded.cache.length < 600:
        pictures, size = thumbnails.update(read(bounded, model, 200))
    assert bounded.cache.first_query > 0
    torch.testing.assert_close(pictures, pooled_by_hand(session_of(model, tokens), size), atol=1e-6, rtol=0)


def test_a_picture_of_an_empty_session_has_no_cells(model):
    pictures, size = Thumbnails().update(Session(KVCache(model.config)))
    assert (pictures.shape, size) == ((3, 4, 0, 0), 1)


# ---- likeness --------------------------------------------------------------------------------------------------------


def alike_by_hand(a: list[list[float]], b: list[list[float]], start: int = 0) -> float:
    pairs = [(a[q][k], b[q][k]) for q in range(len(a)) for k in range(1, start + q + 1)]
    return sum(min(pair) for pair in pairs) / sum(max(pair) for pair in pairs)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_likeness_is_the_weight_in_common_over_the_weight_of_either(references, family):
    model = references[family][1]
    session = session_of(model, text(40))
    wanted = attention_pattern(session, 1, 2)[0].tolist()
    found = similarity(session, 1, 2)
    assert found.shape == (3, model.config.n_head)
    for layer in range(3):
        for head, pattern in enumerate(attention_pattern(session, layer).tolist()):
            assert found[layer, head].item() == pytest.approx(alike_by_hand(wanted, pattern), abs=1e-5)


def test_likeness_is_one_with_itself_and_the_same_both_ways_over_several_blocks(model):
    session = session_of(model, text(150))
    rows = {head: similarity(session, *head) for head in ((0, 0), (1, 3), (2, 1))}
    for a in rows:
        assert rows[a][a].item() == pytest.approx(1, abs=1e-5)
        assert all(rows[a][b].item() == pytest.approx(rows[b][a].item(), abs=1e-5) for b in rows)
        assert 0 < rows[a].min() < 0.9
    a, b = (attention_pattern(session, *head)[0].tolist() for head in ((0, 0), (2, 1)))
    assert rows[0, 0][2, 1].item() == pytest.approx(alike_by_hand(a, b), abs=1e-5)


def test_likeness_of_heads_made_by_hand():
    found = similarity(planted(HEADS["previous"], HEADS["self"], HEADS["previous"], HEADS["first"]), 0, 0)[0]
    assert found.tolist() == pytest.approx([1, 0, 1, 0], abs=1e-6)  # what reads the first position alone reads nothing


def test_likeness_of_a_bounded_cache_is_over_the_rows_that_can_be_derived(model):
    session = session_of(model, text(600), query_bytes=0)
    first = session.cache.first_query
    a, b = (attention_pattern(session, 0, head)[0].tolist() for head in (0, 1))
    assert similarity(session, 0, 0)[0, 1].item() == pytest.approx(alike_by_hand(a, b, first), abs=1e-5)


def test_likeness_without_a_row_has_no_value_and_of_no_head_is_refused(model):
    assert similarity(Session(KVCache(model.config)), 0, 0).isnan().all()
    assert similarity(session_of(model, [5], spans=()), 0, 0).isnan().all()
    for layer, head in ((3, 0), (0, 4), (-1, 0)):
        with pytest.raises(IndexError, match=f"no layer {layer}, head {head}; there are 3 layers of 4 heads"):
            similarity(session_of(model, [5], spans=()), layer, head)
