"""What could have come here: who removed what, the past re-shaped, forks by list, search and typed text, step mode."""

import pytest

from tests.browser.conftest import Glassbox

FILTERS = {"temperature": 0.9, "top_k": 40, "top_p": 0.9, "min_p": 0.02}


@pytest.fixture
def told(glassbox: Glassbox) -> Glassbox:
    """A page with a short reply that was stopped by its limit, made with every common filter on."""
    glassbox.settings(max_new_tokens=8, **FILTERS)
    glassbox.say("Tell me about the sea.")
    glassbox.page.locator("#waterfall").evaluate("(node) => { node.closest('details').open = true }")
    return glassbox


def until(glassbox: Glassbox, condition: str, arg=None) -> None:
    glassbox.page.wait_for_function(f"(arg) => !!({condition})", arg=arg, polling=100)


def uncertain(glassbox: Glassbox) -> dict:
    """The sampled token whose distribution was widest: every filter has something to remove there."""
    return max(glassbox.reply(), key=lambda token: token["ent"])


def look_at(glassbox: Glassbox, position: int) -> None:
    """Select a position and wait until the server has told all of it."""
    glassbox.page.evaluate("(position) => window.glassbox.select({ position })", position)
    shown = "document.querySelector('#distribution').dataset"
    until(glassbox, f"{shown}.position === String(arg) && {shown}.full === 'true'", position)


def shape(glassbox: Glassbox, position: int, **args) -> dict:
    return glassbox.page.evaluate("(args) => window.glassbox.rpc('shape', args)", {"position": position, **args})


def rows(glassbox: Glassbox) -> dict[int, float]:
    """Token -> probability that its bar shows."""
    shown = glassbox.page.locator("#distribution [data-token-id]:not([hidden])").evaluate_all(
        "(rows) => rows.map(({ dataset }) => [Number(dataset.tokenId), Number(dataset.final)])"
    )
    return dict(shown)


def test_the_waterfall_tells_what_the_server_computes_for_each_filter(told: Glassbox):
    token = uncertain(told)
    look_at(told, token["i"])
    stages = shape(told, token["i"], base="made")["stages"]
    shown = told.page.locator("#waterfall [data-stage]").evaluate_all("(rows) => rows.map((row) => ({...row.dataset}))")
    assert [row["stage"] for row in shown] == ["model", "temperature", "top_k", "top_p", "min_p"]
    assert [int(row["tokens"]) for row in shown] == [stage["tokens"] for stage in stages]
    assert [float(row["kept"]) for row in shown] == [stage["kept"] for stage in stages]
    struck = told.page.locator("#waterfall [data-stage=top_k] s").all_inner_texts()
    removed = [text.replace(" ", "·").replace("\n", "↵") for _, text, _ in stages[2]["removed"]]
    assert struck == removed[: len(struck)]
    assert struck


def test_pointing_at_a_stage_shows_the_candidates_as_they_were_after_it(told: Glassbox):
    token = uncertain(told)
    look_at(told, token["i"])
    answer = shape(told, token["i"], base="made")
    before = rows(told)
    told.page.locator("#waterfall [data-stage=temperature]").hover()
    until(told, "document.querySelector('#distribution').dataset.stage === 'temperature'")
    after = rows(told)
    assert after.keys() == before.keys()
    assert after != before
    expected = dict(zip((c[0] for c in answer["cand"]), answer["stages"][1]["probs"], strict=True))
    assert after == {token: expected[token] for token in after}
    assert "temperature" in told.page.locator(".dist .bh .lab").inner_text()
    told.page.locator("#message").hover()
    until(told, "document.querySelector('#distribution').dataset.stage === ''")
    assert rows(told) == before


