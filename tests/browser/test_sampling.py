"""Settings that act while text streams, and the page's own settings: language and theme."""

import pytest

from tests.browser.conftest import Glassbox


def test_temperature_zero_in_mid_reply_makes_the_very_next_tokens_greedy(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=60, temperature=1.5)
    glassbox.send("Tell me about the sea.")
    glassbox.wait_tokens(8)
    glassbox.slide("temperature", 0)
    glassbox.wait("s.tokens.some((t) => t.lp != null && s.settings[t.par].temperature === 0)")
    known = glassbox.page.evaluate("() => window.glassbox.store.tokens.length")
    glassbox.wait_idle()
    reply = glassbox.reply()
    temperatures = [t["params"]["temperature"] for t in reply]
    assert temperatures == sorted(temperatures, reverse=True)
    assert set(temperatures) == {1.5, 0.0}
    greedy = [t for t in reply if t["params"]["temperature"] == 0]
    assert greedy[0]["i"] <= known
    assert all(t["rank"] == 1 for t in greedy)
    assert any(t["rank"] > 1 for t in reply if t not in greedy)
    assert all(c[4] == "temperature" for t in greedy for c in t["cand"] if c[0] != t["id"])


@pytest.mark.parametrize(
    ("name", "value", "by"), [("top_k", 3, "top_k"), ("top_p", 0.5, "top_p"), ("min_p", 0.3, "min_p")]
)
def test_what_a_filter_removes_is_named(glassbox: Glassbox, name, value, by):
    glassbox.settings(max_new_tokens=4, temperature=1.0)
    glassbox.slide(name, value)
    glassbox.wait(f"s.params.{name} === arg", value)
    glassbox.say("Hello.")
    removed = {c[4] for t in glassbox.reply() for c in t["cand"]}
    assert removed <= {"", by}
    assert by in removed
    assert glassbox.page.locator(f'#distribution [data-removed-by="{by}"]').count() > 0


def test_a_value_that_is_out_of_range_is_refused_in_words_and_nothing_changes(glassbox: Glassbox):
    before = glassbox.state("params")
    error = glassbox.page.evaluate(
        "() => window.glassbox.rpc('set_params', {temperature: 99}).catch((e) => [e.message, e.field])"
    )
    assert "from 0.0 to 5.0" in error[0]
    assert error[1] == "temperature"
    assert glassbox.state("params") == before


def test_a_fast_drag_ends_on_the_last_value(glassbox: Glassbox):
    for value in (0.2, 0.5, 0.9, 1.3, 1.7):
        glassbox.slide("temperature", value)
    glassbox.wait("s.params.temperature === 1.7")
    assert glassbox.page.evaluate("() => window.glassbox.rpc('set_params', {})")["params"]["temperature"] == 1.7


def test_the_language_can_be_switched_and_is_remembered(glassbox: Glassbox):
    title = glassbox.page.locator("#h-sampling")
    assert title.inner_text() == "Sampling"
    glassbox.page.locator("#lang button").nth(1).click()
    assert title.inner_text() != "Sampling"
    assert glassbox.page.evaluate("() => document.documentElement.lang").startswith("zh")
    glassbox.reload()
    assert glassbox.page.locator("#h-sampling").inner_text() != "Sampling"


def test_light_and_dark(open_page):
    glassbox = open_page(color_scheme="dark")
    theme = "() => document.documentElement.dataset.theme"
    assert glassbox.page.evaluate(theme) == "dark"
    background = "() => getComputedStyle(document.body).backgroundColor"
    dark = glassbox.page.evaluate(background)
    glassbox.page.evaluate("() => window.glassbox.setTheme('light')")
    assert glassbox.page.evaluate(theme) == "light"
    assert glassbox.page.evaluate(background) != dark
    glassbox.reload()
    assert glassbox.page.evaluate(theme) == "light"
