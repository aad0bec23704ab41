"""The page with the real default model in headless Chromium. A console error, or a request to another host, fails."""

import os
import re
import shutil
import socket

os.environ.setdefault("GRADIO_HEARTBEAT_INTERVAL", "1")
os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
Page = sync_api.Page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
LOCAL = re.compile(r"(https?://(127\.0\.0\.1|localhost)[:/])|(?!http)")
GRACE = 20.0  # seconds that a session outlives its page here


def pytest_collection_modifyitems(items):
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def address():
    """The running program, with the default model."""
    from demo.layout import build_demo, launch
    from gpt import load

    demo = build_demo(load(), grace=GRACE)
    yield launch(demo, "127.0.0.1", free_port())
    demo.close()


@pytest.fixture(scope="session")
def browser():
    if not CHROMIUM:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Opens a page in a browser context of its own, and at the end sees that nothing went wrong in any."""
    opened, problems = [], []

    def opener(fresh: bool = True, **options) -> "Glassbox":
        context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce", **options)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("request", lambda request: LOCAL.match(request.url) or problems.append(request.url))
        page.set_default_timeout(30_000)
        opened.append(context)
        return Glassbox(page, address, fresh)

    yield opener
    for context in opened:
        context.close()
    assert not problems


@pytest.fixture
def glassbox(open_page):
    return open_page()


@pytest.fixture
def answered(glassbox):
    """A page with one short message and its reply."""
    glassbox.settings(max_new_tokens=12, temperature=0)
    glassbox.say("Hello there. Hello again.")
    return glassbox


class Glassbox:
    """One open page, by the hooks that the page keeps stable. `fresh`: without the recorded conversation."""

    def __init__(self, page: Page, address: str, fresh: bool = True) -> None:
        self.page, self.address = page, address
        self.log = page.locator("#transcript")
        self.page.goto(self.address)
        self.ready()
        if fresh:
            self.page.evaluate("() => window.glassbox.store.example && window.glassbox.actions.newChat()")
            self.wait("s.tokens.length === 0")

    def reload(self) -> None:
        self.page.reload()
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_function("() => !!(window.glassbox && window.glassbox.state.sid)")
        for hook in ("#transcript", "#message", "#send", "#temperature input[type=range]", "#heatmap", "#head-grid"):
            self.page.locator(hook).first.wait_for(state="attached")

    # -- reading

    def state(self, field: str):
        return self.page.evaluate("(field) => window.glassbox.state[field]", field)

    def reply(self) -> list[dict]:
        """The sampled tokens, each with the parameters that made it."""
        return [t for t in self.state("tokens") if "lp" in t]

    def wait(self, condition: str, arg=None) -> None:
        self.page.wait_for_function(f"(arg) => {{ const s = window.glassbox.store; return !!({condition}) }}", arg=arg)

    def wait_tokens(self, n: int) -> None:
        """Until n tokens of replies are shown."""
        self.wait("s.tokens.filter((t) => t.lp != null).length >= arg", n)

    def wait_idle(self) -> None:
        self.page.locator("#transcript[data-state=idle]").wait_for(timeout=60_000)
        self.wait("!s.streaming")

    # -- acting

    def settings(self, **params) -> None:
        """Set parameters without the controls, for what is not under test."""
        self.page.evaluate("(patch) => window.glassbox.actions.setParams(patch)", params)
        self.wait("Object.entries(arg).every(([k, v]) => s.params[k] === v)", params)

    def slide(self, name: str, value: float) -> None:
        self.page.locator(f"#{name} input[type=range]").evaluate(
            "(range, value) => { range.value = value; range.dispatchEvent(new Event('input', {bubbles: true})) }", value
        )

    def send(self, text: str) -> None:
        self.page.locator("#message").fill(text)
        self.page.locator("#send").click()
        self.wait("s.streaming || s.tokens.some((t) => t.lp != null)")

    def say(self, text: str) -> None:
        """Send, and wait for the whole reply."""
        turns = self.turns()
        self.send(text)
        self.wait("new Set(s.tokens.filter((t) => t.role === 'user').map((t) => t.m)).size > arg", turns)
        self.wait_idle()

    def fork(self, number: int) -> None:
        """Put the likeliest other token in place of one of the reply's, and wait for what follows."""
        token = self.reply()[number]
        other = next(c[0] for c in token["cand"] if c[0] != token["id"])
        run = self.state("run")
        self.page.evaluate("([i, id]) => window.glassbox.actions.fork(i, id)", [token["i"], other])
        self.wait("s.run > arg", run)
        self.wait_idle()

    def turns(self) -> int:
        return len({t["m"] for t in self.state("tokens") if t["role"] == "user"})