def test_a_control_that_moves_reshapes_the_past_and_the_record_comes_back(told: Glassbox):
    token = uncertain(told)
    look_at(told, token["i"])
    recorded = rows(told)
    line = told.page.locator("#reshaped")
    assert line.is_hidden()
    told.slide("temperature", 1.8)
    line.wait_for()
    first = "[...document.querySelectorAll('#distribution [data-token-id]')][0].dataset.final"
    best = shape(told, token["i"], params={"temperature": 1.8})["cand"][0][3]
    until(told, f"Number({first}) === arg", best)
    assert rows(told) != recorded
    line.get_by_role("button").first.click()
    until(told, f"Number({first}) === arg", recorded[next(iter(recorded))])
    assert rows(told) == recorded
    told.slide("temperature", FILTERS["temperature"])
    line.wait_for(state="hidden")


def test_the_draw_that_is_shown_is_what_continuing_from_there_writes(told: Glassbox):
    reply = told.reply()
    before = [t["id"] for t in told.state("tokens")]
    told.settings(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0)
    answers = {t["i"]: shape(told, t["i"]) for t in reply[1:]}
    at = next(i for i, answer in answers.items() if answer["drawn"] != answer["token"])
    look_at(told, at)
    button = told.page.locator(".dr button[data-action=continue]")
    button.wait_for()
    drawn = answers[at]["drawn"]
    text = next(c[1] for c in answers[at]["cand"] if c[0] == drawn)
    assert text.strip() in told.page.locator(".dr p").inner_text()
    button.click()
    told.wait("s.tokens[arg[0]] && s.tokens[arg[0]].id === arg[1]", [at, drawn])
    told.wait_idle()
    tokens = told.state("tokens")
    assert [t["id"] for t in tokens][:at] == before[:at]
    assert tokens[at]["u"] == pytest.approx(answers[at]["u"])
    assert len(told.state("branches")) == 2


def test_sixty_moves_a_second_end_on_the_last_value_with_few_calls(told: Glassbox):
    token = uncertain(told)
    look_at(told, token["i"])
    told.page.evaluate("""async () => {
        const { glassbox } = window, { rpc } = glassbox;
        window.calls = 0;
        glassbox.rpc = (name, args) => { window.calls += name === 'shape'; return rpc(name, args); };
        for (let k = 1; k <= 60; k++) {
            glassbox.actions.setParams({ temperature: 1 + k / 100 });
            await new Promise((resolve) => setTimeout(resolve, 16));
        }
    }""")
    best = shape(told, token["i"], params={"temperature": 1.6})["cand"][0][3]
    first = "[...document.querySelectorAll('#distribution [data-token-id]')][0].dataset.final"
    until(told, f"Number({first}) === arg", best)
    assert told.page.evaluate("() => window.calls") <= 62


def test_a_token_far_down_the_list_can_be_chosen(told: Glassbox):
    token = told.reply()[2]
    look_at(told, token["i"])
    shown = told.page.locator("#distribution [data-token-id]:not([hidden])")
    assert shown.count() == 12
    more = told.page.locator(".tools .more").first
    more.click()
    until(told, "document.querySelectorAll('#distribution [data-token-id]').length >= 20")
    more.click()
    until(told, "document.querySelectorAll('#distribution [data-token-id]').length >= 60")
    row = shown.nth(24)
    other = int(row.get_attribute("data-token-id"))
    row.click()
    told.wait("s.tokens[arg[0]] && s.tokens[arg[0]].id === arg[1]", [token["i"], other])
    told.wait_idle()
    forked = told.state("tokens")[token["i"]]
    assert forked["u"] is None
    assert forked["rank"] >= 20
    assert len(told.state("branches")) == 2


def test_any_token_of_the_vocabulary_can_be_found_and_chosen(told: Glassbox):
    token = told.reply()[1]
    told.page.locator(f'#transcript [data-pos="{token["i"]}"]').click()
    told.page.locator("#popover .act").click()
    box = told.page.locator("#pick-input")
    box.fill(" lighthouse")
    until(told, "document.querySelector('#found [data-token-id]')")
    found = told.page.locator("#found [data-token-id]").first
    assert "lighthouse" in found.inner_text()
    number = int(found.get_attribute("data-token-id"))
    box.fill(f"#{number}")
    until(told, "document.querySelectorAll('#found [data-token-id]').length === 1")
    box.press("Enter")
    told.wait("s.tokens[arg[0]] && s.tokens[arg[0]].id === arg[1]", [token["i"], number])
    told.wait_idle()
    assert told.state("tokens")[token["i"]]["u"] is None


