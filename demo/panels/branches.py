"""The branches of a conversation, to move between, name, compare and delete; and the whole of it, saved and opened."""

import json
from collections.abc import Callable

from demo.args import OF_TOKENS, Args, Invalid, Reply, whole_characters
from demo.rpc import Server, answered
from demo.store import Entry
from demo.stream import snapshot
from demo.wire import settings_table, token_objects
from gpt.engine import Engine
from gpt.record import from_record, to_record
from gpt.session import Session

__all__ = ["Branches"]

MAX_NAME = 80  # characters
MAX_RECORD = 32 << 20  # bytes of a saved conversation, as JSON


class Branches:
    """What only looks at a branch, or names it, does not touch the reply that is being written."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def functions(self) -> list[Callable]:
        methods = (self.switch_branch, self.rename_branch, self.delete_branch, self.branch_tokens)
        return [answered(method) for method in (*methods, self.save, self.open)]

    def switch_branch(self, args: Args) -> Reply:
        """Show another branch. Nothing is written until it is resumed or answered."""

        def how(entry: Entry) -> None:
            entry.session.switch(_branch(args, entry))
            entry.rest()
            entry.follow()

        return {**self.server.change(args, how, check=lambda entry: _branch(args, entry)), "run": None}

    def rename_branch(self, args: Args) -> Reply:
        """Give a branch a name, or with an empty one take it away."""
        entry, name = self.server.entry(args), args.get("name")
        if not isinstance(name, str) or len(name.strip()) > MAX_NAME:
            raise Invalid(f"A name is a text of at most {MAX_NAME} characters.", "name")
        entry.session.rename(_branch(args, entry), whole_characters(name.strip()))
        return self.server.branches(entry)

    def delete_branch(self, args: Args) -> Reply:
        """Forget a branch; in place of the one that is shown, its parent is shown."""
        entry = self.server.entry(args)
        branch = _branch(args, entry)
        if len(entry.session.branches) == 1:
            raise Invalid("This is the only branch; start a new chat instead.", "branch")
        if branch != entry.session.branch:
            entry.session.delete(branch)
            return self.server.branches(entry)

        def how(entry: Entry) -> None:
            entry.session.delete(branch)
            entry.rest()
            entry.follow()

        return {**self.server.change(args, how), "run": None}

    def branch_tokens(self, args: Args) -> Reply:
        """The tokens of a branch, to be read beside those of the one that is shown."""
        entry = self.server.entry(args)
        branch = entry.session.branches[_branch(args, entry)]
        toks = token_objects(entry, 0, branch=branch)
        return {"toks": toks, "settings": settings_table(entry)}

    def save(self, args: Args) -> Reply:
        """The whole conversation, every branch with every record, for a file."""
        entry = self.server.entry(args)
        return {"record": to_record(entry.session, entry.engine.name)}

    def open(self, args: Args) -> Reply:
        """Go on with a saved conversation in place of the one that is shown. A record that is wrong changes nothing."""
        entry, record = self.server.entry(args), args.get("record")
        _check_size(record)
        session = from_record(entry.source, record)
        _check_settings(entry.engine, session)
        entry.interrupt()
        entry.quiet()
        entry.renew(session, None)
        entry.rest()
        entry.follow()
        message = snapshot(entry)
        return {"message": message, "params": session.params.as_dict(), **self.server.branches(entry)}


def _check_settings(engine: Engine, session: Session) -> None:
    """Raise ValueError for settings that this model's tokens cannot take."""
    made = {record.params for branch in session.branches.values() for record in branch.records if record}
    kinds = {tuple(getattr(params, name) for name in OF_TOKENS): params for params in (session.params, *made)}
    for params in kinds.values():
        engine.check(params)


def _branch(args: Args, entry: Entry) -> int:
    number = args.get("branch")
    if not isinstance(number, int) or isinstance(number, bool) or number not in entry.session.branches:
        known = ", ".join(map(str, entry.session.branches))
        raise Invalid(f"There is no branch {number!r}; there are {known}.", "branch")
    return number


def _check_size(record: object) -> None:
    try:
        size = len(json.dumps(record, ensure_ascii=False).encode())
    except (RecursionError, UnicodeEncodeError) as error:
        raise Invalid("This is not a conversation that was saved here.", "record") from error
    if size > MAX_RECORD:
        raise Invalid(f"This file has {size:,} bytes; at most {MAX_RECORD:,} can be opened.", "record")
