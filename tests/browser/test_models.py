"""The model picker and completion mode, with tiny models: a folder is picked, loads, and the whole page is its own."""

import json
import re
import threading
from contextlib import contextmanager
from functools import partial

import pytest

from demo.models import Models
from demo.running import Wish
from gpt import load
from tests.browser.conftest import GRACE, Glassbox, free_port
from tests.conftest import CHATML, SPECIALS, byte_fields


def short(glassbox):
    """Replies of eight tokens: none ends before."""
    glassbox.page.evaluate("() => window.glassbox.actions.setParams({logit_bias: [[[1], -100]]})")
    glassbox.settings(max_new_tokens=8, temperature=0)


def write_folder(folder, chat):
    """A random GPT-2 with a token for each byte, in Hugging Face layout."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    shape = GPT2Config(vocab_size=258, n_positions=256, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1)
    GPT2LMHeadModel(shape).save_pretrained(folder)
    vocab = {token: i for i, token in enumerate(byte_fields()["tokenizer.ggml.tokens"])}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(SPECIALS)
    made.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "GPT2Tokenizer", "bos_token": SPECIALS[0], "eos_token": SPECIALS[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | ({"chat_template": CHATML} if chat else {})))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """name -> a folder: a chat model, a base model, and one that holds no model."""
    place = tmp_path_factory.mktemp("models")
    for name in ("talker", "writer", "broken"):
        (place / name).mkdir()
    write_folder(place / "talker", chat=True)
    write_folder(place / "writer", chat=False)
    (place / "broken" / "config.json").write_text('{"model_type": "abacus"}')
    return {name: str(place / name) for name in ("talker", "writer", "broken")}


class Held:
    """`gpt.load`, which stops half way while it is held."""

    def __init__(self):
        self.go = threading.Event()
        self.go.set()

    def __call__(self, name, device, dtype, progress, query_bytes, revision):
        progress("read", 4_000_000, 10_000_000)
        while not self.go.wait(0.02):
            progress("read", 4_000_000, 10_000_000)
        return load(name, device, dtype, progress, query_bytes, revision)


@pytest.fixture(scope="module")
def held():
    return Held()


@contextmanager
def served(engine, held, policy):
    from demo import layout

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "Models", partial(Models, load=held))
        demo = layout.build_demo(engine, grace=GRACE, wish=Wish("tiny"), policy=policy)
    yield layout.launch(demo, "127.0.0.1", free_port())
    demo.close()


@pytest.fixture(scope="module")
def address(engine, held):
    """The running program with a tiny model, for this machine's own user."""
    with served(engine, held, "any") as address:
        yield address


@pytest.fixture
def page(glassbox, held):
    held.go.set()
    short(glassbox)
    yield glassbox
    held.go.set()


def choose(glassbox, folder):
    """Open the picker and name a model; its button Load can be pressed then."""
    glassbox.page.locator("#model").click()
    glassbox.page.locator("#picker-name").fill(folder)
    glassbox.page.locator("#picker-load").wait_for()


def switch(glassbox, folder, carry=False):
    """All of it, up to the page of the new model."""
    choose(glassbox, folder)
    glassbox.page.locator("#picker-load").click()
    if glassbox.state("tokens"):
        glassbox.page.locator(f"#picker input[value={'carry' if carry else 'fresh'}]").check()
        glassbox.page.locator("#picker-switch").click()
    runs(glassbox, folder.rpartition("/")[2])


def runs(glassbox, name):
    glassbox.page.wait_for_function(
        "(name) => !!(window.glassbox && window.glassbox.store.model && window.glassbox.store.model.name === name)",
        arg=name,
    )
    glassbox.ready()


def text(glassbox):
    return "".join(t["s"] for t in glassbox.state("tokens") if not t.get("sp") and t["role"] != "template")


# ---- going over ------------------------------------------------------------------------------------------------------


