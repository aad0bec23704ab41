"""What the attention panel asks for, as functions: overviews, tiles, rows, columns, metrics, and what is refused."""

import base64
import math
import threading

import numpy as np
import pytest

from demo.matrix import Matrix, Scale
from demo.stream import run
from gpt.heads import METRICS, HeadMetrics, Thumbnails, similarity
from gpt.interp import QUANTITIES, Sight, attention_pattern, sight_rows
from tests.page import NO_END, Page

HEAD = {"heads": [[1, 2]]}
ROLLOUT = {"heads": [[2, 0]], "mix": "rollout"}


@pytest.fixture
def page(engine):
    """One message and its reply."""
    page = Page(engine)
    page.act("send", text="hello", seed=7)
    return page


@pytest.fixture
def bounded(engine, monkeypatch):
    """A long message, of which the last queries alone are kept."""
    monkeypatch.setattr(engine, "query_bytes", 0)
    page = Page(engine)
    page.act("send", text="x" * 380)
    assert page.session.cache.first_query > 100
    return page


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def cells(tile: list) -> np.ndarray:
    """The bytes of [level, y, x, rows, columns, cells, first key's column or null]."""
    return np.frombuffer(base64.b64decode(tile[5]), np.uint8).reshape(tile[3:5])


def told(tile) -> list:
    """A tile of a matrix as an answer has it."""
    first = None if tile.first is None else base64.b64encode(tile.first).decode()
    return [tile.level, tile.y, tile.x, *tile.cells.shape, base64.b64encode(tile.cells.tobytes()).decode(), first]


def fresh(page, branch: int):
    """A session that reads one branch from the start."""
    session = page.engine.session()
    session.rewrite(page.session.branches[branch].tokens)
    page.engine.feed(session)
    return session


# ---- overview and tiles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", QUANTITIES)
def test_an_overview_is_the_whole_matrix_and_how_to_read_it(page, what):
    reply = page.call("overview", what=what, **HEAD)
    overview = Matrix(page.session, Sight(((1, 2),), what=what), page.engine.gram).overview()
    n = page.session.cache.length
    assert (reply["epoch"], reply["n"], reply["start"]) == (page.entry.epoch, n, 0)
    assert reply["tile"] == told(overview.tile)
    assert (reply["low"], reply["high"]) == (overview.scale.low, overview.scale.high)
    assert (reply["top"], reply["first"]) == pytest.approx((overview.top, overview.first), rel=1e-5)


def test_the_overview_of_a_long_text_and_its_tiles(engine):
    page = Page(engine)
    page.act("send", text="hello there, " * 20)
    reply, n = page.call("overview", **HEAD), page.session.cache.length
    assert 256 < n == reply["n"]
    pattern = attention_pattern(page.session, 1, 2)[0]
    assert reply["tile"][:5] == [1, 0, 0, math.ceil(n / 2), math.ceil(n / 2)]
    assert reply["first"] == pytest.approx(pattern[:, 0].max().item(), rel=1e-5)
    assert reply["top"] == pytest.approx(pattern[:, 1:].max().item(), rel=1e-5)
    tiles = page.call("tiles", tiles=[[0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 2, 0], [1, 0, 0]], **HEAD)
    assert (tiles["n"], tiles["epoch"]) == (n, page.entry.epoch)
    assert [tile[:3] for tile in tiles["tiles"]] == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    expected = Scale("weight").encode(pattern.numpy())
    assert cells(tiles["tiles"][0]).tolist() == expected[256:, 256:].tolist()
    assert cells(tiles["tiles"][1]).tolist() == expected[:256, :256].tolist()
    assert tiles["tiles"][2] == reply["tile"]
    assert [tile[6] is None for tile in tiles["tiles"]] == [True, True, False]


