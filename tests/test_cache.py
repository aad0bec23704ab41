"""The cache keeps what it was given, grows by blocks, cuts and copies without a trace; queries can be bounded."""

from collections.abc import Callable

import pytest
import torch

from gpt.cache import BLOCK, KVCache
from gpt.config import GPTConfig
from gpt.runner import EagerRunner
from tests.conftest import random_model

CONFIG = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=16, head_dim=4, d_mlp=8, block_size=1024, vocab_size=9)

POSITION = (2 * (4 + 2 + 2) * 4 + 16) * 4  # bytes
QUERY = 2 * 4 * 4 * 4  # bytes of one position's queries


def filled(n: int, seed: int = 0) -> KVCache:
    cache, generator = KVCache(CONFIG), torch.Generator().manual_seed(seed)
    cache.extend(*columns(n, lambda *shape: torch.randn(*shape, generator=generator)))
    return cache


def columns(n: int, make: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
    """Queries, keys, values and hidden states of n positions."""
    return [*(make(2, heads, n, 4) for heads in (4, 2, 2)), make(n, 16)]


def test_growing_keeps_what_was_there():
    cache = filled(BLOCK - 1)
    before = cache.queries().clone(), cache.keys().clone(), cache.values().clone()
    assert cache.capacity == BLOCK
    cache.reserve(2)
    assert cache.capacity == 2 * BLOCK
    for old, new in zip(before, (cache.queries(), cache.keys(), cache.values()), strict=True):
        assert torch.equal(old, new)


def test_a_reader_keeps_its_rows_while_the_cache_grows():
    cache = filled(BLOCK)
    seen = cache.queries()
    copy = seen.clone()
    cache.extend(*columns(BLOCK, torch.ones))
    assert torch.equal(seen, copy)


def test_append_writes_every_layer_and_advance_counts_once():
    cache = filled(3)
    q, k, v = (torch.full((1, heads, 2, 4), float(heads)) for heads in (4, 2, 2))
    cache.reserve(2)
    for layer in range(2):
        ((_, keys, values, mask, causal),) = cache.append(layer, q, k, v)
        assert keys.shape == values.shape == (1, 2, 5, 4)
        assert not causal
        assert mask.tolist() == [[True, True, True, True, False], [True] * 5]
    assert cache.length == 3
    cache.advance(2)
    assert cache.length == 5
    assert torch.equal(cache.queries()[:, :, 3:], torch.full((2, 4, 2, 4), 4.0))


def test_reads_remember_where_each_began_as_long_as_it_is_there():
    cache = filled(5)
    for n in (1, 3):
        cache.extend(*columns(n, torch.ones))
    assert (cache.reads, cache.boundaries) == ([0, 5, 6], (0, 5, 6, 9))
    cache.truncate(6)
    assert cache.boundaries == (0, 5, 6)
    assert cache.fork(2).boundaries == (0, 2)


def test_a_fork_is_independent_of_its_origin():
    cache = filled(10)
    copy = cache.fork(6)
    cache.truncate(2)
    cache.extend(*columns(4, torch.zeros))
    assert torch.equal(copy.keys(), filled(10).keys()[:, :, :6])
    assert torch.equal(copy.hidden(), filled(10).hidden()[:6])
    assert copy.nbytes == 6 * POSITION


def test_nbytes_is_what_the_buffers_hold():
    assert KVCache(CONFIG).nbytes == 0
    assert filled(1).nbytes == BLOCK * POSITION


@pytest.mark.parametrize("length", [-1, 4])
def test_truncating_to_what_is_not_there_is_refused(length):
    with pytest.raises(ValueError, match="between 0 and 3"):
        filled(3).truncate(length)


# ---- a bound for the queries -----------------------------------------------------------------------------------------

WINDOW = BLOCK + 44
BOUND = (WINDOW + BLOCK) * QUERY
WHOLE = columns(1100, lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(5)))


def cut(start: int, end: int) -> list[torch.Tensor]:
    """Queries, keys, values and hidden states of the positions start..end-1 of one text."""
    return [*(x[:, :, start:end] for x in WHOLE[:3]), WHOLE[3][start:end]]


def take(cache: KVCache, n: int, at_once: bool) -> None:
    """Let a cache read the next n positions of the text: at once as a worker's piece, or as the model's layers do."""
    q, k, v, hidden = cut(cache.length, cache.length + n)
    if at_once:
        return cache.extend(q, k, v, hidden)
    cache.reserve(n)
    for layer in range(2):
        cache.append(layer, q[None, layer], k[None, layer], v[None, layer])
    cache.keep(hidden[None])
    cache.advance(n)


def check_window(cache: KVCache, at_least: int) -> None:
    """The last `at_least` queries, or all, are those of the text, within the bound; of the rest nothing is missing."""
    n, first = cache.length, cache.first_query
    assert first <= max(n - at_least, 0)
    assert cache._buffers.queries.nbytes <= BOUND
    for held, expected in zip(cache.reading()[:3], cut(0, n), strict=False):
        assert torch.equal(held, expected[:, :, n - held.shape[2] :])
    assert [x.shape[2] for x in cache.reading()[:3]] == [n - first, n, n]
    assert torch.equal(cache.hidden(), WHOLE[3][:n])


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, BLOCK, 299, 300, 301, 1000])
def test_of_a_text_that_outgrows_the_bound_the_last_queries_are_kept_and_all_keys_and_values(chunk, at_once):
    cache = KVCache(CONFIG, query_bytes=BOUND)
    assert cache.window == WINDOW
    while cache.length + chunk <= 1100:
        take(cache, chunk, at_once)
        check_window(cache, WINDOW)
    assert cache.first_query > 0


