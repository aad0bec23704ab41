"""A page without a browser, for tests of what the server functions and the stream tell it."""

import json

from demo.example import Example
from demo.layout import PANELS
from demo.models import Models
from demo.rpc import Server
from demo.running import Running
from demo.store import SessionStore
from demo.stream import run
from gpt.params import SamplingParams

WARM = SamplingParams(temperature=1.0, max_new_tokens=12)
NO_END = (((1,), -100.0),)  # a logit_bias under which no reply ends before its length


class OneModel(SessionStore):
    """A store in which sessions are of one model unless another is named, and begin as a test says."""

    def __init__(self, running, make=None, **options):
        super().__init__(**options)
        self.model, self.make = running, make or running.session

    def create(self, owner, running=None, session=None):
        mine = running in (None, self.model) and session is None
        return super().create(owner, running or self.model, self.make() if mine else session)


class Page:
    """A page without a browser: calls functions by name, keeps the tokens as the page's store does."""

    def __init__(self, engine, source=None, grace=60.0, policy="fixed", load=None):
        self.engine, self.source = engine, source or engine
        running = Running(engine, source, params=WARM)
        self.store = OneModel(running, lambda: self.source.session(params=WARM), grace=grace)
        self.models = Models(running, self.store, policy, load)
        self.store.dropped = self.models.tidy
        self.server = Server(self.models, self.store, Example())
        parts = (self.server, *(panel(self.server) for panel in PANELS))
        self.functions = {f.__name__: f for part in parts for f in part.functions()}
        self.tokens, self.samples = [], {}
        greeting = self.server.hello({"owner": "tab"})
        self.sid = greeting["sid"]
        self.take(greeting["message"])

    @property
    def entry(self):
        return self.store.get(self.sid)

    @property
    def session(self):
        return self.entry.session

    def take(self, message):
        if message["from"] > len(self.tokens):  # some were missed: a page pulls them
            message = self.functions["tokens"]({"sid": self.sid, "from": len(self.tokens)})
        del self.tokens[message["from"] :]
        self.tokens += message["toks"]
        for sample in message.get("samples", ()):
            mine = self.samples.setdefault(sample["k"], [])
            mine += sample["toks"]
            assert [t["i"] for t in mine] == list(range(message["n"], sample["n"]))
        assert [t["i"] for t in self.tokens] == list(range(message["n"]))

    def call(self, name, /, **args):
        reply = self.functions[name]({"sid": self.sid, **args})
        json.dumps(reply, allow_nan=False)
        if "message" in reply:
            self.take(reply["message"])
        return reply

    def act(self, name, /, limit=None, **args):
        """Call, then stream as the page would; returns the answer."""
        reply = self.call(name, **args)
        assert "error" not in reply, reply
        self.samples = {}
        for text in run(self.entry, reply["run"], limit):
            self.take(json.loads(text))
        return reply

    def text(self):
        return [m["content"] for m in self.engine.messages(self.session)]
