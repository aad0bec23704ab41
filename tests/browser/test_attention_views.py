"""Every way of looking at attention: quantities, views, comparing, the address, files, keys, the small screen."""

import csv
import io

import numpy as np
import pytest

from tests.browser.attention import floats, pixel, rpc, select, show_text, tinted
from tests.browser.conftest import Glassbox

# ---- views -----------------------------------------------------------------------------------------------------------


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
    page.evaluate(
        """() => {
            const { store, emit } = window.glassbox;
            store.branches = store.branches.filter(({id}) => id !== 0);
            emit('branches');
        }"""
    )
    assert page.evaluate("() => window.glassbox.looks.pin") is None


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
