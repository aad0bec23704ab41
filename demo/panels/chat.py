"""The chat panel's server functions: everything that writes or rewrites the conversation, and what ends a reply."""

from collections.abc import Callable

from demo.rpc import Args, Invalid, Reply, Server, answered, fresh_seed, seed_of, text, whole
from demo.store import Entry
from demo.stream import snapshot
from gpt.chat import Message
from gpt.conversation import Cut

__all__ = ["Chat"]


class Chat:
    """Conversations are messages to the page and tokens to the model; the session keeps the tokens only."""

    def __init__(self, server: Server) -> None:
        self.server, self.engine = server, server.engine

    def functions(self) -> list[Callable]:
        methods = (self.send, self.edit, self.regenerate, self.fork, self.resume, self.stop, self.new_chat)
        return [answered(method) for method in (*methods, self.switch_branch)]

    def send(self, args: Args) -> Reply:
        """Add a message, to be answered; `system` replaces the system prompt."""
        content = text(args, "text")
        system = text(args, "system") if args.get("system") else None

        def how(entry: Entry) -> Cut | None:
            if entry.example:  # what was recorded is not this person's conversation
                entry.renew(self.server.source.session(params=entry.session.params, seed=fresh_seed()), None)
            messages = self.engine.messages(entry.session)
            if prompt := system or (entry.system if not messages else None):
                messages = _with_system(messages, prompt)
            messages.append({"role": "user", "content": content})
            return self.engine.extend(entry.session, messages, seed_of(args, entry.session.seed))

        return self.server.change(args, how)

    def edit(self, args: Args) -> Reply:
        """Replace one of the person's messages, or the system prompt, and answer anew; the old branch stays."""
        content = text(args, "text")

        def how(entry: Entry) -> Cut | None:
            messages = self.engine.messages(entry.session)
            number = whole(args, "message", 0, max(len(messages) - 1, 0))
            role = messages[number]["role"] if messages else ""
            if role not in ("user", "system", "text"):
                raise Invalid("Only your own messages and the system prompt can be edited.", "message")
            messages[number] = {"role": role, "content": content}
            kept = messages if role == "system" else messages[: number + 1]
            kept = kept[:-1] if kept[-1]["role"] == "assistant" else kept
            return self.engine.extend(entry.session, kept, seed_of(args, entry.session.seed))

        return self.server.change(args, how)

    def regenerate(self, args: Args) -> Reply:
        """The last reply again, with the same seed or another; the old branch stays."""

        def how(entry: Entry) -> None:
            if not entry.session.tokens:
                raise Invalid("There is no reply to write again; send a message first.")
            entry.session.redo(seed_of(args, entry.session.seed))

        return self.server.change(args, how)

    def fork(self, args: Args) -> Reply:
        """Put another token at a position and go on from there; the old branch stays."""

        def how(entry: Entry) -> None:
            session = entry.session
            token = whole(args, "token", 0, self.engine.config.vocab_size - 1)
            session.fork(whole(args, "position", 0, max(len(session.tokens) - 1, 0)), token)
            session.finish = "end" if token in self.engine.tokenizer.end_tokens else None

        return self.server.change(args, how)

    def resume(self, args: Args) -> Reply:
        """Let a reply go on that was stopped or ran into its length."""

        def how(entry: Entry) -> None:
            if not entry.session.tokens:
                raise Invalid("There is nothing to go on with; send a message first.")
            entry.session.resume()

        return self.server.change(args, how)

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
        entry.renew(self.server.source.session(params=entry.session.params, seed=seed), system)
        return {"message": snapshot(self.server.source, entry), **self.server.branches(entry)}

    def switch_branch(self, args: Args) -> Reply:
        """Show another branch. Nothing is written until it is resumed or answered."""

        def how(entry: Entry) -> None:
            entry.session.switch(whole(args, "branch", 0, len(entry.session.branches) - 1))
            entry.rest()

        return {**self.server.change(args, how), "run": None}


def _with_system(messages: list[Message], content: str) -> list[Message]:
    rest = messages[1:] if messages and messages[0]["role"] == "system" else messages
    return [{"role": "system", "content": content}, *rest]
