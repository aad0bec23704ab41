"""A conversation as a person has it: streaming, stopping, editing, forking, reloading, two tabs."""

import json
import math

import pytest

from tests.browser.conftest import Glassbox

SENTENCE = "Tell me about the sea in three sentences."


def test_the_page_opens_with_a_recorded_conversation_that_a_message_replaces(open_page):
    glassbox = open_page(fresh=False)
    glassbox.wait("s.tokens.some((t) => t.lp != null)")
    assert glassbox.turns() == 2
    assert glassbox.page.locator("#transcript [data-pos]").count() > 20
    glassbox.page.wait_for_function(
        "() => Number(document.querySelector('#heatmap').dataset.rows) === window.glassbox.store.tokens.length"
    )
    glassbox.settings(max_new_tokens=3)
    glassbox.send("Hello.")
    glassbox.wait("s.tokens.filter((t) => t.lp != null).length === 3")
    glassbox.wait_idle()
    assert glassbox.turns() == 1


def test_a_message_is_sent_with_enter_and_the_reply_streams(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=12)
    glassbox.page.locator("#message").fill("Why is the sky blue?")
    glassbox.page.locator("#message").press("Enter")
    glassbox.page.locator("#transcript[data-state=streaming]").wait_for()
    glassbox.wait_tokens(2)
    glassbox.wait_idle()
    assert len(glassbox.reply()) == 12
    shown = glassbox.log.inner_text()
    assert "Why is the sky blue?" in shown
    spoken = "".join(t["s"] for t in glassbox.reply() if not t.get("sp"))
    assert spoken.split()[0] in shown
    assert int(glassbox.log.get_attribute("data-n")) > 12
    assert glassbox.page.locator("#transcript [data-pos][data-logprob]").count() == 12


def test_stop_ends_the_reply_where_it_is_and_it_can_go_on(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=200, temperature=0)
    glassbox.send(SENTENCE)
    glassbox.wait_tokens(4)
    glassbox.page.locator("#stop").click()
    glassbox.wait_idle()
    n = len(glassbox.reply())
    assert n < 100
    assert glassbox.state("finish") == "stopped"
    glassbox.settings(max_new_tokens=3)
    glassbox.page.evaluate("() => window.glassbox.actions.resume()")
    glassbox.wait_tokens(n + 3)
    glassbox.wait_idle()
    assert len(glassbox.reply()) == n + 3


def test_regenerate_with_the_same_seed_gives_the_same_text(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=15, temperature=1.2)
    glassbox.say("Name three animals.")
    first = [t["id"] for t in glassbox.reply()]
    run = glassbox.state("run")
    glassbox.page.locator("#regenerate").click()
    glassbox.wait("s.run > arg", run)
    glassbox.wait_tokens(15 if len(first) == 15 else len(first))
    glassbox.wait_idle()
    assert [t["id"] for t in glassbox.reply()] == first
    assert len(glassbox.state("branches")) == 2


def test_an_alternative_that_is_clicked_goes_on_from_there(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=10, temperature=0)
    glassbox.say("Name a colour.")
    token = glassbox.reply()[1]
    before = [t["id"] for t in glassbox.state("tokens")][: token["i"]]
    glassbox.page.locator(f'#transcript [data-pos="{token["i"]}"]').click()
    dialog = glassbox.page.locator("[role=dialog]:not([hidden])").first
    dialog.wait_for()
    other = next(c[0] for c in token["cand"] if c[0] != token["id"])
    run = glassbox.state("run")
    dialog.locator(f'button[data-token-id="{other}"]').click()
    glassbox.wait("s.run > arg", run)
    glassbox.wait_idle()
    tokens = glassbox.state("tokens")
    assert [t["id"] for t in tokens][: token["i"]] == before
    assert (tokens[token["i"]]["id"], tokens[token["i"]]["u"]) == (other, None)
    assert len(tokens) > token["i"] + 1
    assert [b["fork"] for b in glassbox.state("branches")] == [0, token["i"]]


def test_an_alternative_clicked_in_mid_reply_does_not_wait_for_it(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=150, temperature=1.0)
    glassbox.send(SENTENCE)
    glassbox.wait_tokens(8)
    token = glassbox.reply()[2]
    other = next(c[0] for c in token["cand"] if c[0] != token["id"] and c[4] == "")
    glassbox.page.evaluate("([i, id]) => window.glassbox.actions.fork(i, id)", [token["i"], other])
    glassbox.wait(
        "s.tokens[arg[0]] && s.tokens[arg[0]].id === arg[1] && s.tokens.length > arg[0] + 3", [token["i"], other]
    )
    glassbox.page.locator("#stop").click()
    glassbox.wait_idle()
    assert len(glassbox.state("branches")) == 2


