"""Every string exists in both languages, and the page asks for none that does not exist."""

import re
from pathlib import Path

from demo.i18n import STRINGS

SCRIPTS = "".join(p.read_text("utf-8") for p in (Path(__file__).parent.parent / "assets" / "js").glob("*.js"))


def test_both_languages_have_the_same_strings_with_the_same_places_to_fill():
    english, chinese = STRINGS["en"], STRINGS["zh"]
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert set(re.findall(r"\{\d\}", text)) == set(re.findall(r"\{\d\}", chinese[key])), key


def test_the_page_asks_only_for_strings_that_exist():
    asked = set(re.findall(r"\bt\('([\w-]+)'", SCRIPTS)) | set(re.findall(r"dataset\.(?:t|tip) = '([\w-]+)'", SCRIPTS))
    assert len(asked) > 50
    assert asked <= STRINGS["en"].keys()


def test_no_string_is_left_over():
    families = set(re.findall(r"[`']([\w-]+_)(?:'|\$\{)", SCRIPTS))  # `role_${name}`, and prefixes like 'attn_metric_'
    for key in STRINGS["en"]:
        assert re.search(rf"['\"`]{re.escape(key)}['\"`]", SCRIPTS) or key.startswith(tuple(families)), key