def test_tiles_are_in_the_bytes_that_were_asked_for(page):
    scores = sight_rows(page.session, Sight(((1, 2),), what="score"), range(page.session.cache.length)).numpy()
    (tile,) = page.call("tiles", tiles=[[0, 0, 0]], what="score", low=-3, high=2.5, **HEAD)["tiles"]
    assert cells(tile).tolist() == Scale("score", -3, 2.5).encode(scores).tolist()


def test_several_heads_can_be_asked_for_and_each_counts_once(page):
    heads = [[0, 1], [2, 3], [0, 1]]
    n = page.session.cache.length
    for mix in ("mean", "max"):
        found = floats(page.call("rows", rows=[n - 1], heads=heads, mix=mix)["rows"][0][1])
        expected = sight_rows(page.session, Sight(((0, 1), (2, 3)), mix), range(n - 1, n))
        assert found.tolist() == expected[0].tolist()


# ---- exact values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", QUANTITIES)
def test_rows_are_exact_and_end_at_their_own_position(page, what):
    reply = page.call("rows", rows=[4, 0, 9], what=what, **HEAD)
    assert [i for i, _ in reply["rows"]] == [4, 0, 9]
    for i, data in reply["rows"]:
        expected = sight_rows(page.session, Sight(((1, 2),), what=what), range(i, i + 1), page.engine.gram)[0]
        assert floats(data).tolist() == expected.tolist()
        assert len(floats(data)) == i + 1
        assert np.isfinite(floats(data)).all()


def test_a_column_is_exact_and_begins_at_its_key(page):
    reply = page.call("column", key=4, **HEAD)
    assert (reply["start"], reply["epoch"]) == (4, page.entry.epoch)
    assert np.allclose(floats(reply["weights"]), attention_pattern(page.session, 1, 2)[0, 4:, 4], atol=1e-7)


# ---- the grid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_the_grid_has_one_number_a_head_or_none(page, metric):
    reply = page.call("grid", metric=metric)
    expected = HeadMetrics().update(page.session)[metric].flatten().tolist()
    assert reply["values"] == pytest.approx(expected, rel=1e-4)
    assert (reply["min"], reply["max"]) == (min(reply["values"]), max(reply["values"]))
    assert (reply["n"], reply["metric"]) == (page.session.cache.length, metric)


def test_a_metric_that_has_no_value_is_null(engine):
    page = Page(engine)
    page.entry.session.rewrite([5, 6, 7, 8])
    engine.feed(page.session)
    reply = page.call("grid", metric="induction")
    assert (reply["values"], reply["min"], reply["max"]) == ([None] * 12, 0, 0)


def test_the_grid_says_how_alike_every_head_is_to_one(page):
    reply = page.call("grid", metric="like", layer=2, head=1)
    assert reply["values"] == pytest.approx(similarity(page.session, 2, 1).flatten().tolist(), rel=1e-5)
    assert (reply["layer"], reply["head"], reply["values"][9]) == (2, 1, pytest.approx(1, abs=1e-5))


def test_the_grid_shows_a_picture_of_every_head(page):
    page.call("grid", metric="pattern")
    page.act("send", text="and a longer text, that fills more than one cell a token")
    reply = page.call("grid", metric="pattern")
    pictures, size = Thumbnails().update(page.session)
    assert (reply["side"], reply["size"]) == (pictures.shape[-1], size)
    data = np.frombuffer(base64.b64decode(reply["data"]), np.uint8).reshape(3, 4, reply["side"], reply["side"])
    assert data.tolist() == Scale("weight").encode(pictures.numpy()).tolist()


# ---- what is pushed --------------------------------------------------------------------------------------------------


def test_what_is_watched_can_be_chosen_and_given_up(page):
    assert page.call("select", key="a", what="score", low=-5, high=3, **HEAD) == {}
    watched = page.entry.watched
    assert (watched.key, watched.sight, watched.low, watched.high) == ("a", Sight(((1, 2),), what="score"), -5, 3)
    assert page.call("select", key="b", heads=[[9, 9]])["code"] == "invalid"
    assert page.entry.watched is watched
    assert page.call("select") == {}
    assert page.entry.watched is None


