"""What the filters must know of a model's tokens: which complete a banned string, which a grammar allows.

Everything is decided on bytes, so that it holds however a text is cut into tokens. A token that ends a reply has no
text here; other control tokens have their name, as they are shown. Grammars run in `llguidance` (Microsoft, 2024),
whose matchers are kept for replies that grow. Safe to use from several threads.
"""

import json
import os
import re
import threading
import weakref
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property

import llguidance
import numpy as np
import torch
from torch import Tensor

from gpt.params import SamplingParams
from gpt.tokenizer import Tokenizer

__all__ = ["Lexicon"]

STATES = 32  # places in a text, of one grammar or several, whose matcher is kept
STRINGS = 1_000  # banned strings whose tokens are kept
# A model that may write any number of spaces between the parts of a JSON text sometimes never stops.
_SPACES = r"[ \t\r\n]{1,20}"

_Grammar = tuple[str, str]
_ALIVE: "weakref.WeakSet[Lexicon]" = weakref.WeakSet()


class Lexicon:
    """The tokens of one model. n_vocab: how many logits it has; ids that the tokenizer does not know have no text."""

    def __init__(self, tokenizer: Tokenizer, n_vocab: int) -> None:
        self.n_vocab = n_vocab
        self.end_tokens = frozenset(t for t in tokenizer.end_tokens if t < n_vocab)
        self._tokenizer, self._ends = tokenizer, sorted(self.end_tokens)
        self._completing: OrderedDict[bytes, _Completing] = OrderedDict()
        self._breakers: tuple[tuple[str, ...], frozenset[int]] = (), frozenset()  # the last that were asked for
        self._matchers: OrderedDict[_Grammar, llguidance.LLMatcher] = OrderedDict()
        self._states: list[_State] = []  # the one used last at the end
        self._lock = threading.RLock()
        _ALIVE.add(self)

    def banned(self, strings: Sequence[str], reply: Sequence[int]) -> Tensor:
        """Ids, int64 and ascending, of the tokens that would complete one of `strings` in the text of `reply`."""
        found: set[int] = set()
        with self._lock:
            for string in {s.encode("utf-8", "replace") for s in strings}:
                found.update(self._completes(string).after(self._tail(reply, len(string) - 1)))
        return torch.tensor(sorted(found), dtype=torch.int64)

    def breakers(self, strings: Sequence[str]) -> frozenset[int]:
        """The tokens whose text contains one of `strings`."""
        wanted = tuple(strings)
        with self._lock:
            if self._breakers[0] != wanted:
                inside = (self._completes(s.encode("utf-8", "replace")).inside for s in wanted)
                self._breakers = wanted, frozenset(t for tokens in inside for t in tokens)
            return self._breakers[1]

    def unbroken(self, strings: Sequence[str], tokens: Sequence[int], most: int) -> int:
        """How many tokens at the end of `tokens`, up to `most`, follow the last place where one of `strings` stands.

        A string that spans tokens counts as well: what follows it begins after the token in which it ends.
        """
        inside = self.breakers(strings)
        wanted = [data for s in strings if len(data := s.encode("utf-8", "replace")) > 1]  # one byte is in one token
        reach = max(map(len, wanted), default=1) - 1
        after = b""  # the text that follows the token looked at, as far as a string that begins in it can reach
        for count, token in enumerate(reversed(tokens[-most - reach :])):
            if token in inside:
                return min(count, most)
            if wanted:
                text = self._text(token) + after
                ends = [at + len(s) for s in wanted if (at := text.find(s)) >= 0]
                if ends:
                    return min(self._whole(tokens[len(tokens) - 1 - count :], max(ends)), most)
                after = text[:reach]
        return min(len(tokens), most)

    def allowed(self, grammar: _Grammar, reply: Sequence[int]) -> Tensor | None:
        """(V,) bool: the tokens with which `reply` goes on to fit the grammar; None when it does not fit already.

        Only end tokens are allowed after a text that nothing can follow, and they are where the text may end. Where the
        grammar leaves no choice of text, its usual token alone is allowed.
        """
        with self._lock:
            try:
                state = self._state(grammar, list(reply))
            except ValueError:  # no schema at all: `check` says what is wrong with it
                return None
            return None if state is None else state.mask

    def check(self, params: SamplingParams) -> None:
        """Raise ValueError, which begins with the parameter's name, for what only this model's tokens can tell."""
        unknown = sorted({t for tokens, _ in params.logit_bias for t in tokens if t >= self.n_vocab})
        if unknown:
            raise ValueError(f"logit_bias must be on tokens from 0 to {self.n_vocab - 1}, got {unknown[0]}")
        if params.banned and self._bans_everything(params.banned):
            raise ValueError("banned must leave tokens to write with, and these strings stand in every one; ban fewer")
        if params.grammar is not None:
            with self._lock:
                self._check_grammar(params.grammar)

    def forget(self) -> None:
        """Begin anew in a forked process, where another thread's lock is never given back and what it held is torn."""
        self._lock = threading.RLock()
        self._completing.clear()
        self._matchers.clear()
        self._states.clear()

    # ---- text ------------------------------------------------------------------------------------------------

    @cached_property
    def _texts(self) -> list[bytes]:
        texts = [self._tokenizer.token_bytes(t) for t in range(self.n_vocab)]
        for token in self.end_tokens:
            texts[token] = b""
        return texts

    @cached_property
    def _sorted(self) -> tuple[list[bytes], list[int]]:
        """Texts in the order of their bytes, and the token of each."""
        ids = sorted(range(self.n_vocab), key=self._texts.__getitem__)
        return [self._texts[t] for t in ids], ids

    def _text(self, token: int) -> bytes:
        return self._texts[token] if 0 <= token < self.n_vocab else b""

    def _tail(self, tokens: Sequence[int], size: int) -> bytes:
        """The last `size` bytes of the text of `tokens`."""
        parts: list[bytes] = []
        missing = size
        for token in reversed(tokens):
            if missing <= 0:
                break
            parts.append(self._text(token))
            missing -= len(parts[-1])
        return b"".join(reversed(parts))[-size:] if size > 0 else b""

    def _whole(self, tokens: Sequence[int], size: int) -> int:
        """How many of `tokens` begin at or after the first `size` bytes of their text."""
        for done, token in enumerate(tokens):
            if size <= 0:
                return len(tokens) - done
            size -= len(self._text(token))
        return 0

    def _completes(self, string: bytes) -> "_Completing":
        if string not in self._completing:
            self._completing[string] = _Completing(string, self._texts, *self._sorted)
            if len(self._completing) > STRINGS:
                self._completing.popitem(last=False)
        return self._completing[string]

    def _bans_everything(self, strings: Sequence[str]) -> bool:
        inside = self.breakers(strings)
        return all(t in inside for t, text in enumerate(self._texts) if text and not self._tokenizer.is_special(t))

    # ---- grammars --------------------------------------------------------------------------------------------

    @cached_property
    def _library(self) -> llguidance.LLTokenizer:
        """The vocabulary as the library takes it; it needs an end token, one past the others if the model has none."""
        ends = self._ends or [self.n_vocab]
        wrapper = llguidance.TokenizerWrapper(_Plain(self._tokenizer, self.n_vocab, ends))
        return llguidance.LLTokenizer(wrapper, n_vocab=max(self.n_vocab, ends[-1] + 1), eos_token=ends)

    def _matcher(self, grammar: _Grammar) -> llguidance.LLMatcher:
        """A matcher at the start of a text. It may be in an error state, if the grammar is wrong."""
        if grammar not in self._matchers:
            self._matchers[grammar] = llguidance.LLMatcher(self._library, _source(*grammar), log_level=0)
            if len(self._matchers) > STATES:
                self._matchers.popitem(last=False)
        return self._matchers[grammar].deep_copy()

    def _state(self, grammar: _Grammar, reply: list[int]) -> "_State | None":
        """The matcher after `reply`: the one kept that came furthest on the way there, or a new one, is moved on."""
        ahead = [s for s in self._states if s.grammar == grammar and s.tokens == reply[: len(s.tokens)]]
        state = max(ahead, key=lambda s: len(s.tokens), default=None)
        if state is None:
            state = _State(grammar, self._matcher(grammar), self._library.vocab_size, self.n_vocab, self._ends)
        else:
            self._states.remove(state)
        if not state.take(reply):
            return None
        self._states = [*self._states[1 - STATES :], state]
        return state

    def _check_grammar(self, grammar: _Grammar) -> None:
        kind, text = grammar
        try:
            matcher = self._matcher(grammar)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise ValueError(f"grammar must be a schema in JSON: {error.msg} at {where}") from error
        except ValueError as error:
            raise ValueError(f"grammar must be a JSON schema: {error}") from error
        if matcher.is_error():
            raise ValueError(_explain(kind, text, matcher.get_error()))
        state = self._state(grammar, [])
        if state is None or not set(state.mask.nonzero().flatten().tolist()) - self.end_tokens:
            raise ValueError(f"grammar must allow some text; no token of this model can begin {_NAMES[kind]}")


