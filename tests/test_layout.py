"""The page as the server gives it, and what happens when a tab goes."""

import json
import socket
import sys
import time

import httpx
import pytest
from gradio_client import Client

from demo.layout import build_demo, launch
from demo.widgets import ASSETS, SCRIPTS, STYLES, page_head, widget
from gpt.params import SamplingParams
from tests.test_live import forked

FUNCTIONS = """
hello tokens send edit regenerate resume stop new_chat select overview tiles rows column grid set_params set_seed
resolve shape search fork samples pick_sample drop_samples switch_branch rename_branch delete_branch branch_tokens save
open export_shown export_all snippet set_mode picker estimate_model load_model load_state cancel_load use_model
"""


@pytest.fixture(scope="module")
def address(engine):
    demo = build_demo(engine, grace=1.0)
    yield launch(demo, "127.0.0.1", free_port())
    demo.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(address, tab, function, **args):
    """A server function of the chat widget, as the browser calls it."""
    config = httpx.get(f"{address}config").json()
    chat = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "chat")
    body = {"data": args, "component_id": chat, "fn_name": function, "session_hash": tab}
    return httpx.post(f"{address}gradio_api/component_server", json=body, timeout=20).json()


def test_the_page_holds_all_scripts_and_strings(address):
    html = httpx.get(address).text
    for name in SCRIPTS:
        assert f"sourceURL=glassbox/{name}.js" in html
    assert "window.GLASSBOX_STRINGS = {" in html


def test_every_asset_is_on_the_page_exactly_once():
    assert sorted(SCRIPTS) == sorted(p.stem for p in (ASSETS / "js").glob("*.js"))
    assert sorted(STYLES) == sorted(p.stem for p in (ASSETS / "css").glob("*.css"))


def test_strings_cannot_close_the_script_that_holds_them():
    head = page_head({"en": {"x": "</script><img src=x onerror=alert(1)>"}})
    assert "</script><img" not in head
    assert "\\u003c/script>" in head


def test_a_widget_has_a_constant_template_and_no_value():
    made = widget("chat", event="run")
    assert made.html_template == '<div class="gb-root"></div>'
    assert made.value is None
    assert made.js_on_load == "glassbox.mount('chat', element, {props, server, trigger, watch}, 'run')"


def test_the_five_widgets_stand_on_the_page_and_only_the_chat_has_functions(address):
    config = httpx.get(f"{address}config").json()
    functions = {
        c["props"]["elem_id"]: c["props"].get("server_fns", []) for c in config["components"] if c["type"] == "html"
    }
    assert list(functions) == ["bar", "chat", "attention", "sampling", "timeline"]
    assert {name for name, fns in functions.items() if fns} == {"chat"}
    assert set(functions["chat"]) == set(FUNCTIONS.split())


def test_the_icon_is_ours(address):
    icon = httpx.get(f"{address}favicon.ico")
    assert icon.headers["content-type"].startswith("image/svg+xml")
    assert icon.text.startswith("<svg")


def test_closing_a_tab_frees_its_session(address):
    sid = call(address, "tab1", "hello")["sid"]
    with httpx.stream("GET", f"{address}gradio_api/heartbeat/tab1", timeout=20) as heartbeat:
        lines = heartbeat.iter_lines()  # kept, because the stream is closed with it
        next(lines)
        assert "error" not in call(address, "tab1", "tokens", sid=sid)
    for _ in range(200):
        if call(address, "tab1", "tokens", sid=sid).get("code") == "gone":
            return
        time.sleep(0.1)
    raise AssertionError("the session is still there")


def test_a_reload_within_the_grace_period_keeps_the_session(address):
    sid = call(address, "tab2", "hello")["sid"]
    with httpx.stream("GET", f"{address}gradio_api/heartbeat/tab2", timeout=20) as heartbeat:
        next(heartbeat.iter_lines())
    assert call(address, "tab3", "hello", sid=sid, adopt=True)["sid"] == sid
    time.sleep(1.5)
    assert "error" not in call(address, "tab3", "tokens", sid=sid)


def test_another_tab_cannot_take_a_session_without_its_sid(address):
    first, second = call(address, "a", "hello"), call(address, "b", "hello")
    assert first["sid"] != second["sid"]
    assert len(first["sid"]) >= 20


def test_what_a_server_function_refuses_reaches_the_caller(address):
    sid = call(address, "tab4", "hello")["sid"]
    assert call(address, "tab4", "send", sid=sid, text="")["code"] == "invalid"
    assert call(address, "tab4", "hello", sid=5, adopt="yes")["sid"]


def test_a_port_in_use_is_said(engine):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} is in use"):
            launch(build_demo(engine), "127.0.0.1", port)


def test_the_event_that_streams_is_private(address):
    info = httpx.get(f"{address}gradio_api/info").json()
    assert set(info["named_endpoints"]) == {
        "/chat", "/tokens", "/attention", "/heads", "/attention_file", "/distribution"
    }  # fmt: skip
    assert json.dumps(info).count("run") < 3


@pytest.mark.skipif(sys.platform != "linux", reason="ZeroGPU forks, on Linux only")
def test_on_zerogpu_everything_runs_through_the_worker(engine, monkeypatch):
    monkeypatch.setattr("demo.layout.gpu_decorator", lambda: forked())
    demo = build_demo(engine, policy="any")
    address = launch(demo, "127.0.0.1", free_port())
    client = Client(address, verbose=False)
    here = "".join(
        e.text for e in engine.stream(engine.session("hello", SamplingParams(temperature=0, max_new_tokens=9)))
    )
    assert client.predict("hello", temperature=0, max_new_tokens=9, api_name="/chat") == here
    assert len(client.predict(0, 0, text="hello", api_name="/attention")["weights"]) == 5
    sid = call(address, "tab", "hello")["sid"]
    assert call(address, "tab", "send", sid=sid, text="hello")["message"]["n"] > 5
    assert call(address, "tab", "picker", sid=sid)["policy"] == "fixed"  # the worker has this model and no other
    reply = client.predict(text="hello", temperature=0, api_name="/distribution")
    assert reply["drawn"] == reply["candidates"][0]["token"]
    demo.close()
