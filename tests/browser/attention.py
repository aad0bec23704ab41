"""What tests of the attention panel share: asking the server, looking at canvases and at the shaded text."""

import base64

import numpy as np

from tests.browser.conftest import Glassbox


def rows(glassbox: Glassbox) -> int:
    return int(glassbox.page.locator("#heatmap").get_attribute("data-rows") or 0)


def select(glassbox: Glassbox, layer: int, head: int) -> None:
    glassbox.page.evaluate("([layer, head]) => window.glassbox.select({layer, head})", [layer, head])
    glassbox.page.locator(f'#heatmap[data-layer="{layer}"][data-head="{head}"]').wait_for()


def rpc(glassbox: Glassbox, name: str, **args):
    return glassbox.page.evaluate("([name, args]) => window.glassbox.rpc(name, args)", [name, args])


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def pixel(glassbox: Glassbox, selector: str = "#heatmap") -> int:
    """How many points of a canvas are painted."""
    return glassbox.page.evaluate(
        """(selector) => {
            const canvas = document.querySelector(selector);
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            let painted = 0;
            for (let i = 3; i < data.length; i += 4) if (data[i]) painted++;
            return painted;
        }""",
        selector,
    )


def tinted(glassbox: Glassbox) -> dict[int, str]:
    """Position -> colour, of the tokens of the text view that are shaded."""
    found = glassbox.page.evaluate(
        """() => [...document.querySelectorAll('#attention-text .t')]
            .map((span) => [Number(span.dataset.at), span.lastChild.style.backgroundColor])"""
    )
    return {at: colour for at, colour in found if colour}


def show_text(glassbox: Glassbox, position: int) -> None:
    glassbox.page.evaluate("(position) => window.glassbox.select({position})", position)
    glassbox.page.locator("#look-view [data-choice=text]").click()
    glassbox.page.wait_for_function(
        "() => document.querySelectorAll('#attention-text .t').length === window.glassbox.store.tokens.length"
    )
    glassbox.page.wait_for_function(
        "() => [...document.querySelectorAll('#attention-text .t')].some((s) => s.lastChild.style.backgroundColor)"
    )