def _after_fork() -> None:
    for lexicon in list(_ALIVE):
        lexicon.forget()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)


class _Completing:
    """The tokens that complete one string, wherever in it they begin."""

    def __init__(self, string: bytes, texts: list[bytes], ordered: list[bytes], ids: list[int]) -> None:
        self._string, self._ordered, self._ids = string, ordered, ids
        self._starting: dict[int, list[int]] = {}
        self.inside = [token for token, text in enumerate(texts) if string in text]

    def after(self, tail: bytes) -> list[int]:
        """The tokens that complete the string after a text that ends with `tail`, which is shorter than it."""
        found = list(self.inside)
        for done in range(1, len(self._string)):
            if tail.endswith(self._string[:done]):
                found += self._start(done)
        return found

    def _start(self, done: int) -> list[int]:
        """The tokens that begin with what is missing of the string after its first `done` bytes."""
        if done not in self._starting:
            rest = self._string[done:]
            low = high = bisect_left(self._ordered, rest)
            while high < len(self._ordered) and self._ordered[high].startswith(rest):
                high += 1
            self._starting[done] = self._ids[low:high]
        return self._starting[done]


class _State:
    """A matcher that has read `tokens`, and what it allows there."""

    def __init__(
        self, grammar: _Grammar, matcher: llguidance.LLMatcher, size: int, n_vocab: int, ends: list[int]
    ) -> None:
        self.grammar, self.tokens = grammar, []
        self._matcher, self._size, self._n_vocab, self._ends = matcher, size, n_vocab, ends
        self._mask: Tensor | None = None

    def take(self, tokens: list[int]) -> bool:
        """Read on, up to the end of `tokens`; False, and of no more use, when they do not fit."""
        new = tokens[len(self.tokens) :]
        if new:
            self._mask = None
        self.tokens = tokens
        fits = not self._matcher.is_error() and self._matcher.try_consume_tokens(new) == len(new)
        return fits and self.mask is not None

    @property
    def mask(self) -> Tensor | None:
        """(V,) bool; None when the text became too complex for the library."""
        if self._mask is None:
            if self._matcher.is_stopped():
                mask = np.zeros(self._n_vocab, dtype=bool)
                mask[self._ends] = True
            else:
                bits = np.zeros((self._size + 31) // 32, dtype=np.int32)
                self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
                mask = np.unpackbits(bits.view(np.uint8), bitorder="little")[: self._n_vocab].view(bool)
            self._mask = None if self._matcher.is_error() else torch.from_numpy(mask)
        return self._mask


class _Plain:
    """Our tokenizer as llguidance.TokenizerWrapper wants one."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, n_vocab: int, ends: list[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = ends[0]
        self.tokens = [tokenizer.token_bytes(t) for t in range(max(n_vocab, ends[-1] + 1))]
        self.special_token_ids = [t for t in range(n_vocab) if tokenizer.is_special(t)]

    def __call__(self, text: str | bytes) -> list[int]:
        text = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return self._tokenizer.locate(text, "text")[0]  # without a space of the tokenizer's own


# ---- grammars as the library writes them -----------------------------------------------------------------------

_NAMES = {"json_schema": "a JSON text of this schema", "regex": "a text of this pattern", "choice": "one of these"}


def _source(kind: str, text: str) -> str:
    """Raises ValueError, as json.loads does, for a schema that is no JSON or has wrong options in "x-guidance"."""
    if kind == "regex":
        return llguidance.LLMatcher.grammar_from_regex(text)
    if kind == "choice":
        lines = [json.dumps(line.strip(), ensure_ascii=False) for line in text.splitlines() if line.strip()]
        return llguidance.LLMatcher.grammar_from_lark(f"start: CHOICE\nCHOICE: {' | '.join(lines)}")
    schema = json.loads(text)
    spaces = {"whitespace_pattern": _SPACES} if isinstance(schema, dict) else None
    return llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=spaces)


def _explain(kind: str, text: str, error: str) -> str:
    if kind == "json_schema":
        return f"grammar must be a JSON schema that can be met: {error.splitlines()[0]}"
    reason = re.search(r"^error: (.*)$", error, re.MULTILINE)
    return (
        f"grammar must be {_NAMES[kind]} that compiles: {reason[1] if reason else error.splitlines()[0]}, in {text!r}"
    )
