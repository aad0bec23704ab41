"""Banned strings never occur however the text is cut into tokens; what a grammar lets through always fits it."""

import json
import os
import random
import re
import signal
import threading

import pytest
import torch

from gpt.lexicon import Lexicon
from gpt.params import SamplingParams
from gpt.sampling import Step, pick, shape_logits, uniform
from gpt.tokenizer import Tokenizer
from tests.test_encoders import pieces as sentencepiece

V = 258
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="module")
def lexicon(tokenizer: Tokenizer) -> Lexicon:
    return Lexicon(tokenizer, V)


@pytest.fixture(scope="module")
def words(smollm: Tokenizer) -> Lexicon:
    return Lexicon(smollm, smollm.n_vocab)


def write(lexicon: Lexicon, seed: int, n: int, likely=(), weight=6.0, **values) -> list[int]:
    """A text of random logits, `weight` larger for the tokens of `likely`, up to an end token."""
    params = SamplingParams(**{"temperature": 1.0, **values})
    rng, tokens = torch.Generator().manual_seed(seed), []
    for position in range(n):
        logits = torch.randn(lexicon.n_vocab, generator=rng)
        logits[list(likely)] += weight
        shaped = shape_logits(logits, params, Step(tokens), lexicon)
        assert shaped.ignored == ()
        tokens.append(pick(shaped.final, uniform(seed, position)))
        if tokens[-1] in lexicon.end_tokens:
            break
    return tokens


# ---- banned strings --------------------------------------------------------------------------------------


def test_a_banned_string_is_completed_across_tokens_and_within_one(words, smollm):
    reply = smollm.encode("a hello wor")
    banned = {smollm.piece(t) for t in words.banned(("world", "q€"), reply).tolist()}
    assert {"ld", "world", " world", " worldwide", " underworld"} <= banned
    assert not {"l", " wor", "wor", "d", "lp"} & banned
    assert words.banned(("world",), smollm.encode("wo")).tolist() == sorted(
        t for t in range(words.n_vocab) if "world" in smollm.piece(t) or smollm.piece(t).startswith("rld")
    )


def test_half_a_character_counts_by_its_bytes(lexicon, tokenizer):
    euro = tokenizer.encode("€")
    assert lexicon.banned(("€",), euro[:2]).tolist() == euro[2:]
    assert lexicon.banned(("€",), euro[:1]).tolist() == []
    assert lexicon.banned(("€",), [euro[1], euro[0]]).tolist() == []


def test_a_string_that_overlaps_itself_is_seen_at_every_place(lexicon, tokenizer):
    for reply, next_one in {"aa": "b", "aaa": "b", "aab": "", "aabaa": "b", "aba": ""}.items():
        assert lexicon.banned(("aab",), tokenizer.encode(reply)).tolist() == tokenizer.encode(next_one)
    assert lexicon.banned(("abab",), tokenizer.encode("aba")).tolist() == tokenizer.encode("b")


def test_banned_strings_never_occur_in_random_texts(lexicon, tokenizer):
    """Letters of the strings are likely, so that a text without the ban would be full of them."""
    rng, likely = random.Random(0), tokenizer.encode("abé ")
    for seed in range(200):
        banned = tuple("".join(rng.choices("abé ", k=rng.randint(1, 4))) for _ in range(3))
        tokens = write(lexicon, seed, 16, likely, banned=banned, min_new_tokens=16)
        text = b"".join(map(tokenizer.token_bytes, tokens))
        assert not any(string.encode() in text for string in banned), (banned, text)


def test_banned_strings_never_occur_whatever_the_tokens(words, smollm):
    likely = [t for t in range(words.n_vocab) if re.fullmatch(r" ?[the]+", smollm.piece(t))]
    assert len(likely) > 20
    texts = [smollm.decode(write(words, seed, 30, likely, banned=("the", "ee"), min_new_tokens=30)) for seed in (1, 2)]
    assert not any("the" in text or "ee" in text for text in texts)
    assert sum(text.count("e") for text in texts) > 5


def test_an_end_token_has_no_text_and_other_control_tokens_have_their_name(lexicon):
    assert lexicon.banned(("<|im_end|>",), []).tolist() == []
    assert lexicon.banned(("<|im_start|>",), []).tolist() == [0]


class Letters:
    """A tokenizer of three tokens and one without text, for a model with four."""

    n_vocab, end_tokens, specials = 3, frozenset(), {}

    def token_bytes(self, token: int) -> bytes:
        return [b"a", b"ab", b"b"][token] if token < 3 else b""

    def is_special(self, token: int) -> bool:
        return False

    def locate(self, text: str, after: str) -> tuple[list[int], list[int]]:
        return ["ab".index(letter) * 2 for letter in text], list(range(len(text)))


def test_a_ban_of_everything_is_refused_and_stops_nothing():
    lexicon, ban = Lexicon(Letters(), 4), SamplingParams(temperature=1, top_k=1, banned=("a", "b"))
    with pytest.raises(ValueError, match=r"^banned must leave tokens to write with"):
        lexicon.check(ban)
    lexicon.check(SamplingParams(banned=("a",)))
    late = ban.replace(order=("top_k", "banned"))
    shaped = shape_logits(torch.tensor([3.0, 2.0, 1.0, 0.0]), late, Step(), lexicon)
    assert shaped.ignored == ("banned",)
    assert shaped.final.tolist() == [1, 0, 0, 0]


