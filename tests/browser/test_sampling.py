"""Settings that act while text streams, every group of controls, and the page's own settings: language and theme."""

import pytest
from playwright.sync_api import expect

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


def server_has(glassbox: Glassbox, name: str, value) -> None:
    """Wait until the server's parameter is this one: the page shows a change before it was sent."""
    glassbox.page.wait_for_function(
        "([name, value]) => window.glassbox.rpc('set_params', {}).then(({params}) => params[name] === value)",
        arg=[name, value],
    )


def test_a_fast_drag_ends_on_the_last_value(glassbox: Glassbox):
    for value in (0.2, 0.5, 0.9, 1.3, 1.7):
        glassbox.slide("temperature", value)
    glassbox.wait("s.params.temperature === 1.7")
    server_has(glassbox, "temperature", 1.7)


MOVES = """async ([moves, last]) => {
  const range = document.querySelector('#temperature input[type=range]');
  const slide = (value) => { range.value = value; range.dispatchEvent(new Event('input', {bubbles: true})); };
  for (let i = 1; i < moves; i++) {
    slide((i % 31) * 0.05);
    if (i % 20 === 0) await new Promise((resume) => setTimeout(resume, 20));
  }
  slide(last);
  return window.glassbox.store.streaming;
}"""


def test_a_thousand_moves_of_a_slider_in_one_reply_lose_nothing_and_stall_nothing(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=60, min_new_tokens=60)
    glassbox.send("Tell me about the sea.")
    glassbox.wait_tokens(3)
    streamed = glassbox.page.evaluate(MOVES, [1000, 1.35])
    assert streamed, "the reply was over before the last move"
    glassbox.wait("s.tokens.some((t) => t.lp != null && s.settings[t.par].temperature === 1.35)")
    glassbox.wait_idle()
    assert glassbox.page.evaluate("() => window.glassbox.rpc('set_params', {})")["params"]["temperature"] == 1.35
    assert glassbox.state("params")["temperature"] == 1.35
    tokens, reply = glassbox.state("tokens"), glassbox.reply()
    assert [t["i"] for t in tokens] == list(range(len(tokens)))
    assert len(reply) == 60
    assert glassbox.state("finish") == "length"
    assert len({t["params"]["temperature"] for t in reply}) > 5
    assert reply[-1]["params"]["temperature"] == 1.35
    assert sorted(t["dt"] for t in reply[1:])[-3] < 2  # seconds; a busy machine may pause once or twice by itself


# ---- every group of controls ----


def open_group(glassbox: Glassbox, name: str) -> None:
    if not glassbox.page.locator("#group-more").get_attribute("open"):
        glassbox.page.evaluate("() => { document.querySelector('#group-more').open = true }")
    glassbox.page.locator(f"#group-{name} > summary").click()


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("temperature", "dynatemp_range", 0.5),
        ("tail", "typical_p", 0.8),
        ("xtc", "xtc_probability", 0.5),
        ("mirostat", "mirostat_tau", 4),
        ("repetition", "dry_multiplier", 0.8),
        ("length", "min_new_tokens", 7),
    ],
)
def test_a_group_says_how_much_of_it_is_on_and_a_reset_takes_it_off(glassbox: Glassbox, group, name, value):
    open_group(glassbox, group)
    before = glassbox.state("params")[name]
    glassbox.slide(name, value)
    glassbox.wait(f"s.params.{name} === arg", value)
    glassbox.page.wait_for_function(
        "(group) => document.querySelector(`#group-${group} > summary`).innerText.endsWith('1 on')", arg=group
    )
    glassbox.page.locator(f"#{name} .reset").click()
    glassbox.wait(f"s.params.{name} === arg", before)
    glassbox.page.wait_for_function(
        "(group) => !document.querySelector(`#group-${group} > summary .rk`).textContent.includes('on')", arg=group
    )
    server_has(glassbox, name, before)


