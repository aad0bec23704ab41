"""Attention on the page: it grows while text streams, belongs to what is selected, and is the model's own."""

import base64
import csv
import io

import numpy as np
import pytest

from tests.browser.conftest import Glassbox


def rows(glassbox: Glassbox) -> int:
    return int(glassbox.page.locator("#heatmap").get_attribute("data-rows") or 0)


def select(glassbox: Glassbox, layer: int, head: int) -> None:
    glassbox.page.evaluate("([layer, head]) => window.glassbox.select({layer, head})", [layer, head])
    glassbox.page.locator(f'#heatmap[data-layer="{layer}"][data-head="{head}"]').wait_for()


def rpc(glassbox: Glassbox, name: str, **args):
    return glassbox.page.evaluate("([name, args]) => window.glassbox.rpc(name, args)", [name, args])


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


@pytest.fixture
def answered(glassbox: Glassbox) -> Glassbox:
    glassbox.settings(max_new_tokens=12, temperature=0)
    glassbox.say("Hello there. Hello again.")
    return glassbox


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


# ---- views -----------------------------------------------------------------------------------------------------------


def pixel(glassbox: Glassbox, selector: str = "#heatmap") -> int:
    """How many points of a canvas are painted."""
    return glassbox.page.evaluate(
        """(selector) => {
            const canvas = document.querySelector(selector);
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            let painted = 0;
            for (let i = 3; i < data.length; i += 4) if (data[i]) painted++;
            return painted;
        }""",
        selector,
    )


@pytest.mark.parametrize("what", ["score", "value", "weight"])
def test_other_quantities_are_drawn_and_read_out_exactly(answered: Glassbox, what: str):
    page = answered.page
    page.select_option("#look-what", what)
    page.locator(f'#heatmap[data-kind="{what}"]').wait_for()
    position = len(answered.state("tokens")) - 4
    page.evaluate("(position) => window.glassbox.select({position})", position)
    page.locator('.readout[data-exact="true"]').wait_for()
    place = answered.state("selection")
    ((_, row),) = rpc(answered, "rows", heads=[[place["layer"], place["head"]]], what=what, rows=[position])["rows"]
    shown = float(page.locator(".readout .weight").inner_text())
    assert np.isclose(floats(row), shown, rtol=0.01, atol=0.006).any()
    assert pixel(answered) > 5000


def test_the_first_token_can_be_left_out_taken_out_or_shown(answered: Glassbox):
    page = answered.page
    for sink, kind in [("rest", "rest"), ("in", "weight"), ("out", "weight")]:
        page.select_option("#look-sink", sink)
        page.locator(f'#heatmap[data-kind="{kind}"]').wait_for()
    position = len(answered.state("tokens")) - 3
    ((_, row),) = rpc(answered, "rows", heads=[[15, 6]], what="rest", rows=[position])["rows"]
    assert floats(row)[0] == 0
    assert floats(row).sum() == pytest.approx(1, abs=1e-5)


def test_what_is_below_the_threshold_is_not_painted(answered: Glassbox):
    before = pixel(answered)
    bar = answered.page.locator("#least")
    box = bar.bounding_box()
    bar.click(position={"x": box["width"] * 0.6, "y": box["height"] / 2})
    answered.page.wait_for_timeout(100)
    assert pixel(answered) < before / 2
    bar.press("Home")
    answered.page.wait_for_timeout(100)
    assert pixel(answered) == before


def test_a_layer_a_set_and_rollout_can_be_looked_at(answered: Glassbox):
    page = answered.page
    select(answered, 9, 0)
    for over, name in [
        ("layer-mean", "Layer 9, mean"),
        ("layer-max", "Layer 9, maximum"),
        ("rollout", "Rollout to layer 9"),
    ]:
        page.select_option("#look-over", over)
        page.wait_for_function("(name) => document.querySelector('#sight').textContent === name", arg=name)
        page.wait_for_function("() => Number(document.querySelector('#heatmap').dataset.rows) > 20")


def test_the_lines_view_draws_and_selects(answered: Glassbox):
    page = answered.page
    page.locator("#look-view [data-choice=lines]").click()
    page.wait_for_function("() => document.querySelector('#lines').width > 100")
    page.wait_for_timeout(300)
    assert pixel(answered, "#lines") > 1000
    box = page.locator("#lines").bounding_box()
    page.locator("#lines").click(position={"x": box["width"] * 0.2, "y": 100})
    assert answered.state("selection")["follow"] is False
    position = answered.state("selection")["position"]
    page.locator("#lines").press("ArrowUp")
    assert answered.state("selection")["position"] == position - 1


