"""A text that a person and the model write by turns, as messages: parts "text" and "assistant", nothing between them.

This is the completion mode: what a person types is the start of a text, and the model goes on with it in place. An
edit keeps every token, and so every record, of what still stands before it.
"""

from collections.abc import Sequence

from gpt.chat import Message
from gpt.tokenizer import Tokenizer

__all__ = ["added", "rewritten"]


def added(parts: Sequence[Message], text: str) -> list[Message]:
    """The parts with `text` typed after them."""
    if parts and parts[-1]["role"] == "text":
        return [*parts[:-1], {"role": "text", "content": parts[-1]["content"] + text}]
    return [*parts, {"role": "text", "content": text}]


def rewritten(parts: Sequence[Message], text: str, tokenizer: Tokenizer) -> list[Message]:
    """The parts that say `text`: those of before up to the first change, then the rest as typed.

    Of a part that the model wrote, the tokens before the change stay; one that a person wrote is encoded anew.
    """
    kept: list[Message] = []
    for part in parts:
        if part["role"] == "text" and text.startswith(part["content"]):
            kept, text = added(kept, part["content"]), text[len(part["content"]) :]
            continue
        if part["role"] == "text":
            break
        n, length = _said(part["tokens"], text, tokenizer)
        kept += [{**part, "content": text[:length], "tokens": part["tokens"][:n]}] if n else []
        text = text[length:]
        if n < len(part["tokens"]):
            break
    return added(kept, text) if text else kept


def _said(tokens: list[int], text: str, tokenizer: Tokenizer) -> tuple[int, int]:
    """How many tokens say the beginning of `text`, and how many of its characters. Control tokens say nothing."""
    n = length = 0
    for i, piece in enumerate(tokenizer.pieces(tokens)):
        control = tokenizer.is_special(tokens[i])
        said = "" if control else piece
        if not text.startswith(said, length):
            break
        length += len(said)
        n = i + 1 if said or control else n  # part of a character stays only with the rest of it
    return n, length