def test_a_logarithmic_slider_follows_the_mouse_and_the_arrow_keys(glassbox: Glassbox):
    box = glassbox.page.locator("#top_k .rg").bounding_box()
    middle = box["y"] + box["height"] / 2
    glassbox.page.mouse.move(box["x"] + 2, middle)
    glassbox.page.mouse.down()
    glassbox.page.mouse.move(box["x"] + box["width"] / 2, middle)
    glassbox.page.mouse.up()
    glassbox.wait("s.params.top_k > 15 && s.params.top_k < 40")  # half of 1,000, by its logarithm
    glassbox.slide("top_k", 1)
    glassbox.page.locator("#top_k input[type=range]").focus()
    for key, expected in (("ArrowRight", 2), ("ArrowUp", 3), ("ArrowLeft", 2), ("ArrowDown", 1), ("ArrowLeft", 0)):
        glassbox.page.keyboard.press(key)
        glassbox.wait("s.params.top_k === arg", expected)
    expect(glassbox.page.locator("#top_k .word")).to_have_text("off")


@pytest.mark.parametrize("typed", ["9", "-1", "", "e", "NaN"])
def test_what_is_no_value_is_said_at_the_control_and_the_one_in_force_comes_back(glassbox: Glassbox, typed):
    box = glassbox.page.locator("#temperature-number")
    box.fill("0.6")
    glassbox.wait("s.params.temperature === 0.6")
    box.press("Control+a")
    box.press("Delete")
    box.press_sequentially(typed)
    box.press("Enter")
    assert "from 0 to 5" in glassbox.page.locator("#temperature [role=alert]").inner_text()
    assert box.input_value() == "0.60"
    assert glassbox.state("params")["temperature"] == 0.6


def test_presets_set_every_number_and_neutral_takes_the_words_off_too(glassbox: Glassbox):
    pressed = glassbox.page.locator('#sampling .chip[aria-pressed="true"]')
    glassbox.page.evaluate("() => window.glassbox.actions.setParams({banned: ['sea'], typical_p: 0.5})")
    glassbox.page.locator("#preset-creative").click()
    glassbox.wait("s.params.xtc_probability === 0.5 && s.params.typical_p === 1 && s.params.banned.length === 1")
    glassbox.page.wait_for_function("() => document.querySelector('#preset-creative').ariaPressed === 'true'")
    glassbox.page.locator("#preset-neutral").click()
    glassbox.wait("s.params.temperature === 1 && s.params.xtc_probability === 0 && s.params.banned.length === 0")
    glassbox.page.wait_for_function("() => document.querySelector('#preset-neutral').ariaPressed === 'true'")
    assert pressed.count() == 1


def test_a_preset_of_ones_own_survives_a_reload_and_can_be_replaced_and_removed(glassbox: Glassbox):
    page = glassbox.page

    def save(name: str) -> None:
        if page.locator("#preset-add").is_visible():
            page.locator("#preset-add").click()
        page.locator("#preset-name").fill(name)
        page.keyboard.press("Enter")

    own = page.locator('[data-preset="Mine"]')
    glassbox.settings(temperature=0.45, xtc_probability=0.2)
    save("Greedy")
    assert "another name" in page.locator(".presets [role=alert]").inner_text()
    save("Mine")
    own.wait_for()
    glassbox.settings(temperature=0.55)
    save("Mine")
    assert "already" in page.locator(".presets [role=alert]").inner_text()
    page.keyboard.press("Enter")
    glassbox.reload()
    page.locator("#preset-greedy").click()
    own.click()
    glassbox.wait("s.params.temperature === 0.55 && s.params.xtc_probability === 0.2")
    page.locator(".own .icon").click()
    own.wait_for(state="detached")


def test_the_order_is_changed_by_the_keyboard_and_by_dragging_and_every_record_keeps_it(glassbox: Glassbox):
    page = glassbox.page
    open_group(glassbox, "order")
    glassbox.settings(max_new_tokens=2, top_k=5)
    usual = glassbox.state("params")["order"]
    page.locator('#order-list [data-filter="top_k"] .grip').focus()
    page.keyboard.press("ArrowUp")
    glassbox.wait("s.params.order.indexOf('top_k') < s.params.order.indexOf('temperature')")
    assert "number" in page.locator("#order [role=status]").inner_text()
    assert page.locator("#order-list .on").count() == 2
    glassbox.say("Hello.")
    order = glassbox.reply()[0]["params"]["order"]
    assert order.index("top_k") == usual.index("top_k") - 1
    assert [name for name, *_ in glassbox.reply()[0]["st"]] == ["top_k", "temperature"]
    page.locator('#order-list [data-filter="mirostat"] .grip').drag_to(
        page.locator('#order-list [data-filter="logit_bias"]')
    )
    glassbox.wait("s.params.order.indexOf('mirostat') < 2")
    page.locator("#order .reset").click()
    glassbox.wait("JSON.stringify(s.params.order) === JSON.stringify(arg)", usual)


