"""What the server functions of all panels share: answering, greeting a page, changing history.

A server function takes one dict and answers with one; what a caller did wrong is answered as {"error", "code",
"field"}, because an exception would reach the page as nothing at all. What is invalid never ends the reply that is
being written. Nothing here samples a token.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from demo.args import MAX_SEED, Args, Invalid, Reply, whole
from demo.document import added
from demo.example import Example
from demo.models import Models
from demo.running import Running, fresh_seed
from demo.store import Busy, Entry, Gone, SessionStore
from demo.stream import snapshot
from demo.wire import short
from gpt.branch import Branch
from gpt.catalog import known
from gpt.chat import Message
from gpt.conversation import Cut, fit, is_document
from gpt.params import FILTERS, LIMITS, NEUTRAL, ORDER, PRESETS, SamplingParams
from gpt.session import Session

__all__ = ["Server", "answered"]

EXCERPT = 40  # characters that stand for a branch


def answered(function: Callable[[Args], Reply]) -> Callable[[Args], Reply]:
    """`function` under its own name, with what a caller did wrong turned into an answer."""

    def call(args: dict) -> dict:
        try:
            return function(args if isinstance(args, dict) else {})
        except Gone as error:
            return _refused(error, "gone")
        except Busy as error:
            return _refused(error, "busy")
        except Invalid as error:
            return _refused(error, "invalid", error.field)
        except (ValueError, IndexError) as error:
            return _refused(error, "invalid")
        except RuntimeError as error:  # out of memory, or no worker was to be had
            return _refused(error, "failed")

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return call


def _refused(error: Exception, code: str, field: str = "") -> Reply:
    return {"error": str(error), "code": code, "field": field}


# ---- the server --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """What server functions work on."""

    models: Models
    store: SessionStore
    example: Example

    def functions(self) -> list[Callable]:
        """`hello` and `tokens`. Only the body of the raw request tells which tab is calling."""

        async def hello(args: dict, request: gr.Request) -> dict:
            owner = (await request.json())["session_hash"]
            return await asyncio.to_thread(answered(self.hello), {**args, "owner": owner})

        return [hello, answered(self.tokens)]

    def entry(self, args: Args) -> Entry:
        """The session that the page holds. Raises Gone."""
        return self.store.get(args.get("sid"))

    def hello(self, args: Args) -> Reply:
        """Greet a page: with its own session when it was only loaded again, else with a fresh one."""
        owner = str(args["owner"])
        entry = self.store.adopt(args.get("sid"), owner) if args.get("adopt") is True else None
        known = entry is not None
        entry = entry or self._fresh(owner)
        entry.quiet()
        entry.keep_samples()
        entry.rest()
        return {
            "sid": entry.sid,
            "model": _model(entry.running),
            **_parameters(),
            "params": entry.session.params.as_dict(),
            "message": snapshot(entry),
            "example": entry.example,
            "load": self.models.of(entry.sid),
            **(
                {"selection": dict(zip(("layer", "head"), entry.watched.sight.heads[0], strict=True))}
                if known and entry.watched
                else {}
            ),
            **({"selection": self.example.selection(entry.engine)} if entry.example and not known else {}),
            **self.branches(entry),
        }

    def _fresh(self, owner: str) -> Entry:
        """A session for a page that has none: with the recorded conversation, if there is one for this model."""
        entry = self.store.create(owner, self.models.default)
        if self.example.known(entry.engine):
            entry.renew(self.example.open(entry.source, entry.session.params), None)
            entry.example = True
        return entry

    def tokens(self, args: Args) -> Reply:
        """Every token from `from` on, for a page that missed some."""
        entry = self.entry(args)
        return snapshot(entry, whole(args, "from", 0, len(entry.session.tokens), 0))

    def change(
        self, args: Args, how: Callable[[Entry], Cut | None], check: Callable[[Entry], object] = lambda entry: None
    ) -> Reply:
        """Change history by `how`, after what is streaming has ended.

        What is invalid must stop nothing, so `check` refuses it before the reply is interrupted. The answer holds the
        tokens that are new, and the run id under which the page may start the reply.
        """
        entry = self.entry(args)
        check(entry)
        run = entry.interrupt()
        entry.quiet()
        with entry.session.lock:
            before = entry.session.current.before(entry.shown)
            entry.samples = None
            cut = how(entry)
            entry.epoch += 1
            entry.example = False
        kept = min(_unchanged(before, entry.session.current), entry.shown)
        follows = entry.session.finish is None or entry.samples is not None
        message = snapshot(entry, kept, streaming=follows)
        reply = {"run": run, "message": message, **self.branches(entry)}
        return {**reply, "notice": _notice(cut), "cut": [cut.messages, cut.tokens]} if cut else reply

    def ask(self, entry: Entry, content: str, system: str | None, seed: int | None) -> Cut | None:
        """Add a person's message to the conversation, or begin one with it; `system` replaces the system prompt.

        In completion mode it is the start of a text, or is typed after the text that stands there.
        """
        if entry.example:  # what was recorded is not this person's conversation
            entry.renew(entry.source.session(params=entry.session.params, seed=fresh_seed()), None)
        messages = self.asked(entry, content, system)
        return entry.engine.extend(entry.session, messages, entry.session.seed if seed is None else seed)

    def asked(self, entry: Entry, content: str, system: str | None) -> list[Message]:
        """The conversation as `ask` makes it."""
        messages = [] if entry.example else entry.engine.messages(entry.session)
        if is_document(messages) != entry.raw:  # the other kind stays behind, as a branch
            messages = []
        if entry.raw:
            return added(messages, content)
        if prompt := system or (entry.system if not messages else None):
            messages = _with_system(messages, prompt)
        return [*messages, {"role": "user", "content": content}]

    def check_fits(self, entry: Entry, messages: list[Message]) -> None:
        """Raise ValueError for a conversation that the template refuses, or the context cannot hold."""
        room = entry.engine.config.block_size * 3 // 4  # at least so much is left for a prompt
        fit(messages, entry.engine.chat, entry.engine.tokenizer, room)

    def read(self, args: Args) -> Entry:
        """The session with every token read by the model; while a reply is written, what was read so far.

        Tokens are pending after a switch of branches, and in the conversation that a page opens with.
        """
        entry = self.entry(args)
        with entry.reading:
            session = entry.session
            pending = session.finish is not None and session.cache.length < len(session.tokens)
            if pending and entry.begin(session.run):  # else a reply is about to read them
                try:
                    entry.source.feed(session)
                finally:
                    entry.end()
        return entry

    def branch_session(self, entry: Entry, branch: object) -> Session:
        """The session, or an independent one that holds another of its branches, all of it read. Raises Invalid."""
        if branch is None or branch == entry.session.branch:
            return entry.session
        number = whole({"branch": branch}, "branch", 0, 2**31)
        with entry.reading:
            other = entry.beside(number)
            if other.cache.length < len(other.tokens):
                entry.source.feed(other)
            return other

    def branches(self, entry: Entry) -> Reply:
        """Every branch, which one is shown, its seed, and whether what is typed is the start of a text."""
        session = entry.session
        lines = [{"id": number, **self._line(entry, branch)} for number, branch in list(session.branches.items())]
        return {"branches": lines, "branch": session.branch, "seed": session.seed, "raw": entry.raw}

    def _line(self, entry: Entry, branch: Branch) -> Reply:
        reply = [record.logprob for record in branch.records[branch.reply_start :] if record is not None]
        return {
            "parent": branch.parent,
            "fork": branch.forked_at,
            "n": len(branch.tokens),
            "text": _excerpt(entry, branch),
            "name": branch.name,
            "seed": branch.seed,
            "finish": branch.finish,
            "reply": [branch.reply_start, len(branch.tokens)],
            "lp": short(sum(reply) / len(reply)) if reply else None,
        }


def _excerpt(entry: Entry, branch: Branch) -> str:
    """How a branch begins: where it left its parent, or with the first message."""
    start, end = branch.forked_at, None
    if not start:
        written = (span for span in branch.spans if span.role not in ("system", "template"))
        start, end = min(((span.start, span.end) for span in written), default=(0, None))
    return entry.engine.tokenizer.decode(branch.tokens[start:end][:EXCERPT])[:EXCERPT]


def _model(running: Running) -> Reply:
    """`system`: whether it takes a system prompt. `chinese`: whether the catalog knows that it speaks Chinese; null for
    a model that is not listed.
    """
    engine, name = running.engine, running.wish.name.lower() if running.wish else ""
    return {
        "name": engine.name,
        "device": str(engine.device),
        "dtype": engine.precision,
        "memory_bytes": engine.model.nbytes(),
        "chat": engine.chat is not None,
        "system": engine.chat is not None and engine.chat.takes_system,
        "chinese": next((entry.chinese for entry in known() if entry.name == name), None),
        **{n: getattr(engine.config, n) for n in ("n_layer", "n_head", "n_kv_head", "block_size", "vocab_size")},
    }


def _parameters() -> Reply:
    """What can be set, within which limits, and the filters it belongs to."""
    return {
        "defaults": SamplingParams().as_dict(),
        "limits": {**{name: list(bounds) for name, bounds in LIMITS.items()}, "seed": [0, MAX_SEED]},
        "presets": PRESETS,
        "neutral": {name: list(value) if isinstance(value, tuple) else value for name, value in NEUTRAL.items()},
        "filters": {name: list(parameters) for name, parameters in FILTERS.items()},
        "order": list(ORDER),
    }


def _with_system(messages: list[Message], content: str) -> list[Message]:
    rest = messages[1:] if messages and messages[0]["role"] == "system" else messages
    return [{"role": "system", "content": content}, *rest]


def _unchanged(before: Branch, after: Branch) -> int:
    """How many tokens the page keeps. Never the last one: an end token moves from the reply to the template."""
    pairs = zip(before.tokens, before.records, after.tokens, after.records, strict=False)
    same = [a == c and b is d for a, b, c, d in pairs]
    return min(same.index(False) if False in same else len(same), max(len(before.tokens) - 1, 0))


def _notice(cut: Cut) -> str:
    parts = []
    if cut.messages:
        parts.append("the oldest message was" if cut.messages == 1 else f"the {cut.messages} oldest messages were")
    if cut.tokens:
        parts.append(f"the first {cut.tokens} tokens of the newest message were")
    return f"This is longer than the model's context: {' and '.join(parts)} left out."
