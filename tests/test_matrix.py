"""Matrices become tiles of bytes: what a byte means, how cells are pooled, differences, windows, single columns."""

import math

import numpy as np
import pytest
import torch

from demo import matrix
from demo.matrix import Matrix, Scale, encode_rows
from gpt.cache import KVCache
from gpt.interp import QUANTITIES, Sight, output_gram, rollout
from gpt.runner import EagerRunner
from gpt.session import Session
from tests.conftest import random_model

MODEL = random_model(block_size=600)
MIXED = Sight(((0, 1), (2, 3), (1, 0)), "max")


def gram(layer: int) -> torch.Tensor:
    return output_gram(MODEL, layer)


def session_of(n: int, seed: int = 1, query_bytes: int | None = None) -> Session:
    session = Session(KVCache(MODEL.config, query_bytes=query_bytes))
    session.rewrite(torch.randint(0, 258, (n,), generator=torch.Generator().manual_seed(seed)).tolist())
    if n:
        EagerRunner(MODEL).run([(session.cache, session.tokens)])
    return session


@pytest.fixture
def small(monkeypatch):
    """Tiles of 8 x 8 cells, of rows that are made 6 at a time: no power of two divides these."""
    monkeypatch.setattr(matrix, "TILE", 8)
    monkeypatch.setattr(matrix, "ROWS_AT_ONCE", 6)


def of(n: int, what: str = "weight", minus=None, **changes) -> Matrix:
    return Matrix(session_of(n, **changes), Sight(((1, 2),), what=what), gram, minus)


def difference(n: int, what: str = "weight") -> Matrix:
    """Head 2 of layer 1 less head 0 of layer 2 in another text, four tokens longer."""
    return of(n, what, minus=(session_of(n + 4, seed=2), Sight(((2, 0),), what=what)))


# ---- bytes -----------------------------------------------------------------------------------------------------------


def decoded(data: np.ndarray, scale: Scale) -> np.ndarray:
    """The values that bytes stand for, by the formulas of the module's docstring."""
    x = np.asarray(data, np.float64)
    if scale.kind == "score":
        return np.where(x == 0, -np.inf, scale.low + (x - 1) / 254 * (scale.high - scale.low))
    if scale.kind == "difference":
        return scale.high * np.sign(x - 128) * ((x - 128) / 127) ** 2
    return (x / 255) ** 2 * (scale.high if scale.kind == "value" else 1)


SCALES = [
    Scale("weight"), Scale("rest"), Scale("value", 0, 7.5), Scale("score", -30.0, 12.5), Scale("difference", -0.3, 0.3)
]  # fmt: skip


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.kind)
def test_every_byte_means_one_value_and_that_value_the_byte(scale):
    data = np.arange(1 if scale.kind == "difference" else 0, 256, dtype=np.uint8)
    assert scale.encode(decoded(data, scale).astype(np.float32)).tolist() == data.tolist()


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.kind)
def test_a_value_is_off_by_half_a_step_at_most(scale):
    values = np.linspace(scale.low, scale.high, 999, dtype=np.float32)
    back = decoded(scale.encode(values), scale)
    if scale.kind == "score":
        assert np.abs(back - values).max() <= 0.5 / 254 * (scale.high - scale.low) + 1e-5
    else:  # the step is one of the root
        steps = 127 if scale.kind == "difference" else 255
        roots = [np.copysign(np.sqrt(np.abs(x) / scale.high), x) for x in (back, values)]
        assert np.abs(roots[0] - roots[1]).max() <= 0.5 / steps + 1e-6


def test_the_bytes_of_a_few_values_by_hand():
    assert Scale("weight").encode(np.array([0, 0.25, 1])).tolist() == [0, 128, 255]
    assert Scale("value", 0, 4).encode(np.array([0, 1, 4, 5])).tolist() == [0, 128, 255, 255]
    assert Scale("score", -1, 1).encode(np.array([-np.inf, -1, 0, 1, -9, 9])).tolist() == [0, 1, 128, 255, 1, 255]
    assert Scale("difference", -1, 1).encode(np.array([-1, -0.25, 0, 0.25, 1])).tolist() == [1, 64, 128, 192, 255]
    assert Scale("difference", 0, 0).encode(np.zeros(2)).tolist() == [128, 128]
    assert Scale("score", 2, 2).encode(np.array([2.0])).tolist() == [1]