def test_an_edited_message_is_answered_anew_and_the_old_branch_stays(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=6)
    glassbox.say("One.")
    glassbox.say("Two.")
    number = next(t["m"] for t in glassbox.state("tokens") if t["role"] == "user")
    run = glassbox.state("run")
    glassbox.page.evaluate("(m) => window.glassbox.actions.edit(m, 'Uno.')", number)
    glassbox.wait("s.run > arg", run)
    glassbox.wait_idle()
    assert glassbox.turns() == 1
    assert "Uno." in glassbox.log.inner_text()
    branches = glassbox.state("branches")
    assert len(branches) == 2
    glassbox.page.evaluate("(id) => window.glassbox.actions.switchBranch(id)", branches[0]["id"])
    glassbox.wait("s.tokens.length === arg", branches[0]["n"])
    assert "Two." in glassbox.log.inner_text()


def test_ten_turns(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=4)
    for turn in range(10):
        glassbox.say(f"This is message {turn}.")
    assert glassbox.turns() == 10
    text = glassbox.log.inner_text()
    assert all(f"This is message {turn}." in text for turn in range(10))
    assert [t["i"] for t in glassbox.state("tokens")] == list(range(len(glassbox.state("tokens"))))


def test_a_reload_keeps_the_conversation_and_the_settings(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=8, temperature=0.3)
    glassbox.say("Remember the word lighthouse.")
    sid, tokens = glassbox.state("sid"), glassbox.state("tokens")
    glassbox.reload()
    glassbox.wait("s.tokens.length > 0")
    assert glassbox.state("sid") == sid
    assert glassbox.state("tokens") == tokens
    assert glassbox.state("params")["temperature"] == 0.3
    assert "lighthouse" in glassbox.log.inner_text()
    glassbox.say("And now?")
    assert glassbox.turns() == 2


def test_a_new_chat_is_empty(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=3)
    glassbox.say("Hello.")
    glassbox.page.locator("#new-chat").click()
    glassbox.wait("s.tokens.length === 0")
    glassbox.say("Hello again.")
    assert glassbox.turns() == 1


def test_markup_that_is_typed_is_shown_as_text(glassbox: Glassbox):
    nasty = "</script><img src=x onerror=window.broken=1> ${window.broken=2} {{value}} <|im_end|> `b`"
    glassbox.settings(max_new_tokens=3)
    glassbox.say(nasty)
    shown = glassbox.log.inner_text().replace("\u00b7", " ")
    assert "</script><img src=x onerror=window.broken=1>" in shown
    assert "<|im_end|>" in shown
    assert glassbox.page.evaluate("() => window.broken") is None
    assert glassbox.page.locator("#transcript img").count() == 0
    typed = [t for t in glassbox.state("tokens") if t["role"] == "user"]
    assert "".join(t["s"] for t in typed) == nasty
    assert not any(t.get("sp") for t in typed)


def test_an_empty_message_changes_nothing(glassbox: Glassbox):
    glassbox.page.locator("#message").fill("   ")
    glassbox.page.locator("#message").press("Enter")
    reply = glassbox.page.evaluate("() => window.glassbox.rpc('send', {text: '  '}).catch((e) => e.message)")
    assert "empty" in reply
    assert glassbox.state("tokens") == []


def test_two_tabs_do_not_share_anything(open_page):
    a, b = open_page(), open_page()
    a.settings(max_new_tokens=6, temperature=0)
    b.settings(max_new_tokens=6, temperature=1.5)
    a.send("I am the first.")
    b.send("I am the second.")
    a.wait_idle()
    b.wait_idle()
    assert a.state("sid") != b.state("sid")
    assert "the second" not in a.log.inner_text()
    assert "the first" not in b.log.inner_text()
    assert a.state("params")["temperature"] == 0
    assert len(b.reply()) == 6


def test_a_duplicated_tab_starts_its_own_conversation(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=3)
    glassbox.say("Hello.")
    stored = glassbox.page.evaluate("() => ({...sessionStorage})")
    copy = glassbox.page.context.new_page()
    copy.add_init_script(f"for (const [k, v] of Object.entries({stored!r})) sessionStorage.setItem(k, v)")
    other = Glassbox(copy, glassbox.address)
    assert other.state("sid") != glassbox.state("sid")
    assert other.state("tokens") == []


def test_gradios_clock_does_not_redraw_a_page_at_rest(glassbox: Glassbox, browser, tmp_path):
    categories = ["devtools.timeline", *(f"disabled-by-default-devtools.timeline{x}" for x in ("", ".stack"))]
    glassbox.page.wait_for_timeout(1000)
    browser.start_tracing(page=glassbox.page, path=tmp_path / "trace.json", categories=categories)
    glassbox.page.wait_for_timeout(1000)
    browser.stop_tracing()
    events = json.loads((tmp_path / "trace.json").read_text("utf-8"))["traceEvents"]
    asked = [json.dumps(event) for event in events if event["name"] == "RequestAnimationFrame"]
    assert sum("statustracker" in event for event in asked) < 5  # the clock asks 60 times a second