def tinted(glassbox: Glassbox) -> dict[int, str]:
    """Position -> colour, of the tokens of the text view that are shaded."""
    found = glassbox.page.evaluate(
        """() => [...document.querySelectorAll('#attention-text .t')]
            .map((span) => [Number(span.dataset.at), span.lastChild.style.backgroundColor])"""
    )
    return {at: colour for at, colour in found if colour}


def show_text(glassbox: Glassbox, position: int) -> None:
    glassbox.page.evaluate("(position) => window.glassbox.select({position})", position)
    glassbox.page.locator("#look-view [data-choice=text]").click()
    glassbox.page.wait_for_function(
        "() => document.querySelectorAll('#attention-text .t').length === window.glassbox.store.tokens.length"
    )
    glassbox.page.wait_for_function(
        "() => [...document.querySelectorAll('#attention-text .t')].some((s) => s.lastChild.style.backgroundColor)"
    )


def test_the_text_is_shaded_by_what_was_read_and_by_who_read_it(answered: Glassbox):
    position = answered.reply()[4]["i"]
    show_text(answered, position)
    assert max(tinted(answered)) <= position
    answered.page.locator("#look-way [data-choice=read_by]").click()
    answered.page.wait_for_function(
        """(position) => {
            const spans = [...document.querySelectorAll('#attention-text .t')];
            const shaded = spans.filter((s) => s.lastChild.style.backgroundColor).map((s) => Number(s.dataset.at));
            return shaded.length > 0 && shaded.every((i) => i >= position);
        }""",
        arg=position,
    )


def test_tokens_are_merged_to_words_chinese_included(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=3, temperature=0)
    glassbox.say("The lighthousekeepers of 北京大学 are here")
    words = glassbox.page.evaluate(
        """() => {
            const { words, members } = window.glassbox.words.wordsOf();
            const text = (w) => members[w].map((i) => window.glassbox.store.tokens[i].s).join('');
            return [...new Set(words)].map((w) => text(w).trim());
        }"""
    )
    assert "lighthousekeepers" in words
    assert "".join(words).count("北京大学") == 1
    assert any(word and word in "北京大学" and len(word) >= 2 for word in words)
    assert not any("�" in word for word in words)


def test_words_add_up_what_their_tokens_were_given(answered: Glassbox):
    sums = answered.page.evaluate(
        """() => {
            const { words, byWord } = window.glassbox.words;
            const { members } = window.glassbox.words.wordsOf();
            const values = Float32Array.from(window.glassbox.store.tokens, (_, i) => i);
            const merged = byWord(values, 'sum');
            return members.map((m) => [m.reduce((a, i) => a + i, 0), merged[m[0]]]);
        }"""
    )
    assert all(a == pytest.approx(b) for a, b in sums)


# ---- comparing -------------------------------------------------------------------------------------------------------


def test_two_heads_stand_side_by_side_or_as_a_difference(answered: Glassbox):
    page = answered.page
    select(answered, 15, 6)
    page.locator("#pin").click()
    select(answered, 12, 3)
    page.wait_for_function("() => document.querySelector('#heatmap-pinned').width > 100")
    page.wait_for_timeout(300)
    assert pixel(answered, "#heatmap-pinned") > 3000
    page.locator("#look-versus [data-choice=difference]").click()
    page.locator('#heatmap[data-kind="difference"]').wait_for()
    position = len(answered.state("tokens")) - 2
    difference = rpc(answered, "rows", heads=[[15, 6]], minus={"heads": [[12, 3]]}, rows=[position])["rows"][0][1]
    parts = [floats(rpc(answered, "rows", heads=[head], rows=[position])["rows"][0][1]) for head in ([15, 6], [12, 3])]
    assert floats(difference) == pytest.approx(parts[0] - parts[1], abs=1e-6)
    page.locator("#unpin").click()
    page.locator('#heatmap[data-kind="weight"]').wait_for()