def test_a_folder_is_loaded_beside_the_old_model_and_the_page_becomes_its_own(page, held, folders):
    page.say("Hello")
    page.page.evaluate("() => window.glassbox.select({layer: 2, head: 3})")
    choose(page, folders["talker"])
    facts = page.page.locator("#picker dl.facts").inner_text()
    assert "nothing, it is here" in facts
    assert "MB of" in facts
    assert "GB free" in facts
    held.go.clear()
    page.page.locator("#picker-load").click()
    bar = page.page.locator("#picker [role=progressbar]")
    bar.wait_for()
    page.page.wait_for_function("() => document.querySelector('#picker [role=progressbar]').ariaValueNow === '40'")
    assert "4 MB of 10 MB" in page.page.locator("#picker .progress").inner_text()
    page.page.keyboard.press("Escape")
    assert "40 %" in page.page.locator("#model").inner_text()
    page.say("Are you still there?")

    page.reload()  # shows the running load again
    page.page.locator("#model .busy").wait_for()
    page.page.locator("#model").click()
    page.page.locator("#picker-cancel").wait_for()
    page.page.keyboard.press("Escape")
    held.go.set()
    page.page.locator(".notice button", has_text="Switch").click()
    page.page.locator("#picker input[value=carry]").check()
    page.page.locator("#picker-switch").click()
    runs(page, "talker")

    assert page.state("model")["n_layer"] == 2
    assert (page.state("selection")["layer"], page.state("selection")["head"]) < (2, 2)
    assert page.turns() == 2
    assert page.reply() == []
    assert "talker" in page.page.locator("#model").inner_text()
    short(page)
    page.page.locator("#regenerate").click()
    page.wait_tokens(8)
    page.wait_idle()
    page.page.wait_for_function("() => Number(document.querySelector('#heatmap').dataset.rows) > 0")
    assert page.page.locator("#head-grid").get_attribute("data-layer") in ("0", "1")


def test_there_and_back_again_is_not_loaded_twice(page, folders):
    switch(page, folders["talker"])
    page.page.locator("#model").click()
    page.page.locator("#picker .model[data-name=tiny]").click()
    page.page.locator("#picker-load").wait_for()
    assert "loaded already" in page.page.locator("#picker .foot").inner_text()
    page.page.locator("#picker-load").click()
    runs(page, "tiny")
    short(page)
    page.say("Hello")
    assert len(page.reply()) == 8


def test_with_nothing_to_lose_the_page_goes_over_at_once(page, folders):
    switch(page, folders["talker"])
    assert page.state("tokens") == []
    assert page.page.evaluate("() => document.activeElement.id") == "model"


def test_another_tab_keeps_its_model(open_page, page, folders):
    other = open_page()
    switch(page, folders["talker"])
    short(other)
    other.say("Hello")
    assert other.state("model")["name"] == "tiny"
    assert page.state("model")["name"] == "talker"


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_failure_is_one_sentence_and_the_old_model_goes_on(page, folders):
    page.page.locator("#model").click()
    for name in (folders["broken"], folders["broken"] + "/nothing"):
        page.page.locator("#picker-name").fill(name)
        page.page.locator("#picker-load, #picker .problem").first.wait_for()
        if page.page.locator("#picker-load").count():  # only loading finds out
            page.page.locator("#picker-load").click()
        problem = page.page.locator("#picker .problem[role=alert]")
        problem.wait_for()
        assert len(problem.inner_text().splitlines()) == 1
    page.page.keyboard.press("Escape")
    page.say("Hello")
    assert page.state("model")["name"] == "tiny"


def test_cancelling_leaves_everything_as_it_was(page, held, folders):
    page.say("Hello")
    held.go.clear()
    choose(page, folders["writer"])
    page.page.locator("#picker-load").click()
    page.page.locator("#picker-cancel").click()
    page.wait("s.load === null")
    page.page.locator("#picker-load").wait_for()
    assert page.state("model")["name"] == "tiny"
    assert len(page.reply()) == 8


def test_the_model_can_be_kept_after_it_was_loaded(page, folders):
    page.say("Hello")
    choose(page, folders["talker"])
    page.page.locator("#picker-load").click()
    with page.page.expect_download() as saved:
        page.page.locator("#picker-save").click()
    assert saved.value.suggested_filename.endswith(".json")
    page.page.locator("#picker-keep").click()
    page.wait("s.load === null")
    assert (page.state("model")["name"], page.turns()) == ("tiny", 1)