def test_a_reply_tells_its_statistics_in_one_line(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=8, temperature=1.0)
    glassbox.say("Name a colour.")
    reply = glassbox.reply()
    meta = glassbox.page.locator("#transcript .msg.assistant .meta")
    figure = {name: meta.locator(f"[data-figure={name}]") for name in ("tokens", "bits", "perplexity", "tps", "first")}
    nats = -sum(t["lp"] for t in reply) / len(reply)
    assert figure["tokens"].inner_text().split()[0] == str(len(reply))
    assert float(figure["bits"].inner_text().split()[0]) == pytest.approx(nats / math.log(2), abs=0.006)
    assert float(figure["perplexity"].inner_text().split()[1]) == pytest.approx(math.exp(nats), rel=0.01)
    assert float(figure["first"].text_content().split()[1]) == pytest.approx(reply[0]["dt"], abs=0.006)
    assert all(one.get_attribute("title") for one in figure.values())
    assert meta.bounding_box()["height"] <= 24


def test_tokens_chosen_by_hand_are_counted(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=4, temperature=0)
    glassbox.say("Name a colour.")
    glassbox.fork(1)
    assert glassbox.page.locator("#transcript [data-figure=hand]").text_content().startswith("1 ")
    assert glassbox.page.locator("#transcript .t.hand").count() == 1


def test_a_reply_that_can_go_on_offers_to_choose_its_next_token(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=2)
    glassbox.say("Name a colour.")
    glassbox.page.get_by_role("button", name="Choose next").click()
    glassbox.page.wait_for_function("() => window.glassbox.choice.ahead", polling=100)


def test_the_timeline_tells_what_changed_at_a_token(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=2, temperature=0.7)
    glassbox.say("Name a colour.")
    n = len(glassbox.state("tokens"))
    glassbox.settings(temperature=0)
    glassbox.page.evaluate("() => window.glassbox.actions.resume(1)")
    glassbox.wait("s.tokens.length > arg && !s.streaming", n)
    scrub = glassbox.page.locator("#scrub")
    scrub.focus()
    scrub.press("End")
    glassbox.page.wait_for_function("() => document.getElementById('scrub').ariaValueText.includes('0.7 → 0')")
    assert "0.7 → 0" in glassbox.page.locator("#transcript .flag").inner_text()


def test_a_system_prompt_is_set_before_the_first_message(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=3)
    page = glassbox.page
    page.locator("#system").fill("You write tiny stories.")
    page.locator("#system").press("Enter")
    page.locator("#message").fill("Begin.")
    page.locator("#message").press("Enter")
    glassbox.wait("s.tokens.some((t) => t.lp != null)")
    glassbox.wait_idle()
    system = "".join(t["s"] for t in glassbox.state("tokens") if t["role"] == "system")
    assert system == "You write tiny stories."
    page.locator("#new-chat").click()
    glassbox.wait("s.tokens.length === 0")
    assert page.locator("#system").input_value() == ""


def test_the_replay_keeps_the_pace_of_the_reply_and_ends_where_it_was(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=8, temperature=0)
    glassbox.say("Name a colour.")
    reply = glassbox.reply()
    page = glassbox.page
    page.locator("#speed").select_option("4")
    begun = page.evaluate("() => performance.now()")
    page.locator("#replay").click()
    glassbox.wait("arg && !s.selection.follow", True)
    page.wait_for_function("() => !window.glassbox.replay.isOn()", polling=50)
    took = page.evaluate("() => performance.now()") - begun
    written = sum(t["dt"] for t in reply[1:]) * 1000
    assert took >= written / 4
    assert page.locator("#transcript .fut").count() == 0
    assert glassbox.state("selection")["follow"]


def test_dragging_the_timeline_moves_the_selection_of_every_panel(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=8, temperature=0)
    glassbox.say("Name a colour.")
    box = glassbox.page.locator("#scrub").bounding_box()
    tick = min(16, (box["width"] - 16) / len(glassbox.state("tokens")))
    first, last = glassbox.reply()[0]["i"], glassbox.reply()[5]["i"]
    mouse = glassbox.page.mouse
    mouse.move(box["x"] + 8 + tick * (first + 0.5), box["y"] + 40)
    mouse.down()
    glassbox.wait("s.selection.position === arg", first)
    mouse.move(box["x"] + 8 + tick * (last + 0.5), box["y"] + 40)
    mouse.up()
    glassbox.wait("s.selection.position === arg", last)
    assert glassbox.page.locator(f'#transcript [data-pos="{last}"].q').count() == 1
