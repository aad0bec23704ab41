"""Attention on the page: it grows while text streams, belongs to what is selected, and is the model's own."""

import base64

import numpy as np
import pytest

from tests.browser.attention import floats, rows, rpc, select
from tests.browser.conftest import Glassbox


def test_the_heatmap_grows_row_by_row_while_the_reply_streams(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=100, min_new_tokens=100, temperature=0)
    seen = glassbox.page.evaluate_handle(
        """() => {
            const seen = [];
            window.glassbox.on('state', () => requestAnimationFrame(() => {
                const rows = Number(document.querySelector('#heatmap').dataset.rows || 0);
                if (window.glassbox.store.streaming) seen.push(rows);
            }));
            return seen;
        }"""
    )
    glassbox.send("Tell me a story about a fox.")
    glassbox.wait_idle()
    grown = [n for n in seen.json_value() if n > 0]
    assert grown == sorted(grown)
    assert len(set(grown)) >= 10
    glassbox.page.wait_for_function(
        "() => Number(document.querySelector('#heatmap').dataset.rows) === window.glassbox.store.tokens.length"
    )


def test_another_head_is_drawn_whole_when_it_is_selected(answered: Glassbox):
    n = len(answered.state("tokens"))
    for layer, head in [(0, 0), (29, 8), (12, 4)]:
        select(answered, layer, head)
        answered.page.wait_for_function("(n) => Number(document.querySelector('#heatmap').dataset.rows) === n", arg=n)


def test_a_head_that_is_selected_in_mid_reply_grows_on(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=150, temperature=0)
    glassbox.send("Tell me a long story about a fox.")
    glassbox.wait_tokens(5)
    select(glassbox, 3, 7)
    glassbox.page.wait_for_function(
        "() => window.glassbox.store.streaming && Number(document.querySelector('#heatmap').dataset.rows) > 20"
    )
    before = rows(glassbox)
    glassbox.page.wait_for_function(
        "(n) => Number(document.querySelector('#heatmap').dataset.rows) > n + 5", arg=before
    )
    glassbox.page.locator("#stop").click()
    glassbox.wait_idle()


def test_rows_that_were_pushed_are_those_that_would_be_pulled(answered: Glassbox):
    sight = "window.glassbox.sights.sightAt(window.glassbox.store.selection)"
    answered.page.wait_for_function(f"() => window.glassbox.patterns.isComplete({sight})")
    pushed = answered.page.evaluate(f"() => Array.from(window.glassbox.patterns.get({sight}).overview.cells)")
    place = answered.state("selection")
    pulled = rpc(answered, "overview", heads=[[place["layer"], place["head"]]])["tile"]
    n, cells = pulled[3], np.frombuffer(base64.b64decode(pulled[5]), np.uint8)
    drawn = np.array(pushed, np.uint8).reshape(256, 256)[:n, :n]
    assert np.array_equal(drawn, cells.reshape(n, n))


def test_what_is_drawn_is_what_the_model_computed(answered: Glassbox):
    overview = rpc(answered, "overview", heads=[[7, 3]])
    ((_, exact),) = rpc(answered, "rows", heads=[[7, 3]], rows=[20])["rows"]
    n = overview["tile"][3]
    row = np.frombuffer(base64.b64decode(overview["tile"][5]), np.uint8).reshape(n, n)[20, :21]
    assert (row / 255) ** 2 == pytest.approx(floats(exact), abs=0.005)
    assert floats(exact).sum() == pytest.approx(1, abs=1e-5)