# ---- pulls and replies -----------------------------------------------------------------------------------------------


def test_pulls_of_an_empty_session_are_empty_or_refused(engine):
    page = Page(engine)
    for sight in (HEAD, ROLLOUT):
        assert page.call("overview", **sight) == {"epoch": page.entry.epoch, "n": 0, "start": 0, "tile": None}
        assert page.call("tiles", tiles=[[0, 0, 0]], **sight)["tiles"] == []
        assert page.call("column", key=0, **sight)["weights"] == ""
        assert page.call("rows", rows=[0], **sight)["code"] == "invalid"
    assert page.call("grid", metric="first")["values"] == [None] * 12
    assert page.call("grid", metric="like", layer=0, head=0)["values"] == [None] * 12
    assert (page.call("grid", metric="pattern")["side"], page.call("grid", metric="pattern")["data"]) == (0, "")


def test_a_branch_that_was_left_is_read_again_when_its_attention_is_asked_for(page):
    page.act("regenerate", seed=99)
    page.call("switch_branch", branch=0)
    n = len(page.session.tokens)
    assert page.session.cache.length < n
    assert page.call("overview", **HEAD)["n"] == n


def test_a_pull_between_a_message_and_its_reply_does_not_take_the_replys_place(engine):
    page = Page(engine)
    reply = page.call("send", text="hello")
    assert page.call("grid", metric="first")["n"] == 0
    assert page.call("overview", **HEAD)["n"] == 0
    assert page.entry.begin(reply["run"])


def test_while_replies_stand_beside_each_other_the_reply_behind_them_is_not_looked_at(page):
    n, start = page.session.cache.length, page.session.reply_start
    page.act("samples", n=2)
    assert page.session.cache.length == n > start
    for sight in (HEAD, ROLLOUT, {**HEAD, "minus": {"heads": [[0, 0]]}}):
        assert page.call("overview", **sight)["n"] == start
        assert page.call("tiles", tiles=[[0, 0, 0]], **sight)["tiles"][0][3] == start
        assert page.call("rows", rows=[start], **sight)["code"] == "invalid"
    page.call("drop_samples")
    assert page.call("overview", **HEAD)["n"] == n


def test_pulls_are_answered_while_a_reply_streams(engine):
    page = Page(engine)
    page.call("set_params", max_new_tokens=200, logit_bias=NO_END)
    reply = page.call("send", text="hello")
    thread = threading.Thread(target=lambda: list(run(page.entry, reply["run"])))
    thread.start()
    pulls = 0
    while thread.is_alive():
        for sight in (HEAD, ROLLOUT, {**HEAD, "minus": {"heads": [[0, 0]]}}):
            got = page.call("overview", **sight)
            if got["tile"]:
                assert got["tile"][3] == got["tile"][4] >= got["n"]
                row, end = page.call("rows", rows=[got["n"] - 1], **sight)["rows"][0]
                assert (row, len(floats(end))) == (got["n"] - 1, got["n"])
                tiles = page.call("tiles", tiles=[[0, 0, 0]], **sight)
                assert tiles["tiles"][0][3] >= min(tiles["n"], 256) >= min(got["n"], 256)
                assert len(floats(page.call("column", key=3, **sight)["weights"])) >= got["n"] - 3
        for metric in ("entropy", "pattern"):
            assert "error" not in page.call("grid", metric=metric)
        page.functions["tokens"]({"sid": page.sid, "from": 3})
        pulls += 1
    thread.join()
    assert pulls > 1
    same = HeadMetrics().update(page.session)["entropy"].flatten().tolist()
    assert page.call("grid", metric="entropy")["values"] == pytest.approx(same, abs=1e-4)


# ---- a bound for the queries -----------------------------------------------------------------------------------------


