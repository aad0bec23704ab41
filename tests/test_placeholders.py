"""Placeholders: what a template leaves in place is put together again, what it drops is missed."""

import re

import pytest

from gpt.placeholders import Chunk, Hidden, parsed
from gpt.template import ChatError

MARKS = re.compile(r"(\s*(?:(?:<t>|</t>)\s*)+)")
THOUGHT = "<t>\nwhy\n</t>\n\nbecause"


def hidden(content: str, role: str = "assistant", **more) -> Hidden:
    return Hidden({"role": role, "content": content, **more}, 0, MARKS)


def test_a_content_without_marks_is_one_placeholder():
    h = hidden(" a b ")
    assert h.is_whole
    assert parsed(f"[{h.shown}]", [h]) == ["[", Chunk(0, 0, 5), "]"]


def test_marks_stay_to_be_seen_and_are_put_back():
    h = hidden(THOUGHT)
    assert (h.shown.count("<t>\n"), h.shown.count("\n</t>\n\n"), h.is_whole) == (1, 1, False)
    assert "why" not in h.shown
    assert parsed(f"[{h.shown}]", [h]) == ["[", Chunk(0, 0, len(THOUGHT)), "]"]


def test_a_part_that_is_left_out_is_missed():
    h = hidden(THOUGHT)
    events = parsed(f"[{h.shown.split('</t>')[-1].strip()}]", [h])
    assert events == ["[", Chunk(0, THOUGHT.index("because"), len(THOUGHT)), "]"]
    assert h.text(events[1]) == "because"


def test_parts_with_other_words_between_are_several():
    h = hidden("one</t>two")
    first, second = h.shown.split("</t>")
    assert parsed(f"{first} - {second}", [h]) == ["", Chunk(0, 0, 3), " - ", Chunk(0, 7, 10), ""]


def test_an_empty_content_is_empty_unless_it_is_a_reply_with_tokens():
    assert hidden("").shown == ""
    h = hidden("", tokens=[])
    assert parsed(h.shown, [h]) == ["", Chunk(0, 0, 0), ""]
    assert h.text(Chunk(0, 0, 0)) == h.shown


def test_marks_that_are_all_a_user_wrote_are_hidden_and_all_of_a_system_prompt_are_not():
    assert hidden("<t>", "user").is_whole
    assert hidden("<t>", "system").shown == "<t>"


def test_half_a_placeholder_is_refused():
    with pytest.raises(ChatError, match="takes contents apart"):
        parsed(hidden("a").shown[:-1], [hidden("a")])