def test_a_click_on_the_head_grid_selects_a_head_and_shift_makes_a_set(answered: Glassbox):
    before = answered.state("selection")
    grid = answered.page.locator("#head-grid")
    box = grid.bounding_box()
    grid.click(position={"x": box["width"] * 0.9, "y": box["height"] * 0.3})
    after = answered.state("selection")
    assert (after["layer"], after["head"]) != (before["layer"], before["head"])
    answered.page.locator(f'#heatmap[data-layer="{after["layer"]}"][data-head="{after["head"]}"]').wait_for()
    grid.click(position={"x": box["width"] * 0.5, "y": box["height"] * 0.6}, modifiers=["Shift"])
    answered.page.wait_for_function("() => document.querySelector('#sight').textContent === 'Mean of 2 heads'")
    assert len(answered.page.evaluate("() => window.glassbox.looks.set")) == 2
    grid.click(position={"x": box["width"] * 0.2, "y": box["height"] * 0.3})
    assert answered.page.evaluate("() => window.glassbox.looks.over") == "head"


def test_a_token_that_is_clicked_is_selected_everywhere(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=8)
    glassbox.say("Hello there.")
    token = glassbox.reply()[3]
    glassbox.page.locator(f'#transcript [data-pos="{token["i"]}"]').click()
    glassbox.wait("s.selection.position === arg && !s.selection.follow", token["i"])
    bar = glassbox.page.locator(f'#distribution [data-token-id="{token["id"]}"]').first
    bar.wait_for()
    raw = next(c[2] for c in token["cand"] if c[0] == token["id"])
    assert float(bar.get_attribute("data-raw")) == pytest.approx(raw, rel=1e-3)


# ---- the grid --------------------------------------------------------------------------------------------------------

METRICS = ["first", "previous", "self", "duplicate", "induction", "user", "entropy", "distance", "pattern", "like"]


def test_the_grid_shows_every_metric_and_says_what_it_is(answered: Glassbox):
    n = len(answered.state("tokens"))
    for metric in METRICS:
        answered.page.select_option("#metric", metric)
        answered.page.locator(f'#head-grid[data-metric="{metric}"][data-n="{n}"]').wait_for()
        assert len(answered.page.locator("#metric").get_attribute("title")) > 20


def test_sorted_heads_are_walked_in_their_order(answered: Glassbox):
    answered.page.select_option("#metric", "previous")
    n = len(answered.state("tokens"))
    answered.page.locator(f'#head-grid[data-metric="previous"][data-n="{n}"]').wait_for()
    answered.page.locator("#heads-sort").click()
    values = rpc(answered, "grid", metric="previous")["values"]
    ranked = sorted(range(270), key=lambda i: -values[i])
    grid = answered.page.locator("#head-grid")
    box = grid.bounding_box()
    grid.click(position={"x": 66, "y": 8})
    place = answered.state("selection")
    assert place["layer"] * 9 + place["head"] == ranked[0]
    grid.press("ArrowRight")
    place = answered.state("selection")
    assert place["layer"] * 9 + place["head"] == ranked[1]
    assert box["width"] > 300


def test_heads_like_the_selected_one_are_found(answered: Glassbox):
    select(answered, 15, 6)
    answered.page.locator("#heads-like").click()
    answered.page.locator('#head-grid[data-metric="like"]').wait_for()
    answered.page.wait_for_function("() => window.glassbox.attentionPanel.grid.feed.grid.metric === 'like'")
    values = rpc(answered, "grid", metric="like", layer=15, head=6)["values"]
    assert values[15 * 9 + 6] == pytest.approx(1)
    second = sorted(range(270), key=lambda i: -values[i])[1]
    answered.page.locator("#head-grid").press("ArrowRight")
    place = answered.state("selection")
    assert place["layer"] * 9 + place["head"] == second


def test_a_threshold_on_the_colour_bar_counts_the_heads_that_are_left(answered: Glassbox):
    answered.page.wait_for_function("() => !!window.glassbox.attentionPanel.grid.feed.grid")
    bar = answered.page.locator("#heads-least")
    box = bar.bounding_box()
    bar.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    answered.page.wait_for_function("() => / of 270$/.test(document.querySelector('.gcount').textContent)")
    bar.dblclick()
    answered.page.wait_for_function("() => document.querySelector('.gcount').textContent === ''")