def test_a_text_within_the_bound_keeps_every_query():
    cache = KVCache(CONFIG, query_bytes=BOUND)
    take(cache, WINDOW, at_once=True)
    assert (cache.first_query, cache.queries().shape[2]) == (0, WINDOW)
    check_window(cache, WINDOW)


def test_without_a_bound_every_query_is_kept():
    cache = KVCache(CONFIG)
    take(cache, 1100, at_once=True)
    assert (cache.window, cache.first_query) == (None, 0)
    assert torch.equal(cache.queries(), WHOLE[0])


@pytest.mark.parametrize("few", [0, QUERY, BLOCK * QUERY])
def test_however_small_the_bound_a_block_of_queries_is_kept(few):
    cache = KVCache(CONFIG, query_bytes=few)
    take(cache, 1000, at_once=False)
    assert cache.window == BLOCK
    assert cache.queries().shape[2] >= BLOCK
    assert torch.equal(cache.queries(), WHOLE[0][:, :, cache.first_query : 1000])


def windowed(n: int) -> KVCache:
    cache = KVCache(CONFIG, query_bytes=BOUND)
    take(cache, n, at_once=False)
    return cache


def test_the_bound_counts_bytes_of_the_type_that_is_kept():
    assert KVCache(CONFIG, dtype=torch.bfloat16, query_bytes=BOUND).window == 2 * (WINDOW + BLOCK) - BLOCK


def test_a_cut_above_the_first_query_kept_leaves_it_where_it_is():
    cache = windowed(1000)
    first = cache.first_query
    assert first == 700
    cache.truncate(900)
    assert cache.first_query == first
    check_window(cache, 200)
    take(cache, 150, at_once=True)
    check_window(cache, WINDOW)


@pytest.mark.parametrize("length", [0, 1, 300, 699, 700])
def test_a_cut_at_or_below_the_first_query_kept_leaves_none_and_those_that_follow_are_kept(length):
    cache = windowed(1000)
    cache.truncate(length)
    assert (cache.first_query, cache.queries().shape[2]) == (length, 0)
    check_window(cache, 0)
    for n in (1, 50, 249):
        take(cache, n, at_once=False)
        assert cache.first_query == length
        check_window(cache, cache.length - length)
    take(cache, 100, at_once=True)
    check_window(cache, WINDOW)


@pytest.mark.parametrize("length", [100, 700, 900, 1000])
def test_a_fork_of_a_bounded_cache_holds_what_it_held_and_the_same_bound(length):
    cache = windowed(1000)
    copy = cache.fork(length)
    assert (copy.window, copy.first_query) == (WINDOW, min(length, 700))
    check_window(copy, length - min(length, 700))
    take(copy, 100, at_once=True)
    check_window(copy, min(100 + length - min(length, 700), WINDOW))
    check_window(cache, WINDOW)


def test_a_reading_is_of_one_moment_though_the_text_goes_on_or_is_cut():
    cache = windowed(1000)
    reading = cache.reading()
    copies = [x.clone() for x in reading[:3]]
    take(cache, 100, at_once=False)
    cache.truncate(10)
    take(cache, 30, at_once=True)
    assert (reading.first, reading.length) == (700, 1000)
    assert all(torch.equal(x, copy) for x, copy in zip(reading, copies, strict=False))


def test_a_reader_that_is_overtaken_by_a_cut_still_gets_as_many_keys_as_it_is_told():
    cache = windowed(1000)
    cache._buffers = cache._first_positions(40)  # as far as another thread has come with its cut
    reading = cache.reading()
    assert (reading.first, reading.length) == (40, 40)
    assert [x.shape[2] for x in reading[:3]] == [0, 40, 40]


def test_a_model_computes_the_same_logits_whether_queries_are_bounded_or_not():
    model = random_model(block_size=1200)
    tokens = torch.randint(0, 258, (1000,), generator=torch.Generator().manual_seed(1)).tolist()
    row = model.config.n_layer * model.config.n_head * model.config.head_dim * 4
    runner, caches = EagerRunner(model), [KVCache(model.config), KVCache(model.config, query_bytes=2 * BLOCK * row)]
    for start, end in ((0, 256), (256, 700), *((i, i + 1) for i in range(700, 720)), (720, 1000)):
        free, bounded = (runner.run([(cache, tokens[start:end])]) for cache in caches)
        assert torch.equal(free, bounded)
    free, bounded = caches
    assert bounded.first_query > 0
    assert torch.equal(bounded.queries(), free.queries()[:, :, bounded.first_query :])
    assert torch.equal(bounded.hidden(), free.hidden())


def test_a_text_that_is_expected_makes_the_buffers_grow_once():
    cache, other = KVCache(CONFIG), KVCache(CONFIG)
    cache.expect(3 * BLOCK - 5)
    assert (cache.capacity, cache.length) == (3 * BLOCK, 0)
    held = cache.nbytes
    for n in (BLOCK, BLOCK, BLOCK - 5):
        new = columns(n, torch.randn)
        cache.extend(*new)
        other.extend(*new)
    assert (cache.nbytes, cache.capacity) == (held, other.capacity)
    assert torch.equal(cache.queries(), other.queries())
    assert torch.equal(cache.keys(), other.keys())
