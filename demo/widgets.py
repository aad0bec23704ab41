"""Factories of the page's gr.HTML widgets, and the head that carries our scripts and styles.

A widget's template is a constant: Gradio never touches its DOM again, no text of a model or a person ever
meets a template, and all drawing is done by assets/js. Factories and not subclasses, because Gradio writes a
.pyi file beside every subclass.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr

__all__ = ["FAVICON", "page_head", "widget"]

ASSETS = Path(__file__).resolve().parent.parent / "assets"
FAVICON = ASSETS / "favicon.svg"
SCRIPTS = (  # each may use those before it while it loads
    *("quiet", "store", "parameters", "settings", "prefs", "dom", "pace", "wire", "address", "actions"),
    *("layer", "menu", "popover"),
    *("token-span", "stats", "tree", "files", "share", "system-line", "keys"),
    *("models", "picker-list", "picker-foot", "picker", "bar"),
    *("frame", "ink", "samples", "samples-view", "mode", "composer", "branches", "branch-panel", "compare", "welcome"),
    *("editor", "transcript", "chat", "replay", "timeline-plot", "timeline"),
    *("looks", "pattern", "patterns", "rows", "picture", "heatmap", "overlay", "gestures", "readout", "words"),
    *("text-view", "lines", "shade", "grid-feed", "grid", "attention-nodes", "attention-head", "attention-controls"),
    *("svg-surface", "figure", "export", "attention", "sight-address"),
    *("scale", "field", "slider", "pieces", "strings", "bias", "grammar", "order", "seed", "presets", "group"),
    *("draw", "distribution", "waterfall", "pick", "reshape", "sight", "switches", "choice", "sampling"),
)
STYLES = (
    "theme",
    "frame",
    "chat",
    "branches",
    "samples",
    "timeline",
    "attention",
    "sampling",
    "controls",
    "choice",
    "waterfall",
    "picker",
)


def widget(name: str, functions: Sequence[Callable] = (), event: str = "") -> gr.HTML:
    """The widget that assets/js registers as `glassbox.widgets.<name>`.

    functions: what its script may call as `api.server.<function>`. event: the name of a Gradio event that it
    may trigger (Gradio accepts an event's name only where it stands quoted in js_on_load).
    """
    named = f", {event!r}" if event else ""
    return gr.HTML(
        html_template='<div class="gb-root"></div>',
        js_on_load=f"glassbox.mount({name!r}, element, {{props, server, trigger, watch}}{named})",
        apply_default_css=False,
        padding=False,
        elem_id=name,
        server_functions=list(functions),
    )


def page_head(strings: dict) -> str:
    """What goes into <head>: one style sheet, the strings, then the scripts in the order in which they need
    each other.

    The styles do not go through launch(css=), which keeps rules inside @media only for elements inside
    Gradio's container.
    """
    styles = "\n".join(_asset("css", name) for name in STYLES)
    scripts = [f"<script>{_asset('js', name)}\n//# sourceURL=glassbox/{name}.js\n</script>" for name in SCRIPTS]
    return "\n".join((f"<style>{styles}</style>", _data("GLASSBOX_STRINGS", strings), *scripts))


def _data(name: str, value: object) -> str:
    """A script that sets window.<name>; `<` is escaped so that no string can close it."""
    text = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
    return f"<script>window.{name} = {text};</script>"


def _asset(kind: str, name: str) -> str:
    return (ASSETS / kind / f"{name}.{kind}").read_text("utf-8")