# ---- cells -----------------------------------------------------------------------------------------------------------


def whole(it: Matrix) -> np.ndarray:
    """The exact matrix, (S, S); rows that there are not hold nothing, as what comes after the query."""
    n = it.rows.stop
    cells = np.full((n, n), -np.inf if it.kind == "score" else 0.0, np.float32)
    cells[it.rows.start :] = it.exact(it.rows)
    return cells


def largest(values: list[float], signed: bool) -> float:
    return max(values, key=abs) if signed else max(values)


def pooled(it: Matrix, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a level with loops, without the first key above level 0; and the first key's column."""
    exact, side, signed, n = whole(it), 1 << level, it.minus is not None, it.rows.stop
    across = range(math.ceil(n / side))
    nothing = -math.inf if it.kind == "score" else 0.0
    cells, first = np.full((len(across), len(across)), nothing), np.full(len(across), nothing)
    for y in across:
        rows = range(y * side, min((y + 1) * side, n))
        first[y] = largest([exact[i, 0] for i in rows], signed)
        for x in across:
            keys = [k for k in range(x * side, min((x + 1) * side, n)) if k or not level]
            cells[y, x] = largest([exact[i, k] for i in rows for k in keys] or [nothing], signed)
    return cells, first


KINDS = [*QUANTITIES, "difference"]


def made(kind: str, n: int) -> Matrix:
    return difference(n) if kind == "difference" else of(n, kind)


@pytest.mark.parametrize(("n", "level"), [(1, 0), (7, 0), (8, 0), (9, 1), (16, 1), (17, 2), (30, 2), (33, 3)])
def test_the_overview_is_at_the_first_level_where_one_tile_holds_all(small, n, level):
    tile = of(n).overview().tile
    assert (tile.level, tile.y, tile.x) == (level, 0, 0)
    assert tile.cells.shape == (math.ceil(n / 2**level),) * 2
    assert (tile.first is None) == (level == 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 8, 13, 16, 29], ids=lambda n: f"{n} tokens")