# ---- DRY's breakers ---------------------------------------------------------------------------------------


def test_breakers_are_the_tokens_that_contain_one(words, smollm):
    pieces = {smollm.piece(t) for t in words.breakers((":", "\n"))}
    assert {":", "\n", "\n\t", " :"} <= pieces
    assert all(":" in piece or "\n" in piece for piece in pieces)
    assert words.breakers(()) == frozenset()


def test_what_follows_the_last_breaker_is_counted_in_tokens(lexicon, tokenizer):
    text = tokenizer.encode("one: two, three")
    assert lexicon.unbroken((":",), text, 99) == len(" two, three")
    assert lexicon.unbroken((":", ","), text, 99) == len(" three")
    assert lexicon.unbroken((":", ","), text, 4) == 4
    assert lexicon.unbroken(("e: t",), text, 99) == len("wo, three")
    assert lexicon.unbroken(("three",), text, 99) == 0
    assert lexicon.unbroken(("ee", "e"), text, 99) == 0
    assert lexicon.unbroken(("x",), text, 99) == len(text)
    assert lexicon.unbroken((), text, 99) == len(text)


def test_a_breaker_inside_longer_tokens_ends_in_one_of_them(words, smollm):
    text = smollm.encode("hello world again")
    assert len(text) == 3
    assert words.unbroken(("lo wor",), text, 99) == 1
    assert words.unbroken(("d a",), text, 99) == 0


# ---- grammars ----------------------------------------------------------------------------------------------


def pieces(lexicon, tokenizer, grammar, text) -> list[str] | None:
    allowed = lexicon.allowed(grammar, tokenizer.encode(text))
    return None if allowed is None else [tokenizer.piece(t) for t in allowed.nonzero().flatten().tolist()]


def test_a_choice_allows_its_lines_and_then_the_end(lexicon, tokenizer):
    grammar = ("choice", 'yes\n  no way\n\nnobody\nno\n"quoted" \\ 日本')
    told = {text: pieces(lexicon, tokenizer, grammar, text) for text in ("", "n", "no", "nob", "yes", "x", "yes!")}
    end = "<|im_end|>"
    assert told == {"": ['"', "n", "y"], "n": ["o"], "no": [end, " ", "b"], "nob": ["o"], "yes": [end], "x": None,
                    "yes!": None}  # fmt: skip
    assert pieces(lexicon, tokenizer, grammar, '"quoted" \\ 日本') == [end]


def test_text_that_does_not_fit_leaves_the_grammar_out_and_says_so(lexicon, tokenizer):
    params = SamplingParams(temperature=1, grammar=("choice", "yes"))
    logits, history = torch.randn(V), tokenizer.encode("prompt yep")
    shaped = shape_logits(logits, params, Step(history, grammar_start=7), lexicon)
    assert shaped.ignored == ("grammar",)
    assert torch.equal(shaped.final, shaped.probs)
    shaped = shape_logits(logits, params, Step(history, grammar_start=len(history) - 0), lexicon)
    assert shaped.ignored == ()
    assert shaped.final.argmax() == tokenizer.encode("y")[0]


@pytest.mark.parametrize("pattern", [r"[a-c]{2,5}-\d\d?", r"(?:yes|no)(?:, (?:yes|no)){0,3}!", r"é+ß?", r"^[xy]+z$"])
def test_texts_under_a_pattern_always_match_it(lexicon, tokenizer, pattern):
    likely = sorted(lexicon.end_tokens)
    texts = [tokenizer.decode(write(lexicon, seed, 200, likely, 1, grammar=("regex", pattern))) for seed in range(8)]
    for text in texts:
        assert re.fullmatch(pattern, text.removesuffix("<|im_end|>")), text
    assert len(set(texts)) > 2


def test_texts_under_a_schema_are_json_that_meets_it(lexicon, tokenizer):
    likely = tokenizer.encode('"}')
    for seed in range(8):
        text = tokenizer.decode(write(lexicon, seed, 400, likely, grammar=("json_schema", PERSON)))
        person = json.loads(text.removesuffix("<|im_end|>"))
        assert set(person) == {"name", "age"}
        assert len(person["name"]) <= 5
        assert person["age"] <= 99


def test_a_grammar_works_with_the_tokens_of_the_default_model(words, smollm):
    text = smollm.decode(write(words, 1, 300, smollm.encode('"}'), grammar=("json_schema", PERSON)), specials=False)
    assert set(json.loads(text)) == {"name", "age"}
    assert words.end_tokens == {0, 2}


def test_ids_beyond_the_tokenizer_and_models_without_an_end_token_are_taken():
    allowed = Lexicon(Letters(), 4).allowed(("regex", "a+b"), [])
    assert allowed.tolist() == [True, True, False, False]
    assert Lexicon(Letters(), 4).allowed(("regex", "a+b"), [1]).tolist() == [False] * 4


