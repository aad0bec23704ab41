"""Several replies at once: asked for, streamed side by side, stopped, one chosen, all dropped."""

from tests.browser.conftest import Glassbox


def ask(glassbox: Glassbox, n: int, text: str = "Name a colour.") -> None:
    """Send a text to n replies, by the controls."""
    page = glassbox.page
    page.locator("#message").fill(text)
    page.locator("#several").click()
    page.locator(f'#samples-menu [data-value="{n}"]').click()
    page.locator("#samples-send").click()
    page.locator("#samples").wait_for()


def samples(glassbox: Glassbox) -> list[dict]:
    return glassbox.state("samples")["list"]


def test_several_replies_stream_side_by_side_and_one_is_chosen(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=6, temperature=1.3)
    ask(glassbox, 3)
    page = glassbox.page
    assert page.locator("#samples .sample").count() == 3
    glassbox.wait("s.samples.list.every((one) => one.toks.length > 0)")
    glassbox.wait("!s.streaming")
    page.locator("#samples .sample:not(.live)").nth(2).wait_for()
    kept = samples(glassbox)
    assert len({one["seed"] for one in kept}) == 3
    assert all(one["finish"] for one in kept)
    for card, one in zip(page.locator("#samples .sample").all(), kept, strict=True):
        shown = card.inner_text()
        assert f"seed {one['seed']}" in shown
        assert f"{len(one['toks'])} token" in shown
        assert one["toks"][0]["s"].strip() in shown
    page.locator('#samples [data-pick="1"]').click()
    glassbox.wait("s.samples === null && s.tokens.some((t) => t.lp != null)")
    assert page.locator("#samples").count() == 0
    assert [t["id"] for t in glassbox.reply()] == [t["id"] for t in kept[1]["toks"]]
    assert len(glassbox.state("branches")) == 3  # the others stay


def test_a_ladder_of_temperatures_is_spread_between_its_ends_and_shares_the_seed(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=3)
    page = glassbox.page
    page.locator("#message").fill("Hello.")
    page.locator("#several").click()
    page.locator('#samples-menu [data-value="3"]').click()
    page.locator('#samples-menu [data-value="ladder"]').click()
    page.locator(".ladder input").first.fill("0")
    page.locator(".ladder input").last.fill("1.5")
    page.locator(".ladder input").last.press("Tab")
    assert [float(box.input_value()) for box in page.locator(".ladder input").all()] == [0, 0.75, 1.5]
    page.locator("#samples-send").click()
    page.locator("#samples").wait_for()
    glassbox.wait("!s.streaming")
    kept = samples(glassbox)
    assert [one["temperature"] for one in kept] == [0, 0.75, 1.5]
    assert len({one["seed"] for one in kept}) == 1
    settings = glassbox.state("settings")
    assert [settings[one["toks"][0]["par"]]["temperature"] for one in kept] == [0, 0.75, 1.5]


def test_escape_leaves_the_replies_running_and_they_can_be_shown_again(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=40)
    ask(glassbox, 2, "Tell me about the sea.")
    page = glassbox.page
    glassbox.wait("s.samples.list[0].toks.length > 1")
    page.keyboard.press("Escape")
    assert page.locator("#samples").count() == 0
    assert page.locator("#message").is_visible()
    n = page.evaluate("() => window.glassbox.store.samples.list[0].toks.length")
    glassbox.wait("s.samples.list[0].toks.length > arg", n)
    page.locator("#samples-show").click()
    page.locator("#samples-stop").click()
    glassbox.wait("!s.streaming")
    assert all(one["finish"] for one in samples(glassbox))
    assert all(0 < len(one["toks"]) < 40 for one in samples(glassbox))


def test_all_are_dropped_and_the_reply_from_before_is_there_again(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=5)
    glassbox.say("Name a colour.")
    before = [t["id"] for t in glassbox.state("tokens")]
    page = glassbox.page
    page.locator("#several-again").click()
    page.locator('#samples-menu [data-value="2"]').click()
    page.locator("#samples-again").click()
    page.locator("#samples").wait_for()
    glassbox.wait("s.samples.list.every((one) => one.toks.length)")
    page.locator("#samples-discard").click()
    glassbox.wait("s.samples === null && s.tokens.length === arg", len(before))
    assert [t["id"] for t in glassbox.state("tokens")] == before
    assert len(glassbox.state("branches")) == 1
    assert page.locator("#samples").count() == 0


def test_a_slider_acts_on_every_reply_that_runs(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=30, temperature=1.2)
    ask(glassbox, 2, "Tell me about the sea.")
    glassbox.wait("s.samples.list[0].toks.length > 1")
    glassbox.slide("temperature", 0)
    glassbox.wait("s.samples.list.every((one) => one.toks.some((t) => s.settings[t.par].temperature === 0))")
    glassbox.page.locator("#samples-stop").click()
    glassbox.wait("!s.streaming")


def test_tokens_of_a_reply_that_were_missed_are_pulled(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=12)
    ask(glassbox, 2, "Tell me about the sea.")
    glassbox.wait("s.samples.list[1].toks.length > 2")
    glassbox.page.evaluate("() => { window.glassbox.store.samples.list[1].toks.length = 1 }")  # as if lost on the way
    glassbox.wait("!s.streaming")
    ids = [t["i"] for t in samples(glassbox)[1]["toks"]]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert len(ids) > 2


def test_control_enter_sends_to_several_and_a_number_chooses(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=2)
    page = glassbox.page
    page.evaluate("() => window.glassbox.several.setCount(2)")
    assert page.locator("#several").inner_text() == "×2"
    page.locator("#message").fill("Hello.")
    page.locator("#message").press("Control+Enter")
    page.locator("#samples").wait_for()
    glassbox.wait("s.samples && !s.streaming")
    second = [t["id"] for t in samples(glassbox)[1]["toks"]]
    page.keyboard.press("2")
    glassbox.wait("s.samples === null && s.tokens.some((t) => t.lp != null)")
    assert [t["id"] for t in glassbox.reply()] == second
