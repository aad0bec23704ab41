"""The page: five widgets, one event that streams, the endpoints, and the settings it is launched with."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from demo import api, stream
from demo.example import Example
from demo.i18n import STRINGS
from demo.live import Remote, gpu_decorator
from demo.memory import share_arenas
from demo.models import Models, policy_of
from demo.panels.attention import Attention
from demo.panels.branches import Branches
from demo.panels.chat import Chat
from demo.panels.choice import Choices
from demo.panels.export import Export
from demo.panels.models import Picker
from demo.panels.samples import Sampler
from demo.panels.sampling import Sampling
from demo.rpc import Server
from demo.running import Running, Wish
from demo.store import SessionStore
from demo.widgets import FAVICON, page_head, widget
from gpt.engine import Engine

__all__ = ["PANELS", "Wish", "build_demo", "launch", "policy_of", "share_arenas"]

PANELS = (Chat, Attention, Sampling, Choices, Branches, Sampler, Export, Picker)  # those with server functions

PLACES = 8  # replies that may stream at the same time; the next ones wait
WAITING = 32  # events that may wait
SESSIONS = 200  # pages whose component state Gradio keeps


def build_demo(engine: Engine, grace: float = 60.0, wish: Wish | None = None, policy: str = "fixed") -> gr.Blocks:
    """The whole page, ready to be opened with `launch`. It begins with one engine, loaded as `wish` says.

    grace: seconds that a session survives its tab, so that a page that is loaded again finds it. policy: which other
    models may be picked on the page (demo/models.py); none where the engine computes in another process.
    """
    decorator = gpu_decorator()
    running = Running(engine, Remote(engine, decorator) if decorator else None, wish)
    store = SessionStore(grace=grace)
    models = Models(running, store, "fixed" if decorator else policy)
    store.dropped = models.tidy
    server = Server(models, store, Example())
    functions = [f for part in (server, *(panel(server) for panel in PANELS)) for f in part.functions()]

    def run(event: gr.EventData) -> Iterator[str]:
        yield from stream.run_requested(store, event._data)

    def leave(request: gr.Request) -> None:
        store.leave(request.session_hash)

    with gr.Blocks(title="Glassbox", fill_width=True, analytics_enabled=False) as demo:
        with gr.Column(elem_id="glassbox"):
            widget("bar")
            chat = widget("chat", functions, event="run")
            for name in ("attention", "sampling", "timeline"):
                widget(name)
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        chat.run(run, None, chat, trigger_mode="multiple", concurrency_limit=PLACES, **hidden)
        demo.unload(leave)
        api.add_endpoints(engine, running.source)
    return demo.queue(max_size=WAITING)


def launch(demo: gr.Blocks, host: str | None = None, port: int | None = None, share: bool = False) -> str:
    """Open the page and return its address, without waiting.

    Host and port default to GRADIO_SERVER_NAME and GRADIO_SERVER_PORT, then to this machine only and the first free
    port from 7860. Raises OSError when the port is in use or the host cannot be listened on.
    """
    try:
        _, local, public = demo.launch(
            server_name=host, server_port=port, share=share, prevent_thread_lock=True, **launch_kwargs()
        )
    except OSError as error:
        if port is None:
            raise
        raise OSError(f"port {port} is in use; choose another with --port, or leave it out") from error
    return public or local


def launch_kwargs() -> dict[str, Any]:
    """How the page looks to `Blocks.launch`, for the program and the tests alike."""
    return {
        "head": page_head(STRINGS),
        "favicon_path": str(FAVICON),
        "footer_links": [],
        "quiet": True,
        "ssr_mode": False,
        "run_history": False,
        "pwa": False,
        "enable_monitoring": False,
        "state_session_capacity": SESSIONS,
    }