def test_two_branches_can_be_compared(answered: Glassbox):
    page = answered.page
    first = answered.state("tokens")
    answered.fork(3)
    page.locator("#pin").click()
    page.select_option("#pin-branch", "0")
    page.wait_for_function("() => document.querySelector('#heatmap-pinned').width > 100")
    page.wait_for_function(
        "(n) => window.glassbox.patterns.get(window.glassbox.sights.pinnedSight())?.n === n", arg=len(first)
    )
    place = answered.state("selection")
    own = rpc(answered, "rows", heads=[[place["layer"], place["head"]]], rows=[len(first) - 8])["rows"][0][1]
    other = rpc(answered, "rows", heads=[[place["layer"], place["head"]]], branch=0, rows=[len(first) - 1])["rows"][0][
        1
    ]
    assert floats(own).sum() == pytest.approx(1, abs=1e-5)
    assert floats(other).sum() == pytest.approx(1, abs=1e-5)


def test_two_tokens_are_compared_in_the_text(answered: Glassbox):
    page = answered.page
    first, second = answered.reply()[0]["i"], answered.reply()[-2]["i"]
    page.evaluate("(position) => window.glassbox.select({position})", first)
    page.locator("#pin").click()
    show_text(answered, second)
    colours = set(tinted(answered).values())
    assert any("15, 118, 110" in colour for colour in colours)  # what the second reads more
    assert any("116, 64, 176" in colour for colour in colours)


# ---- the address, files, keys, the small screen ----------------------------------------------------------------------


def test_a_link_opens_the_same_sight(open_page):
    glassbox = open_page(fresh=False)
    page = glassbox.page
    page.evaluate("() => window.glassbox.select({position: 120, layer: 12, head: 3})")
    page.locator("#pin").click()
    page.evaluate("() => window.glassbox.select({position: 130, layer: 8, head: 2})")
    page.select_option("#look-what", "value")
    page.select_option("#look-scale", "log")
    page.select_option("#metric", "entropy")
    page.locator("#heads-sort").click()
    page.locator("#look-versus [data-choice=difference]").click()
    page.evaluate("() => window.glassbox.attentionPanel.zoomTo({x: 90, y: 100, n: 40})")
    link = page.evaluate("() => new Promise((r) => setTimeout(() => r(window.glassbox.address()), 200))")
    other = open_page(fresh=False)
    other.page.goto("about:blank")
    other.page.goto(link)
    other.ready()
    other.page.locator('#heatmap[data-kind="difference"]').wait_for()
    looks = other.page.evaluate("() => window.glassbox.looks")
    assert (looks["what"], looks["scale"], looks["versus"]) == ("value", "log", "difference")
    assert (looks["pin"]["position"], looks["pin"]["layer"], looks["pin"]["head"]) == (120, 12, 3)
    selection = other.state("selection")
    assert (selection["position"], selection["layer"], selection["head"]) == (130, 8, 2)
    panel = other.page.evaluate(
        "() => { const p = window.glassbox.attentionPanel;"
        " return {metric: p.grid.feed.metric, sorted: p.grid.sorted, view: p.map.view, zoomed: p.map.zoomed} }"
    )
    assert (panel["metric"], panel["sorted"], panel["zoomed"]) == ("entropy", True, True)
    assert panel["view"] == {"x": 90, "y": 100, "n": 40}


@pytest.mark.parametrize(
    "hash_", ["#pos=99999&layer=77&head=-3", "#heads=nonsense&zoom=a_b&a=1.2&set=5&least=9&metric=x"]
)
def test_an_address_that_makes_no_sense_is_harmless(open_page, hash_: str):
    glassbox = open_page(fresh=False)
    glassbox.page.goto("about:blank")
    glassbox.page.goto(glassbox.address + hash_)
    glassbox.ready()
    glassbox.page.wait_for_function("() => Number(document.querySelector('#heatmap').dataset.rows) > 100")


def download(glassbox: Glassbox, name: str) -> bytes:
    page = glassbox.page
    page.locator("#export").click()
    with page.expect_download() as waiting:
        page.locator(f"#export-{name}").click()
    path = waiting.value.path()
    assert waiting.value.suggested_filename.endswith((f".{name}", ".npz"))
    return path.read_bytes()


