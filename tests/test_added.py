"""Names matched in text: the leftmost place, the longest name, and the flags of the `tokenizers` library."""

import random

from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Reference

from gpt.added import AddedTokens, entry


def cut(text: str, *entries: dict, wanted: tuple = (1, 2, 3)) -> list:
    parts = AddedTokens(entries, wanted).cut(text)
    return [text[start:end] if token is None else token for start, end, token in parts]


def test_the_leftmost_place_wins_and_there_the_longest_name():
    assert cut("xabcab", entry("ab", 1, True), entry("abc", 2, True), entry("bca", 3, True)) == ["x", 2, 1]


def test_white_space_is_taken_along_where_a_token_says_so():
    left, right = entry("<l>", 1, True, lstrip=True), entry("<r>", 2, True, rstrip=True)
    assert cut("a \n<l> b <r>\t c", left, right) == ["a", 1, " b ", 2, "c"]
    assert cut("<r>  <l>", left, right) == [2, 1]


def test_a_name_that_must_stand_alone_is_text_inside_a_word():
    assert cut("cat, cats cat_ cat", entry("cat", 1, True, single_word=True)) == [1, ", cats cat_ ", 1]


def test_names_that_are_not_wanted_hide_what_is_inside_them():
    assert cut("<ab>ab", entry("<ab>", 1, True), entry("ab", 2, False), wanted=(2,)) == ["<ab>", 2]
    assert cut("ab", entry("ab", 1, True), wanted=()) == ["ab"]
    assert cut("", entry("ab", 1, True)) == []


def test_random_texts_are_cut_as_the_library_cuts_them():
    rng = random.Random(0)
    for _ in range(60):
        made, flags = Reference(models.WordLevel({"?": 0}, unk_token="?")), ("lstrip", "rstrip", "single_word")
        names = {
            "".join(rng.choices("ab<", k=rng.randint(1, 3))): {f: rng.random() < 0.3 for f in flags} for _ in "1234"
        }
        made.add_tokens([AddedToken(name, normalized=False, **given) for name, given in names.items()])
        entries = [entry(name, made.token_to_id(name), False, **given) for name, given in names.items()]
        for _ in range(40):
            text = "".join(rng.choices("ab< \n_", k=rng.randint(0, 14)))
            theirs = made.encode(text, add_special_tokens=False)
            ours = list(AddedTokens(entries, range(1, 9)).cut(text))
            assert [token or 0 for _, _, token in ours] == theirs.ids, (text, names)
            assert [(start, end) for start, end, _ in ours] == theirs.offsets, (text, names)
