"""Attention on the page: it grows while text streams, belongs to the head that is selected, and is the model's own."""

import base64

import pytest

from tests.browser.conftest import Glassbox


def rows(glassbox: Glassbox) -> int:
    return int(glassbox.page.locator("#heatmap").get_attribute("data-rows") or 0)


def select(glassbox: Glassbox, layer: int, head: int) -> None:
    glassbox.page.evaluate("([layer, head]) => window.glassbox.select({layer, head})", [layer, head])
    glassbox.page.locator(f'#heatmap[data-layer="{layer}"][data-head="{head}"]').wait_for()


def test_the_heatmap_grows_row_by_row_while_the_reply_streams(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=40, temperature=0)
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


def test_another_head_is_drawn_whole_when_it_is_selected(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=5)
    glassbox.say("Hello there.")
    n = len(glassbox.state("tokens"))
    for layer, head in [(0, 0), (29, 8), (12, 4)]:
        select(glassbox, layer, head)
        glassbox.page.wait_for_function("(n) => Number(document.querySelector('#heatmap').dataset.rows) === n", arg=n)


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


def test_what_is_drawn_is_what_the_model_computed(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=6)
    glassbox.say("Hello there.")
    layer, head, i = 7, 3, 20
    matrix = glassbox.page.evaluate(
        "([layer, head]) => window.glassbox.rpc('matrix', {layer, head, from: 0})", [layer, head]
    )
    exact = glassbox.page.evaluate(
        "([layer, head, i]) => window.glassbox.rpc('row', {layer, head, i})", [layer, head, i]
    )
    data = base64.b64decode(matrix["data"])
    row = data[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2]
    assert [(b / 255) ** 2 for b in row] == pytest.approx(exact["weights"], abs=0.005)
    assert sum(exact["weights"]) == pytest.approx(1, abs=1e-5)


def test_a_click_on_the_head_grid_selects_a_head(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=5)
    glassbox.say("Hello there.")
    before = glassbox.state("selection")
    grid = glassbox.page.locator("#head-grid")
    box = grid.bounding_box()
    grid.click(position={"x": box["width"] * 0.9, "y": box["height"] * 0.3})
    after = glassbox.state("selection")
    assert (after["layer"], after["head"]) != (before["layer"], before["head"])
    glassbox.page.locator(f'#heatmap[data-layer="{after["layer"]}"][data-head="{after["head"]}"]').wait_for()


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