def test_typed_text_is_shown_as_tokens_and_goes_on_from_there(told: Glassbox):
    told.settings(max_new_tokens=20)
    at = told.reply()[3]["i"]
    told.page.evaluate("(at) => window.glassbox.choice.search(at)", at)
    told.page.locator(".pick [data-mode=type]").click()
    box = told.page.locator("#pick-input")
    box.fill(" unbelievably <b>salty</b>")
    until(told, "document.querySelectorAll('.typed .tk').length > 2")
    split = told.page.evaluate("(text) => window.glassbox.rpc('resolve', { text })", box.input_value())["tokens"]
    ids = [token for token, _ in split]
    assert told.page.locator(".typed .tk").count() == len(ids)
    assert told.page.locator(".typed b").count() == 0
    box.press("Enter")
    told.wait("arg[1].every((id, k) => s.tokens[arg[0] + k] && s.tokens[arg[0] + k].id === id)", [at, ids])
    told.wait_idle()
    assert all(t["u"] is None for t in told.state("tokens")[at : at + len(ids)])


def test_the_next_token_is_chosen_by_hand_or_drawn_one_at_a_time(told: Glassbox):
    n = len(told.state("tokens"))
    told.page.evaluate("() => window.glassbox.choice.showNext()")
    until(told, "document.querySelector('.dr button[data-action=draw]:not([hidden])')")
    until(told, "document.querySelector('#distribution').contains(document.activeElement)")
    second = told.page.locator("#distribution [data-token-id]").nth(1)
    by_hand = int(second.get_attribute("data-token-id"))
    told.page.keyboard.press("ArrowDown")
    told.page.keyboard.press("Enter")
    told.wait("s.tokens.length === arg && !s.streaming", n + 1)
    chosen = told.state("tokens")[n]
    assert (chosen["id"], chosen["u"]) == (by_hand, None)
    answer = shape(told, n + 1)
    until(told, "document.querySelector('#distribution').dataset.position === String(arg)", n + 1)
    assert told.page.evaluate("() => window.glassbox.choice.ahead")
    told.page.locator(".dr button[data-action=draw]").click()
    told.wait("s.tokens.length === arg && !s.streaming", n + 2)
    drawn = told.state("tokens")[n + 1]
    assert drawn["id"] == answer["drawn"]
    assert drawn["u"] == pytest.approx(answer["u"])
    told.page.locator("#choice-when button").first.click()
    until(told, "!window.glassbox.choice.ahead")
    assert int(told.page.locator("#distribution [aria-current=true]").get_attribute("data-token-id")) == drawn["id"]


def test_of_a_given_token_it_is_told_how_likely_it_was(told: Glassbox):
    given = next(t["i"] for t in told.state("tokens") if t["role"] == "user" and t["s"] == " sea")
    look_at(told, given)
    answer = shape(told, given)
    until(told, "document.querySelector('#distribution [aria-current=true]')")
    assert answer["given"]
    assert f"{answer['rank']:,}" in told.page.locator(".dist .given").inner_text()
    n = len(told.state("tokens"))
    told.page.locator("#distribution [aria-current=false]").first.click()
    assert len(told.state("tokens")) == n
    assert len(told.state("branches")) == 1


def test_nothing_is_asked_for_while_text_streams(glassbox: Glassbox):
    glassbox.settings(max_new_tokens=12, **FILTERS)
    glassbox.page.evaluate("""() => {
        const { glassbox } = window, { rpc } = glassbox;
        window.calls = [];
        glassbox.rpc = (name, args) => { window.calls.push([name, glassbox.store.streaming]); return rpc(name, args); };
    }""")
    glassbox.say("Hello.")
    until(glassbox, "window.calls.some(([name]) => name === 'shape')")
    assert [streaming for name, streaming in glassbox.page.evaluate("() => window.calls") if name == "shape"] == [False]
