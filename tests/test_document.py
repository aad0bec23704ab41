"""Completion mode: the text itself is the prompt, the model goes on with it in place, and either may be changed."""

import pytest

from demo.document import added, rewritten
from gpt.conversation import fit
from gpt.engine import Engine
from tests.conftest import random_model
from tests.page import NO_END, WARM, Page


@pytest.fixture(scope="module")
def base(tokenizer):
    return Engine(random_model(), tokenizer, None, "base")


@pytest.fixture
def page(base):
    page = Page(base)
    page.session.params = WARM.replace(logit_bias=NO_END)
    return page


def said(page):
    """The whole text, as the page shows it."""
    return "".join(t["s"] for t in page.tokens if not t.get("sp"))


def records(page):
    return [record for record in page.session.records if record]


def test_a_base_model_begins_in_completion_mode_and_cannot_leave_it(page):
    assert page.server.hello({"owner": "tab 2"})["raw"] is True
    assert page.call("set_mode", raw=False)["code"] == "invalid"
    assert page.call("set_mode", raw="yes")["field"] == "raw"


def test_a_text_is_read_as_it_is_and_goes_on_in_place(page, base):
    page.act("send", text="Once upon")
    expected = base.session("Once upon", page.session.params, page.session.seed, raw=True)
    list(base.stream(expected))
    assert page.session.tokens == expected.tokens
    assert {t["role"] for t in page.tokens} == {"text", "assistant"}
    assert said(page).startswith("Once upon")
    assert len(records(page)) == 12


def test_what_is_typed_after_it_keeps_what_the_model_wrote_and_its_records(page):
    page.act("send", text="Once upon")
    before, made = list(page.session.tokens), records(page)
    page.act("send", text=" and then")
    assert page.session.tokens[: len(before)] == before
    assert records(page)[: len(made)] == made
    assert [m["role"] for m in page.engine.messages(page.session)] == ["text", "assistant", "text", "assistant"]
    assert [t["m"] for t in page.tokens] == sorted(t["m"] for t in page.tokens)
    assert len(page.session.branches) == 1


def test_a_reply_inside_a_text_can_be_forked_and_written_again(page):
    page.act("send", text="Once upon")
    first = [t["i"] for t in page.tokens if "lp" in t]
    page.act("send", text=" and then")
    page.act("fork", position=first[3], tokens=[80])
    assert page.session.tokens[first[3]] == 80
    assert [m["role"] for m in page.engine.messages(page.session)] == ["text", "assistant"]
    tokens = list(page.session.tokens)
    page.act("regenerate", seed=99)
    assert page.session.tokens[: first[0]] == tokens[: first[0]]
    assert len(page.session.branches) == 3


def test_an_edit_keeps_every_record_before_the_first_change(page):
    page.act("send", text="Once upon")
    text, made = said(page), records(page)
    pieces = [t["s"] for t in page.tokens if "lp" in t]
    kept = "Once upon" + "".join(pieces[:5])
    page.act("edit", text=kept + "XYZ")
    assert said(page).startswith(kept + "XYZ")
    assert 0 < len([r for r in records(page) if r in made]) <= 5
    assert text in "".join(page.engine.tokenizer.pieces(page.session.branches[0].tokens))
    page.act("edit", text="Twice" + kept)
    assert not [r for r in records(page) if r in made]


def test_an_edit_is_the_text_that_was_typed_wherever_it_begins(tokenizer):
    parts = [
        {"role": "text", "content": "ab"},
        {"role": "assistant", "content": "c你d", "tokens": tokenizer.encode("c你d")},
        {"role": "text", "content": "ef"},
    ]
    for text in (
        "",
        "x",
        "a",
        "ab",
        "abc",
        "abc你",
        "abc你d",
        "abc你dX",
        "abc你de",
        "abc你def",
        "abc你defg",
        "abXc你def",
    ):
        made = rewritten(parts, text, tokenizer)
        assert "".join(part["content"] for part in made) == text
        assert all(tokenizer.decode(p["tokens"]) == p["content"] for p in made if "tokens" in p)
    assert rewritten(parts, "abc你def", tokenizer) == parts
    assert [p["role"] for p in rewritten(parts, "abc你X", tokenizer)] == ["text", "assistant", "text"]


def test_a_control_token_that_was_drawn_says_nothing_and_stays(tokenizer):
    tokens = [*tokenizer.encode("c"), 0, *tokenizer.encode("d")]
    part = {"role": "assistant", "content": tokenizer.decode(tokens), "tokens": tokens}
    (kept,) = rewritten([part], "cd", tokenizer)
    assert kept["tokens"] == tokens


def test_text_after_text_is_one_part():
    assert added([{"role": "text", "content": "a"}], "b") == [{"role": "text", "content": "ab"}]


def test_of_a_text_that_is_too_long_the_beginning_is_left_out(tokenizer):
    tokens = tokenizer.encode("lmnop")
    parts = [{"role": "text", "content": "abcdefghij"}, {"role": "assistant", "content": "lmnop", "tokens": tokens}]
    prompt, cut = fit(parts, None, tokenizer, 8)
    assert (tokenizer.decode(prompt.tokens), cut.messages, cut.tokens) == ("hijlmnop", 0, 7)
    assert [span.role for span in prompt.spans] == ["text"]


def test_a_chat_model_writes_texts_too_and_the_conversation_stays_behind_as_a_branch(engine):
    page = Page(engine)
    page.act("send", text="hello")
    assert page.call("set_mode", raw=True) == {"raw": True}
    assert page.text()[-2] == "hello"
    page.act("send", text="Once upon")
    assert [m["role"] for m in engine.messages(page.session)] == ["text", "assistant"]
    assert page.server.branches(page.entry)["raw"] is True
    back = page.call("switch_branch", branch=0)
    assert back["raw"] is False
    assert page.call("switch_branch", branch=1)["raw"] is True
    page.call("set_mode", raw=False)
    page.act("send", text="hello again")
    assert page.text()[-2] == "hello again"
    assert page.call("new_chat")["raw"] is False


def test_a_saved_text_opens_as_a_text(engine):
    page, other = Page(engine), Page(engine)
    page.call("set_mode", raw=True)
    page.act("send", text="Once upon")
    record = page.call("save")["record"]
    assert other.call("open", record=record)["raw"] is True
    other.act("send", text=" more")
    assert [m["role"] for m in engine.messages(other.session)] == ["text", "assistant", "text", "assistant"]


def test_several_replies_go_on_with_one_text(page):
    reply = page.act("samples", text="Once upon", n=2)
    assert len(reply["samples"]) == 2
    page.call("pick_sample", k=1)
    assert said(page).startswith("Once upon")