def test_a_regex_that_does_not_compile_is_told_at_the_control_while_the_reply_goes_on(glassbox: Glassbox):
    page = glassbox.page
    open_group(glassbox, "form")
    glassbox.settings(max_new_tokens=40, min_new_tokens=40)
    glassbox.send("Tell me about the sea.")
    glassbox.wait_tokens(2)
    page.locator("#grammar [data-kind=regex]").click()
    page.locator("#grammar-input").fill("(Yes|No")
    page.locator("#grammar-apply").click()
    page.locator("#grammar [role=alert]").wait_for()
    known = len(glassbox.reply())
    assert "grammar" in page.locator("#grammar [role=alert]").inner_text()
    assert page.locator("#grammar-input").input_value() == "(Yes|No"
    glassbox.wait_tokens(known + 2)
    assert glassbox.state("params")["grammar"] is None
    glassbox.wait_idle()
    assert len(glassbox.reply()) == 40
    assert all(t["params"]["grammar"] is None for t in glassbox.reply())
    page.locator("#grammar-input").fill("(Yes|No)")
    page.locator("#grammar-apply").click()
    glassbox.wait("s.params.grammar != null && s.params.grammar[1] === '(Yes|No)'")
    glassbox.settings(min_new_tokens=0)
    glassbox.say("Do you know the sea?")
    last = max(t["m"] for t in glassbox.reply())
    assert "".join(t["s"] for t in glassbox.reply() if t["m"] == last and not t.get("sp")) in ("Yes", "No")


def test_a_bias_typed_as_text_acts_on_the_next_token(glassbox: Glassbox):
    page = glassbox.page
    open_group(glassbox, "words")
    glassbox.settings(max_new_tokens=60, min_new_tokens=60)
    page.locator("#logit_bias-input").fill("sea")
    page.locator(".way").nth(1).wait_for()
    glassbox.send("Tell me a story.")
    glassbox.wait_tokens(3)
    page.locator(".way").nth(1).click()
    glassbox.slide("bias-0", 100)
    glassbox.wait("s.tokens.some((t) => t.lp != null && (s.settings[t.par].logit_bias[0] || [])[1] === 100)")
    glassbox.wait_idle()
    biased = [t for t in glassbox.reply() if t["params"]["logit_bias"] and t["params"]["logit_bias"][0][1] == 100]
    assert {t["s"] for t in biased} == {" sea"}
    page.locator(".biases .icon").click()
    glassbox.wait("s.params.logit_bias.length === 0")


def test_a_banned_string_shows_its_tokens_and_does_not_occur(glassbox: Glassbox):
    page = glassbox.page
    open_group(glassbox, "words")
    for text in (" lighthouse keeper", "\\n"):
        page.locator("#banned-input").fill(text)
        page.keyboard.press("Enter")
    glassbox.wait("s.params.banned.length === 2 && s.params.banned[1] === '\\n'")
    pieces = page.locator("#banned .str").first.locator(".pc")
    pieces.first.wait_for()
    assert pieces.all_inner_texts() == ["·lighthouse", "·keeper"]
    page.locator("#banned .str button").first.click()
    glassbox.wait("s.params.banned.length === 1")


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


def test_the_page_follows_the_system_until_somebody_chooses(open_page):
    glassbox = open_page(color_scheme="light")
    theme = "() => document.documentElement.dataset.theme"
    glassbox.page.emulate_media(color_scheme="dark")
    glassbox.page.wait_for_function(f"({theme})() === 'dark'")
    glassbox.page.evaluate("() => window.glassbox.setTheme('dark')")
    glassbox.page.emulate_media(color_scheme="light")
    glassbox.page.wait_for_timeout(100)
    assert glassbox.page.evaluate(theme) == "dark"