def test_of_a_long_text_whose_memory_is_bounded_the_last_rows_are_there_and_it_says_which(bounded):
    first, n = bounded.session.cache.first_query, bounded.session.cache.length
    pattern = attention_pattern(fresh_unbounded(bounded), 1, 2)[0].numpy()
    stats = bounded.functions["tokens"]({"sid": bounded.sid})["stats"]
    assert (stats["first_row"], stats["rows"]) == (first, n)
    overview = bounded.call("overview", **HEAD)
    assert (overview["start"], overview["n"], overview["tile"][:3]) == (first, n, [1, 0, 0])
    assert not cells(overview["tile"])[: first // 2].any()
    column = bounded.call("column", key=5, **HEAD)
    assert column["start"] == first
    assert np.allclose(floats(column["weights"]), pattern[first:, 5], atol=1e-6)
    assert np.allclose(
        floats(bounded.call("rows", rows=[first], **HEAD)["rows"][0][1]), pattern[first, : first + 1], atol=1e-6
    )
    refused = bounded.call("rows", rows=[first - 1], **HEAD)
    assert (refused["field"], f"from {first} to {n - 1}" in refused["error"]) == ("rows", True)
    assert "rollout needs every row" in bounded.call("overview", **ROLLOUT)["error"]


def fresh_unbounded(page):
    page.engine.query_bytes = None
    return fresh(page, page.session.branch)


# ---- what is refused -------------------------------------------------------------------------------------------------

TILES = [None, [], "x", [[0, 0, 0]] * 65, [[0, 0]], ["x"], [[2, 0, 0]], [[-1, 0, 0]], [[0, -1, 0]], [[0, 0, 513]]]
NUMBERS = ["1", None, True, [1], math.nan, math.inf, 10**400]
NOWHERE = [
    *(("tiles", {**HEAD, "tiles": tiles}) for tiles in TILES),
    *(("tiles", {**HEAD, "tiles": [[0, 0, 0]], "low": low}) for low in NUMBERS),
    *(("select", {**HEAD, "key": "a", "high": high}) for high in NUMBERS),
    *(("rows", {**HEAD, "rows": rows}) for rows in (None, [], 5, [0] * 65, [10_000], [-1], ["x"], [[0]])),
    *(("column", {**HEAD, "key": key}) for key in (None, -1, 10_000, "x")),
    *(("select", {**HEAD, "key": key}) for key in (None, 5, ["a"])),
    ("select", {**ROLLOUT, "key": "a"}),
    *(("grid", {"metric": metric}) for metric in ("beauty", None, ["first"], {})),
    *(("grid", {"metric": "like", **place}) for place in ({}, {"layer": 3, "head": 0}, {"layer": 0, "head": -1})),
]


@pytest.mark.parametrize(("name", "args"), NOWHERE)
def test_a_pull_of_what_does_not_exist_is_refused(page, name, args):
    reply = page.call(name, **args)
    assert (reply["code"], bool(reply["error"])) == ("invalid", True)
    assert page.entry.watched is None


def test_a_refusal_names_what_was_wrong(page):
    wrong = {
        "heads": ("overview", {}), "layer": ("rows", {"heads": [[3, 0]], "rows": [0]}),
        "mix": ("select", {**ROLLOUT, "key": "a"}),
        "tiles": ("tiles", HEAD), "level": ("tiles", {**HEAD, "tiles": [[9, 0, 0]]}), "rows": ("rows", HEAD),
        "key": ("column", HEAD), "minus": ("overview", {**HEAD, "minus": 5}), "metric": ("grid", {}),
        "low": ("tiles", {**HEAD, "tiles": [[0, 0, 0]], "low": "x"}), "branch": ("overview", {**HEAD, "branch": "x"}),
    }  # fmt: skip
    assert {name: page.call(function, **args)["field"] for name, (function, args) in wrong.items()} == {
        n: n for n in wrong
    }