def test_a_reply_that_grew_forked_or_shrank_is_followed(lexicon, tokenizer):
    grammar = ("regex", r"(?:ab|ac|ad)*!")
    fresh = Lexicon(tokenizer, V)
    for text in ("a", "ab", "aba", "abac", "ad", "ada", "ab", "", "abacad", "abacab", "abacad!"):
        reply = tokenizer.encode(text)
        assert torch.equal(lexicon.allowed(grammar, reply), fresh.allowed(grammar, reply))
        fresh._states.clear()


def test_a_grown_reply_is_not_read_again(lexicon, tokenizer, monkeypatch):
    grammar, reply = ("regex", "x*"), tokenizer.encode("x" * 50)
    lexicon.allowed(grammar, reply)
    read = []
    state = lexicon._states[-1]

    class Spy:
        def __getattr__(self, name):
            return getattr(matcher, name)

        def try_consume_tokens(self, tokens):
            read.append(len(tokens))
            return matcher.try_consume_tokens(tokens)

    matcher = state._matcher
    monkeypatch.setattr(state, "_matcher", Spy())
    for n in range(3):
        lexicon.allowed(grammar, reply + tokenizer.encode("x" * n))
    assert read == [0, 1, 1]


def test_threads_share_a_lexicon(lexicon, tokenizer):
    errors = []

    def work(seed: int) -> None:
        grammar = ("regex", rf"[{'abcd'[seed % 4]}z]{{3,9}}!")
        for attempt in range(6):
            text = tokenizer.decode(write(lexicon, 10 * seed + attempt, 30, grammar=grammar, banned=("zz",)))
            if not re.fullmatch(grammar[1] + r"(<\|im_end\|>)?", text) or "zz" in text:
                errors.append(text)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# ---- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grammar": ("regex", "(ab")}, r"^grammar .* that compiles: unclosed group, in '\(ab'"),
        ({"grammar": ("regex", r"(a)\1")}, r"^grammar .* backreferences are not supported"),
        ({"grammar": ("regex", r"a(?=b)")}, r"^grammar .* look-around"),
        ({"grammar": ("regex", r"[^\s\S]")}, r"^grammar must allow some text"),
        ({"grammar": ("json_schema", "{bad")}, r"^grammar must be a schema in JSON: .* line 1, column 2"),
        ({"grammar": ("json_schema", "[]")}, r"^grammar .* schema must be an object"),
        ({"grammar": ("json_schema", '{"maximum": 1e999}')}, r"^grammar must be a JSON schema: expected value"),
        ({"grammar": ("json_schema", '{"type": "strin"}')}, r"^grammar .* Invalid type: strin"),
        ({"grammar": ("json_schema", '{"enum": []}')}, r"^grammar .* Unsatisfiable"),
        ({"grammar": ("json_schema", '{"type": "integer", "minimum": 5, "maximum": 3}')},
         r"^grammar .* minimum \(5\) is greater than maximum \(3\)"),
        ({"grammar": ("json_schema", "false")}, r"^grammar .* schema is false"),
        ({"logit_bias": [[[1, 258], 2.0]]}, r"^logit_bias must be on tokens from 0 to 257, got 258"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name_and_harms_no_step(lexicon, values, message):
    params = SamplingParams(**{"temperature": 1, **values})
    with pytest.raises(ValueError, match=message):
        lexicon.check(params)
    shaped = shape_logits(torch.randn(V), params, Step([1, 2]), lexicon)
    assert shaped.final.sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {}, {"grammar": ("choice", "a")}, {"grammar": ("regex", "a*")}, {"grammar": ("json_schema", "{}")},
        {"grammar": ("json_schema", PERSON)}, {"logit_bias": [[[257], 2.0]]}, {"banned": ["the"]},
    ],
)  # fmt: skip
def test_what_can_be_passes(lexicon, values):
    lexicon.check(SamplingParams(**values))


def test_spaces_in_json_are_allowed_but_never_endless(lexicon, tokenizer):
    grammar = ("json_schema", PERSON)
    for text, spaces in {"{": True, "{" + 19 * " ": True, "{" + 20 * " ": False}.items():
        assert (" " in pieces(lexicon, tokenizer, grammar, text)) is spaces


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks on this platform")
def test_a_forked_process_can_use_it_though_another_thread_held_its_lock(tokenizer):
    lexicon = Lexicon(tokenizer, 258)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lexicon._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if lexicon.banned(["b"], []).tolist() == [ord("b") + 2] else 1)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_tokenizer_that_puts_spaces_before_text_keeps_to_a_grammar_all_the_same(tmp_path):
    sentencepiece().save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_folder(tmp_path)
    lexicon = Lexicon(ours, ours.n_vocab)
    for seed, (kind, text) in enumerate([("choice", "yes please\nno"), ("regex", "[a-z]+ [a-z]+"), ("choice", "你好")]):
        reply = write(lexicon, seed, 60, ours.locate("yes no a b", "text")[0], grammar=(kind, text))
        shown = ours.decode(reply, specials=False)
        assert shown in text.splitlines() if kind == "choice" else re.fullmatch(text, shown)
