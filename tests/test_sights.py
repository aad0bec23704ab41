"""Which attention is meant: of which branch, less what, over all layers; and what does not exist."""

import numpy as np
import pytest

from demo.matrix import Scale
from demo.stream import run
from gpt.interp import Sight, attention_pattern, rollout, sight_rows
from tests.page import Page
from tests.test_attention import HEAD, ROLLOUT, cells, floats, fresh


@pytest.fixture
def page(engine):
    """One message and its reply."""
    page = Page(engine)
    page.act("send", text="hello", seed=7)
    return page


@pytest.fixture
def forked(page):
    """Two branches that part at the fourth token of the reply; the second is shown."""
    page.act("fork", position=page.session.reply_start + 3, token=70)
    return page


# ---- branches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("branch", [0, 1])
def test_the_attention_of_any_branch_can_be_looked_at(forked, branch):
    n = len(forked.session.branches[branch].tokens)
    expected = attention_pattern(fresh(forked, branch), 1, 2)[0].numpy()
    reply = forked.call("overview", branch=branch, **HEAD)
    assert (reply["n"], forked.session.branch) == (n, 1)
    assert np.abs(cells(reply["tile"]).astype(int) - Scale("weight").encode(expected)).max() <= 1
    row = forked.call("rows", rows=[n - 1], branch=branch, **HEAD)["rows"][0][1]
    assert np.allclose(floats(row), expected[-1], atol=1e-5)


def test_another_branch_is_read_once_and_shares_what_was_read(forked, monkeypatch):
    read, step = [], forked.engine.runner.run
    monkeypatch.setattr(forked.engine.runner, "run", lambda feeds: read.extend(len(t) for _, t in feeds) or step(feeds))
    for _ in range(3):
        forked.call("overview", branch=0, **HEAD)
        forked.call("column", key=3, branch=0, **HEAD)
    apart = len(forked.session.branches[0].tokens) - forked.session.branches[1].forked_at
    assert read == [apart]
    copies = []
    monkeypatch.setattr(type(forked.session), "only", lambda *_: copies.append(1))
    forked.call("overview", branch=0, **HEAD)
    assert copies == []


def test_another_branch_can_be_looked_at_while_a_reply_is_written(forked):
    forked.call("set_params", max_new_tokens=100)
    reply = forked.call("send", text="more")
    messages = run(forked.entry, reply["run"])
    next(messages)
    assert forked.call("overview", branch=0, **HEAD)["n"] == len(forked.session.branches[0].tokens)
    list(messages)
    assert forked.session.finish in ("length", "end")


def test_a_difference_of_branches_is_taken_position_by_position(forked):
    one, other = (attention_pattern(fresh(forked, branch), 1, 2)[0] for branch in (1, 0))
    n = min(len(one), len(other))
    reply = forked.call("overview", minus={**HEAD, "branch": 0}, **HEAD)
    assert (reply["n"], reply["low"]) == (n, -reply["high"])
    row = floats(forked.call("rows", rows=[n - 1], minus={**HEAD, "branch": 0}, **HEAD)["rows"][0][1])
    assert np.allclose(row, one[n - 1, :n] - other[n - 1, :n], atol=1e-5)
    assert np.abs(row).max() > 1e-3
    before = forked.session.branches[1].forked_at
    shared = floats(forked.call("rows", rows=[before - 1], minus={**HEAD, "branch": 0}, **HEAD)["rows"][0][1])
    assert np.abs(shared).max() < 1e-6


def test_a_difference_of_heads_shows_what_the_first_shows(page):
    minus = {"heads": [[0, 0], [0, 1]], "what": "weight", "mix": "max"}
    row = floats(page.call("rows", rows=[8], what="score", minus=minus, **HEAD)["rows"][0][1])
    parts = [Sight(((1, 2),), what="score"), Sight(((0, 0), (0, 1)), "max", "score")]
    one, other = (sight_rows(page.session, part, range(8, 9))[0].numpy() for part in parts)
    assert np.allclose(row, one - other, atol=1e-6)


# ---- rollout ---------------------------------------------------------------------------------------------------------


def test_a_rollout_is_made_once_until_the_text_or_the_layer_changes(page, monkeypatch):
    made = []
    monkeypatch.setattr("demo.sights.rollout", lambda session, layer: made.append(layer) or rollout(session, layer))
    for _ in range(2):
        page.call("overview", **ROLLOUT)
        page.call("rows", rows=[3], **ROLLOUT)
    assert made == [2]
    page.call("overview", heads=[[1, 3]], mix="rollout")
    assert made == [2, 1]
    page.act("resume", limit=1)
    page.call("overview", heads=[[1, 0]], mix="rollout")
    page.act("regenerate", limit=len(page.session.tokens) - page.session.reply_start)
    page.call("overview", heads=[[1, 0]], mix="rollout")
    assert made == [2, 1, 1, 1]
    page.call("new_chat")
    assert page.call("overview", heads=[[1, 0]], mix="rollout")["tile"] is None


def test_a_rollout_stays_what_it_is_however_often_it_is_looked_at(engine):
    page = Page(engine)
    page.act("send", text="hello there, " * 20)
    first = page.call("overview", **ROLLOUT)
    assert first["tile"][0] == 1
    assert page.call("overview", **ROLLOUT) == first
    expected = rollout(page.session, 2)[40, :41].tolist()
    assert floats(page.call("rows", rows=[40], **ROLLOUT)["rows"][0][1]).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_rollout_counts_as_memory(page):
    before = page.entry.nbytes
    page.call("overview", **ROLLOUT)
    assert page.entry.nbytes == before + page.session.cache.length**2 * 4


# ---- what is refused -------------------------------------------------------------------------------------------------

SIGHTS = [
    {}, {"heads": []}, {"heads": "x"}, {"heads": [[0]]}, {"heads": [0, 0]}, {"heads": [[0, 4]]}, {"heads": [[3, 0]]},
    {"heads": [[0, -1]]}, {"heads": [[0.5, 0]]}, {"heads": [["0", 0]]}, {"heads": [[True, 0]]},
    {"heads": [[0, 0]] * 4097}, {**HEAD, "mix": "median"}, {**HEAD, "mix": 5}, {**HEAD, "what": "beauty"},
    {**HEAD, "what": ["weight"]}, {"heads": [[0, 0], [0, 1]], "mix": "rollout"}, {**ROLLOUT, "what": "value"},
]  # fmt: skip
MATRICES = [
    *SIGHTS, {**HEAD, "minus": 5}, {**HEAD, "minus": {}}, {**HEAD, "minus": {"heads": [[9, 9]]}},
    {**HEAD, "minus": ROLLOUT}, {**ROLLOUT, "minus": HEAD}, {**HEAD, "branch": 7}, {**HEAD, "branch": "0"},
    {**HEAD, "branch": -1}, {**HEAD, "minus": {**HEAD, "branch": 7}},
]  # fmt: skip


@pytest.mark.parametrize("sight", MATRICES, ids=lambda sight: str(sight)[:60])
def test_a_sight_that_does_not_exist_is_refused_by_every_function(page, sight):
    asked = {"overview": {}, "tiles": {"tiles": [[0, 0, 0]]}, "rows": {"rows": [0]}, "column": {"key": 0}}
    for name, args in asked.items():
        reply = page.call(name, **args, **sight)
        assert (reply["code"], bool(reply["error"])) == ("invalid", True), name
    if sight in SIGHTS and sight != {}:
        assert page.call("select", key="a", **sight)["code"] == "invalid"
