"""The tree of branches: going there, naming, deleting with a way back, comparing two, a conversation as a file."""

import json

import pytest

from tests.browser.conftest import Glassbox


@pytest.fixture
def forked(glassbox: Glassbox) -> Glassbox:
    """A reply of 8 tokens, and a second branch that leaves it at its fourth token."""
    glassbox.settings(max_new_tokens=8, temperature=0)
    glassbox.say("Name a colour.")
    glassbox.fork(3)
    glassbox.wait("s.branches.length === 2")
    return glassbox


def names(glassbox: Glassbox) -> list[str]:
    return glassbox.page.locator("#branch-panel .branch b.name").all_inner_texts()


def test_the_tree_tells_where_each_branch_left_and_goes_there(forked: Glassbox):
    forked.page.locator("#branches-open").click()
    panel = forked.page.locator("#branch-panel")
    first, second = forked.state("branches")
    assert names(forked) == ["Branch 1", "Branch 2"]
    row = panel.locator(f'[data-branch="{second["id"]}"]')
    shown = row.inner_text()
    assert f"at {second['fork']}" in shown
    assert f"{len(forked.reply())} tokens" in shown
    assert f"seed {second['seed']}" in shown
    assert row.locator("[aria-current=true]").count() == 1
    panel.locator(f'[data-go="{first["id"]}"]').click()
    forked.wait("s.branch === arg", first["id"])
    assert panel.locator(f'[data-go="{first["id"]}"][aria-current=true]').count() == 1
    forked.page.keyboard.press("Escape")
    assert panel.count() == 0


def test_a_branch_is_renamed_by_keyboard_and_the_name_outlives_a_reload(forked: Glassbox):
    page = forked.page
    page.locator("#transcript").focus()
    page.keyboard.press("b")
    page.keyboard.press("F2")
    page.keyboard.type("A better colour")
    page.keyboard.press("Enter")
    forked.wait("s.branches.some((b) => b.name === arg)", "A better colour")
    assert names(forked) == ["Branch 1", "A better colour"]
    page.keyboard.press("F2")
    page.keyboard.type("never mind")
    page.keyboard.press("Escape")
    assert names(forked) == ["Branch 1", "A better colour"]
    forked.reload()
    assert [b["name"] for b in forked.state("branches")] == ["", "A better colour"]


def test_a_deleted_branch_can_be_taken_back_for_a_moment(forked: Glassbox):
    page = forked.page
    page.locator("#branches-open").click()
    page.locator('#branch-panel [data-go="0"]').focus()
    page.keyboard.press("Delete")
    page.locator("#branch-panel .leaving").wait_for()
    page.locator("#branch-panel .leaving button").click()
    assert names(forked) == ["Branch 1", "Branch 2"]
    current = forked.state("branch")
    page.locator(f'#branch-panel [data-go="{current}"]').focus()
    page.keyboard.press("Delete")
    forked.wait("s.branch !== arg", current)  # the shown one goes: its parent is shown
    page.wait_for_function("() => window.glassbox.store.branches.length === 1", polling=500)
    assert forked.state("branch") == 0
    assert len(forked.reply()) == 8


def test_two_branches_side_by_side_mark_the_first_token_that_differs(forked: Glassbox):
    page = forked.page
    page.locator("#transcript").focus()
    page.keyboard.press("c")
    view = page.locator("#compare")
    view.wait_for()
    fork = forked.state("branches")[1]["fork"]
    marked = view.locator(".t.first")
    assert [int(marked.nth(i).get_attribute("data-at")) for i in range(2)] == [fork, fork]
    assert marked.nth(0).inner_text() != marked.nth(1).inner_text()
    before = forked.state("tokens")
    assert view.locator(".t.same").count() == 6  # what the reply shares, in both columns
    view.locator(".fold").first.click()
    assert view.locator(".t.same").count() > 6
    page.keyboard.press("Escape")
    assert view.count() == 0
    assert forked.state("tokens") == before  # looking switched nothing


def test_the_comparison_tells_a_tokens_numbers_by_keyboard_and_goes_on_with_one(forked: Glassbox):
    page = forked.page
    page.evaluate("() => window.glassbox.compare(1, 0)")
    page.locator("#compare .t.first:focus").wait_for()
    toks = page.evaluate("() => window.glassbox.rpc('branch_tokens', {branch: 0})")["toks"]
    token = toks[forked.state("branches")[1]["fork"] + 1]
    page.keyboard.press("ArrowRight")
    told = page.locator('#compare .col[data-side="b"] .read').inner_text()
    assert f"at {token['i']}:" in told
    assert f"rank {token['rank']}" in told
    assert f"seed {forked.state('branches')[0]['seed']}" in page.locator('#compare .col[data-side="b"]').inner_text()
    page.locator('#compare [data-pick="0"]').click()
    forked.wait("s.branch === 0")
    assert page.locator("#compare").count() == 0


def test_a_conversation_is_saved_and_opened_with_all_its_branches(forked: Glassbox, tmp_path):
    page = forked.page
    before, branches = forked.state("tokens"), forked.state("branches")
    page.locator("#share").click()
    with page.expect_download() as download:
        page.locator("#share-save").click()
    assert download.value.suggested_filename.endswith("name-a-colour.json")
    file = tmp_path / "saved.json"
    download.value.save_as(file)
    page.locator("#new-chat").click()
    forked.wait("s.tokens.length === 0")
    page.locator("#share").click()
    with page.expect_file_chooser() as chooser:
        page.locator("#share-open").click()
    chooser.value.set_files(file)
    forked.wait("s.tokens.length === arg", len(before))
    keep = ("id", "s", "lp", "u", "rank", "params")
    assert [[t.get(k) for k in keep] for t in forked.state("tokens")] == [[t.get(k) for k in keep] for t in before]
    assert [(b["id"], b["fork"]) for b in forked.state("branches")] == [(b["id"], b["fork"]) for b in branches]


def test_a_file_that_is_dropped_asks_before_it_replaces_and_says_what_is_wrong(forked: Glassbox):
    page = forked.page
    before = forked.state("tokens")
    drop = """(text) => {
      const data = new DataTransfer();
      data.items.add(new File([text], 'mine.json', {type: 'application/json'}));
      window.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    page.evaluate(drop, "not a record")
    page.locator(".notice.error").wait_for()
    assert "mine.json" in page.locator(".notice.error").inner_text()
    page.evaluate(drop, json.dumps({"glassbox": 0}))
    question = page.locator("dialog.question")
    question.wait_for()
    question.locator("button").first.click()
    assert forked.state("tokens") == before
    page.evaluate(drop, json.dumps({"glassbox": 0}))
    question.locator("button").nth(1).click()
    page.wait_for_function("() => document.querySelectorAll('.notice.error').length === 2", polling=500)
    assert forked.state("tokens") == before  # a record that is wrong changes nothing