def test_a_page_that_others_can_reach_says_that_its_model_is_fixed(engine, held, browser):
    with served(engine, held, "fixed") as address:
        context = browser.new_context()
        page = Glassbox(context.new_page(), address)
        page.page.locator("#model").click()
        page.page.locator("#picker .fixed").wait_for()
        assert "--models" in page.page.locator("#picker .fixed").inner_text()
        assert page.page.locator("#picker-name").count() == 0
        context.close()


# ---- how it is reached -----------------------------------------------------------------------------------------------


def test_the_keyboard_is_enough(page):
    page.page.locator("#model").focus()
    page.page.keyboard.press("Enter")
    row = page.page.locator("#picker .model").first
    row.wait_for()
    page.page.wait_for_function("() => document.activeElement.getAttribute('role') === 'radio'")
    page.page.keyboard.press("ArrowUp")
    assert page.page.locator("#picker .model").last.get_attribute("aria-checked") == "true"
    page.page.locator("#picker-load, #picker .problem").first.wait_for()
    page.page.keyboard.press("Escape")
    assert page.page.locator("#picker").count() == 0
    assert page.page.evaluate("() => document.activeElement.id") == "model"


def test_it_speaks_chinese(page):
    page.page.locator("#lang button[data-lang=zh]").click()
    page.page.locator("#model").click()
    listed = page.page.locator("#picker .model[data-name=smollm2-135m-instruct]")
    listed.wait_for()
    assert page.page.locator("#picker").get_attribute("aria-label") == "模型"
    assert re.search("[\u4e00-\u9fff]{4}", listed.inner_text())
    assert "模型：tiny" in page.page.locator("#model").get_attribute("aria-label")
    assert page.page.locator("#mode").inner_text().split() == ["对话", "续写"]


def test_on_a_phone_it_fills_the_screen(page):
    page.page.set_viewport_size({"width": 390, "height": 844})
    page.page.locator("#model").click()
    page.page.locator("#picker .model").first.wait_for()
    assert page.page.locator("#picker").bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 844}
    page.page.locator("#picker-close").click()
    assert page.page.locator("#picker").count() == 0


# ---- completion mode -------------------------------------------------------------------------------------------------


def test_a_base_model_says_what_it_is_and_goes_on_with_a_text_in_place(page, folders):
    switch(page, folders["writer"])
    short(page)
    assert "base model" in page.page.locator(".welcome").inner_text()
    assert "Base model" in page.page.locator("#mode").inner_text()
    page.send("Once upon")
    page.wait_idle()
    first = text(page)
    assert first.startswith("Once upon")
    assert page.page.locator(".msg").count() == 1
    page.send(" and then")
    page.wait_tokens(16)
    page.wait_idle()
    assert text(page).startswith(first + " and then")
    assert page.page.locator(".msg.text").count() == 1
    page.page.locator(".msg.text").hover()
    page.page.locator(".msg.text .who .icon").click()
    box = page.page.locator(".editor textarea")
    assert box.input_value() == text(page)
    run = page.state("run")
    box.fill("Once upon a")
    box.press("Enter")
    page.wait("s.run > arg", run)
    page.wait_idle()
    assert text(page).startswith("Once upon a")
    assert len(page.reply()) == 8


def test_a_chat_model_writes_on_when_it_is_asked_to_and_the_conversation_stays(page):
    page.say("Hello")
    page.page.locator("#mode [data-mode=raw]").click()
    page.wait("s.raw")
    page.send("Once upon")
    page.wait("s.tokens.some((t) => t.role === 'text')")
    page.wait_idle()
    assert page.page.locator(".msg:not([hidden])").count() == 1
    assert len(page.state("branches")) == 2
    page.reload()
    assert page.state("raw") is True
    page.page.locator("#message").press("Enter")  # nothing written: the model goes on
    page.wait_tokens(16)
    page.wait_idle()
    page.page.evaluate("() => window.glassbox.actions.switchBranch(0)")
    page.wait("!s.raw")
    assert page.page.locator("#mode [data-mode=chat]").get_attribute("aria-pressed") == "true"