def test_what_is_shown_can_be_saved_in_every_format(answered: Glassbox, tmp_path):
    assert download(answered, "png")[:8] == b"\x89PNG\r\n\x1a\n"
    svg = download(answered, "svg").decode()
    assert "<svg" in svg
    assert "Layer" in svg
    table = list(csv.reader(io.StringIO(download(answered, "csv").decode("utf-8"))))
    assert len(table) == len(answered.state("tokens")) + 1
    assert download(answered, "json")[:1] == b"{"
    for name in ("npz", "all"):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(download(answered, name))
        with np.load(path, allow_pickle=False) as arrays:
            assert "tokens" in arrays
    for view in ("lines", "text"):
        answered.page.locator(f"#look-view [data-choice={view}]").click()
        answered.page.wait_for_timeout(400)
        assert "Hello" in download(answered, "svg").decode()
        assert len(download(answered, "png")) > 5000


def test_the_keyboard_reaches_everything(answered: Glassbox):
    page = answered.page
    page.locator("#h-attention").click()
    page.keyboard.press("v")
    assert page.evaluate("() => window.glassbox.looks.view") == "lines"
    page.keyboard.press("v")
    page.keyboard.press("v")
    page.keyboard.press("p")
    assert page.evaluate("() => window.glassbox.looks.pin !== null")
    page.keyboard.press("p")
    page.keyboard.press("e")
    page.locator("#export-menu").wait_for()
    page.keyboard.press("Escape")
    page.locator("#head-grid").focus()
    page.keyboard.press("s")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("s")
    assert len(page.evaluate("() => window.glassbox.looks.set")) in (0, 2)
    heat = page.locator("#heatmap")
    heat.focus()
    page.keyboard.press("+")
    assert page.evaluate("() => window.glassbox.attentionPanel.map.zoomed")
    page.keyboard.press("0")
    page.keyboard.press("ArrowUp")
    assert answered.state("selection")["follow"] is False


def test_screen_readers_get_the_row_as_a_table(answered: Glassbox):
    answered.page.evaluate("() => window.glassbox.select({position: 20})")
    answered.page.wait_for_function(
        "() => /position 20/.test(document.querySelector('.attn table caption')?.textContent)"
    )
    assert answered.page.locator(".attn table tr").count() >= 6


def test_a_panel_that_cannot_be_seen_is_sent_nothing(browser, open_page):
    glassbox = open_page(fresh=False)
    glassbox.page.set_viewport_size({"width": 1000, "height": 800})
    glassbox.page.locator(".sidetabs [data-side=samp]").click()
    glassbox.page.wait_for_function("() => window.glassbox.attentionPanel.closed")
    glassbox.page.evaluate("() => window.glassbox.actions.newChat()")
    glassbox.settings(max_new_tokens=20)
    glassbox.page.evaluate(
        "() => { window.pushed = 0; window.glassbox.on('row', ({rows}) => { window.pushed += rows.length; }) }"
    )
    glassbox.say("Hello there.")
    assert glassbox.page.evaluate("() => window.pushed") == 0
    glassbox.page.locator(".sidetabs [data-side=attn]").click()
    glassbox.page.wait_for_function(
        "() => Number(document.querySelector('#heatmap').dataset.rows) === window.glassbox.store.tokens.length"
    )


def test_finer_tiles_are_fetched_again_when_rows_were_missed(glassbox: Glassbox):
    dropped, kept = glassbox.page.evaluate(
        """() => {
            const { Pattern, TILE } = window.glassbox;
            const text = (n) => btoa('\\u0001'.repeat(n));
            const pattern = new Pattern({ key: 'x', kind: 'weight', args: {} });
            const overview = (n) => ({
                n, start: 0, low: 0, high: 1, top: 1, first: 1,
                tile: [2, 0, 0, n >> 2, n >> 2, text((n >> 2) ** 2), text(n >> 2)],
            });
            pattern.takeOverview(overview(600));
            pattern.takeTile([0, 0, 0, TILE, TILE, text(TILE * TILE), null], 600);
            pattern.takeTile([0, 2, 2, 88, 88, text(88 * 88), null], 600);
            pattern.push(600, new Uint8Array(601).fill(9));
            const grown = pattern.tile(0, 2, 2).n;
            pattern.takeOverview(overview(700));
            return [[grown, pattern.tile(0, 2, 2)], pattern.tile(0, 0, 0) !== null];
        }"""
    )
    assert dropped == [601, None]
    assert kept
