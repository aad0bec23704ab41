"""The chat panel's server functions: everything that writes or rewrites the conversation, and what ends a reply."""

from collections.abc import Callable

from demo.args import Args, Invalid, Reply, seed_of, text, whole
from demo.document import rewritten
from demo.rpc import Server, answered
from demo.running import fresh_seed
from demo.store import Entry
from demo.stream import snapshot
from gpt.chat import Message
from gpt.conversation import Cut, is_document

__all__ = ["Chat"]


class Chat:
    """Conversations are messages to the page and tokens to the model; the session keeps the tokens only."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def functions(self) -> list[Callable]:
        methods = (self.send, self.edit, self.regenerate, self.resume, self.stop, self.new_chat, self.set_mode)
        return [answered(method) for method in methods]

    def send(self, args: Args) -> Reply:
        """Add a message, to be answered; `system` replaces the system prompt."""
        content = text(args, "text")
        system = text(args, "system") if args.get("system") else None
        seed = None if args.get("seed") is None else seed_of(args, 0)

        def check(entry: Entry) -> None:
            self.server.check_fits(entry, self.server.asked(entry, content, system))

        return self.server.change(args, lambda entry: self.server.ask(entry, content, system, seed), check)

    def edit(self, args: Args) -> Reply:
        """Replace one of the person's messages, or the system prompt, and answer anew; the old branch stays.

        In a text, all of it: what stands before the first change keeps its tokens, and the model goes on at the end.
        """
        content = text(args, "text")

        def edited(entry: Entry) -> list[Message]:
            messages = entry.engine.messages(entry.session)
            if is_document(messages):
                return rewritten(messages, content, entry.engine.tokenizer)
            number = whole(args, "message", 0, max(len(messages) - 1, 0))
            role = messages[number]["role"] if messages else ""
            if role not in ("user", "system"):
                raise Invalid("Only your own messages and the system prompt can be edited.", "message")
            messages[number] = {"role": role, "content": content}
            kept = messages if role == "system" else messages[: number + 1]
            return kept[:-1] if kept[-1]["role"] == "assistant" else kept

        def how(entry: Entry) -> Cut | None:
            return entry.engine.extend(entry.session, edited(entry), seed_of(args, entry.session.seed))

        def check(entry: Entry) -> None:
            seed_of(args, 0)
            self.server.check_fits(entry, edited(entry))

        return self.server.change(args, how, check)

    def regenerate(self, args: Args) -> Reply:
        """The last reply again, with the same seed or another; the old branch stays."""

        def check(entry: Entry) -> None:
            seed_of(args, 0)
            if not entry.session.tokens:
                raise Invalid("There is no reply to write again; send a message first.")

        return self.server.change(args, lambda e: e.session.redo(seed_of(args, e.session.seed)), check)

    def resume(self, args: Args) -> Reply:
        """Let a reply go on that was stopped or ran into its length."""

        def check(entry: Entry) -> None:
            if not entry.session.tokens:
                raise Invalid("There is nothing to go on with; send a message first.")

        return self.server.change(args, lambda entry: entry.session.resume(), check)

    def stop(self, args: Args) -> Reply:
        """End the running reply at its next token."""
        self.server.entry(args).interrupt()
        return {}

    def new_chat(self, args: Args) -> Reply:
        """An empty conversation with the parameters in force; `system` will be its system prompt."""
        entry = self.server.entry(args)
        system = text(args, "system") if args.get("system") else None
        seed = seed_of(args, fresh_seed())
        entry.interrupt()
        entry.quiet()
        entry.renew(entry.source.session(params=entry.session.params, seed=seed), system)
        return {"message": snapshot(entry), **self.server.branches(entry)}

    def set_mode(self, args: Args) -> Reply:
        """Take what is typed as the start of a text (`raw`), or as a message. What stands there stays as it is."""
        entry, raw = self.server.entry(args), args.get("raw")
        if not isinstance(raw, bool):
            raise Invalid("raw must be true (a text to be continued) or false (a conversation)", "raw")
        if not raw and entry.engine.chat is None:
            raise Invalid("This model has no chat template: it can only go on with a text.", "raw")
        entry.raw = raw
        return {"raw": raw}