def test_the_overview_holds_the_largest_of_every_square_and_says_what_the_largest_are(small, kind, n):
    it = made(kind, n)
    overview = it.overview()
    tile, scale = overview.tile, overview.scale
    cells, first = pooled(it, tile.level)
    assert tile.cells.tolist() == scale.encode(cells).tolist()
    rest = cells if tile.level else cells[:, 1:]
    if tile.level:
        assert tile.first.tolist() == scale.encode(first).tolist()
    tops = [x[np.isfinite(x)] for x in (rest, first)]
    sizes = [np.abs(x) if kind == "difference" else x for x in tops]
    assert (overview.top, overview.first) == pytest.approx([x.max(initial=0 if n == 1 else -9e9) for x in sizes])
    assert scale.kind == kind
    if kind in ("weight", "rest"):
        assert (scale.low, scale.high) == (0, 1)
    elif kind == "value":
        assert (scale.low, scale.high) == (0, pytest.approx(max(overview.top, overview.first)))
    elif kind == "difference":
        assert scale.high == -scale.low == pytest.approx(max(overview.top, overview.first))
    else:
        exact = whole(it)  # a square shows its largest score: the least of all are seen at level 0 only
        ends = np.append(exact[np.isfinite(exact)], [0.0] * (n == 1))
        assert (scale.low, scale.high) == pytest.approx((ends.min(), ends.max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [8, 29, 45], ids=lambda n: f"{n} tokens")
@pytest.mark.parametrize("level", [0, 1, 2])
def test_tiles_are_slices_of_the_whole_with_the_first_key_apart(small, kind, n, level):
    it = made(kind, n)
    scale = it.overview().scale
    cells, first = pooled(it, level)
    across = range(math.ceil(n / (8 << level)))
    wanted = [(level, y, x) for y in across for x in across]
    tiles = {(tile.y, tile.x): tile for tile in it.tiles(wanted, scale)}
    assert set(tiles) == {(y, x) for y in across for x in range(y + 1)}  # right of the diagonal is nothing
    for (y, x), tile in tiles.items():
        rows = slice(y * 8, (y + 1) * 8)
        until = min((y + 1) * 8, math.ceil(n / (1 << level)))  # the last row's keys
        assert tile.level == level
        assert tile.cells.tolist() == scale.encode(cells[rows, x * 8 : min((x + 1) * 8, until)]).tolist()
        if x == 0 and level:
            assert tile.first.tolist() == scale.encode(first[rows]).tolist()
        else:
            assert tile.first is None


def test_tiles_come_in_the_order_that_was_asked_for_and_those_beyond_the_text_not_at_all(small):
    it = of(29)
    tiles = it.tiles([(0, 3, 0), (1, 1, 1), (0, 4, 0), (0, 1, 2), (1, 9, 0), (0, 3, 0)], Scale("weight"))
    assert [(tile.level, tile.y, tile.x) for tile in tiles] == [(0, 3, 0), (1, 1, 1), (0, 3, 0)]


def test_rows_are_made_once_for_tiles_beside_each_other(small, monkeypatch):
    it, asked, rows = of(29), [], matrix.sight_rows
    monkeypatch.setattr(
        matrix, "sight_rows", lambda s, sight, part, *rest: asked.append(part) or rows(s, sight, part, *rest)
    )
    it.tiles([(0, 1, 0), (0, 1, 1), (1, 1, 0)], Scale("weight"))
    assert asked == [range(8, 12), range(12, 16), range(16, 18), range(18, 24), range(24, 29)]


def test_level_zero_at_the_real_size_of_tiles_is_the_exact_matrix():
    it = of(300)
    (left, right) = it.tiles([(0, 1, 0), (0, 1, 1)], Scale("weight"))
    assert (
        np.concatenate((left.cells, right.cells), axis=1).tolist() == Scale("weight").encode(whole(it)[256:]).tolist()
    )
    overview = it.overview()
    assert (overview.tile.level, overview.tile.cells.shape, overview.tile.first.shape) == (1, (150, 150), (150,))


# ---- differences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", QUANTITIES)
def test_a_difference_is_one_less_the_other_and_nothing_after_the_query(what):
    one, other = of(10, what), of(10, what)
    other = Matrix(session_of(14, seed=2), Sight(((2, 0),), what=what), gram)
    cells = difference(10, what).exact(range(10))
    expected = one.exact(range(10)) - np.where(np.isinf(one.exact(range(10))), 0, other.exact(range(10)))
    expected[np.isinf(expected)] = 0
    assert np.allclose(cells, expected, atol=1e-6)
    assert not np.triu(cells, 1).any()


def test_a_difference_has_the_rows_of_the_shorter_text_and_none_with_itself():
    assert difference(10).rows == range(10)
    session, sight = session_of(10), Sight(((1, 2),))
    same = Matrix(session, sight, gram, (session, sight)).overview()
    assert (set(same.tile.cells.flat), same.top, same.first) == ({128}, 0, 0)


def test_of_differences_the_one_further_from_zero_stands_for_its_square_with_its_sign(small):
    it = difference(29)
    cells, _ = pooled(it, 2)
    assert cells.min() < 0 < cells.max()
    tile = it.overview().tile
    assert np.array_equal(np.sign(tile.cells.astype(int) - 128), np.sign(np.round(cells, 9)) * (tile.cells != 128))


# ---- what is read of one key, rollout, windows -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", [0, 5, 28])
def test_a_column_is_what_every_row_from_the_key_on_reads_of_it(small, kind, key):
    it = made(kind, 29)
    assert np.allclose(it.column(key), whole(it)[key:, key], atol=1e-6)


def test_several_heads_together_and_rollout_are_pooled_alike(small):
    session = session_of(29)
    rolled = rollout(session, 2)
    before = rolled.clone()
    for it in (Matrix(session, MIXED, gram), Matrix(session, Sight(((2, 0),), "rollout"), gram, None, rolled)):
        for _ in range(2):  # the second time, the rollout that is kept must be what it was
            overview = it.overview()
            assert overview.tile.cells.tolist() == overview.scale.encode(pooled(it, 2)[0]).tolist()
            assert overview.tile.first.tolist() == overview.scale.encode(pooled(it, 2)[1]).tolist()
    assert torch.equal(rolled, before)


def test_rows_that_came_after_a_rollout_was_made_or_that_are_hidden_are_left_out():
    session, sight = session_of(29), Sight(((2, 0),), "rollout")
    rolled = rollout(session, 2)
    session.tokens.append(5)
    EagerRunner(MODEL).run([(session.cache, [5])])
    assert Matrix(session, sight, gram, None, rolled).rows == range(29)
    assert Matrix(session, sight, gram, None, rolled, end=12).rows == range(12)
    hidden = Matrix(session, MIXED, gram, end=12)
    assert hidden.overview().tile.cells.shape == (12, 12)
    assert len(hidden.column(2)) == 10


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_bounded_cache_there_are_the_rows_whose_queries_were_kept(small, kind):
    free, minus = session_of(60), (session_of(60, seed=2), Sight(((2, 0),)))
    bounded = session_of(60)
    bounded.cache._buffers = bounded.cache._buffers._replace(
        queries=bounded.cache._buffers.queries[:, :, 13:], first=13
    )
    what, minus = (kind, None) if kind != "difference" else ("weight", minus)
    it, other = (Matrix(session, Sight(((1, 2),), what=what), gram, minus) for session in (bounded, free))
    assert (it.rows, other.rows) == (range(13, 60), range(60))
    assert np.array_equal(it.exact(it.rows), other.exact(range(13, 60)))
    for level in (0, 1, 2):
        scale, (cells, first) = it.overview().scale, pooled(it, level)
        for tile in it.tiles([(level, y, x) for y in range(9) for x in range(9)], scale):
            rows, columns = (slice(i * 8, i * 8 + 8) for i in (tile.y, tile.x))
            assert tile.cells.tolist() == scale.encode(cells[rows, columns])[:, : tile.cells.shape[1]].tolist()
            assert tile.first is None or tile.first.tolist() == scale.encode(first[rows]).tolist()
    assert np.array_equal(it.column(5), other.column(5)[8:])
    assert np.array_equal(it.column(20), other.column(20))
    assert it.tiles([(0, 0, 0)], scale) == []


def test_a_matrix_without_a_row_is_an_empty_tile():
    it = of(0)
    assert it.rows == range(0)
    overview = it.overview()
    assert (overview.tile.cells.shape, overview.top, overview.first) == ((0, 0), 0, 0)
    assert it.column(0).tolist() == []
    assert it.tiles([(0, 0, 0)], Scale("weight")) == []


# ---- rows that are pushed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", QUANTITIES)
def test_a_row_is_pushed_as_the_bytes_of_its_own_keys(what):
    it = of(20, what)
    scale = it.overview().scale
    rows = encode_rows(it.session, it.sight, gram, range(3, 20), scale)
    assert [len(row) for row in rows] == list(range(4, 21))
    for i, row in enumerate(rows, 3):
        assert list(row) == scale.encode(it.exact(range(i, i + 1)))[0].tolist()
        assert what != "score" or 0 not in row


@pytest.mark.parametrize("what", QUANTITIES)
def test_rows_out_of_the_scale_are_not_pushed_where_there_is_one(what):
    it = of(20, what)
    scale = it.overview().scale
    values = it.exact(range(20))
    values = values[np.isfinite(values)]
    below = Scale(what, scale.low, float(np.nextafter(values.max(), np.float32(-np.inf))))
    above = Scale(what, float(np.nextafter(values.min(), np.float32(np.inf))), scale.high)
    for narrow in (below, above):
        pushed = encode_rows(it.session, it.sight, gram, range(20), narrow)
        assert (pushed is None) == (what in ("value", "score")), narrow
