"""The chat templates of every family: the ids of transformers, whole conversations, and nothing lost on the way."""

import pytest
from tokenizers import AddedToken, normalizers
from tokenizers import Tokenizer as Reference

from gpt import cuts
from gpt.chat import ChatError, ChatTemplate, Prompt
from gpt.tokenizer import Tokenizer
from tests import family_templates as families
from tests.test_chat import assert_covered, messages
from tests.test_encoders import byte_bpe, gemma, pieces, split

TURNS = [
    [("user", "Who wrote Hamlet?")],
    [("user", "1 + 1?"), ("assistant", "It is 2."), ("user", "你好 naïve\n\n    def f(x):\n        return x")],
    [("system", "Be brief."), ("user", "Hi you"), ("assistant", "Ho!"), ("user", "'s more ..."), ("assistant", "x")],
]
THOUGHT = "<think>\nThe user greets.\n</think>\n\nHello you!"


def with_specials(made: Reference, *names: str, **flags: bool) -> Reference:
    made.add_special_tokens([AddedToken(name, **flags) for name in names])
    return made


def chatml() -> Reference:
    made = with_specials(byte_bpe(split(cuts.QWEN2), normalizers.NFC()), "<|im_start|>", "<|im_end|>")
    made.add_tokens([AddedToken(name, normalized=False) for name in ("<think>", "</think>")])
    return made


def turns_of_gemma() -> Reference:
    return with_specials(gemma(), "<start_of_turn>", "<end_of_turn>")


FAMILIES = {
    "LLAMA2": pieces,
    "LLAMA3": lambda: with_specials(
        byte_bpe(split(cuts.LLAMA3)), "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
    ),
    "MISTRAL": lambda: with_specials(pieces(every=False), "[INST]", "[/INST]"),
    "GEMMA2": turns_of_gemma,
    "GEMMA3": turns_of_gemma,
    "PHI3": lambda: with_specials(pieces(), "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", rstrip=True),
    "CHATML": chatml,
    "QWEN25": chatml,
    "QWEN3": chatml,
    "SMOLLM3": lambda: with_specials(byte_bpe(split(cuts.LLAMA3)), "<|im_start|>", "<|im_end|>"),
    "ZEPHYR": pieces,
    "OLMO2": lambda: byte_bpe(split(cuts.LLAMA3)),
}
WITHOUT_SYSTEM = ("GEMMA2",)


class Family:
    """A family's template and tokenizer, ours and transformers'."""

    def __init__(self, name: str, folder):
        from transformers import PreTrainedTokenizerFast

        made = FAMILIES[name]()
        made.save(str(folder / "tokenizer.json"))
        self.name, self.tokenizer = name, Tokenizer.from_folder(folder)
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        self.chat = ChatTemplate(getattr(families, name), self.tokenizer, names)
        self._theirs = PreTrainedTokenizerFast(tokenizer_object=made, **names)

    def theirs(self, turns: list, reply: bool = True) -> list[int]:
        given = [{"role": m["role"], "content": m["content"]} for m in turns]
        return self._theirs.apply_chat_template(
            given, chat_template=self.chat.source, add_generation_prompt=reply, return_dict=False
        )

    def shown(self, prompt: Prompt) -> list[str]:
        return [self.tokenizer.decode(prompt.tokens[s.start : s.end], opening=False) for s in prompt.spans]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory) -> Family:
    return Family(request.param, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> Family:
    return Family("QWEN3", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="module")
def smollm3(tmp_path_factory) -> Family:
    return Family("SMOLLM3", tmp_path_factory.mktemp("smollm3"))


@pytest.mark.parametrize("reply", [True, False])
@pytest.mark.parametrize("turns", TURNS, ids=len)
def test_conversations_give_the_ids_of_transformers(family, turns, reply):
    if family.name in WITHOUT_SYSTEM and turns[0][0] == "system":
        return
    given = messages(*turns)
    prompt = family.chat.encode(given, reply=reply)
    assert prompt.tokens == family.theirs(given, reply)
    assert_covered(prompt)
    said = {span.message: span for span in prompt.spans if span.message is not None}
    assert sorted(said) == list(range(len(turns)))
    for index, (role, content) in enumerate(turns):
        span = said[index]
        assert (span.role, span.text) == (role, content)
        moved = family.name == "MISTRAL" and role == "system"  # there it stands before the newest question alone
        shown = family.tokenizer.decode(prompt.tokens[span.start : span.end], opening=False)
        assert moved or shown.strip() == content


def test_a_template_says_whether_it_takes_a_system_prompt(family):
    assert family.chat.takes_system is (family.name not in WITHOUT_SYSTEM)


def test_a_generated_reply_stays_as_it_was_whatever_stands_around_it(family):
    asked = messages(("user", "Hi you"))
    before = family.chat.encode(asked).tokens
    reply = [*family.tokenizer.locate(" Hello", "text")[0], *family.tokenizer.locate("!?", "text")[0]]
    said = {"role": "assistant", "content": family.tokenizer.decode(reply), "tokens": reply}
    prompt = family.chat.encode([*asked, said, *messages(("user", "more"))])
    span = next(s for s in prompt.spans if s.message == 1)
    assert prompt.tokens[span.start : span.end] == reply
    assert_covered(prompt)
    if family.name not in ("LLAMA2", "MISTRAL", "SMOLLM3", "PHI3", "ZEPHYR", "OLMO2"):  # these write before a reply
        assert prompt.tokens[: span.end] == before + reply


def test_a_template_without_a_system_role_refuses_it_in_its_own_words(tmp_path):
    chat = Family("GEMMA2", tmp_path).chat
    with pytest.raises(ChatError, match="System role not supported; it takes no system prompt, so leave that empty"):
        chat.encode(messages(("system", "Be brief."), ("user", "Hi")))


@pytest.mark.parametrize("name", ["LLAMA2", "MISTRAL", "GEMMA2"])
def test_roles_that_do_not_take_turns_are_refused_in_the_templates_own_words(tmp_path, name):
    with pytest.raises(ChatError, match=r"must (take turns|alternate)"):
        Family(name, tmp_path).chat.encode(messages(("user", "a"), ("user", "b")))


def test_the_default_system_prompt_of_a_template_is_a_system_span(tmp_path):
    prompt = Family("QWEN25", tmp_path).chat.encode(messages(("user", "Hi")))
    assert (prompt.spans[1].role, prompt.spans[1].text) == ("system", "You are a helpful assistant.")


def test_a_system_prompt_may_stand_in_a_later_message(tmp_path):
    family = Family("MISTRAL", tmp_path)
    given = messages(("system", "Be brief."), ("user", "one"), ("assistant", "two"), ("user", "three"))
    spans = [s for s in family.chat.encode(given).spans if s.message is not None]
    assert [(s.role, s.message) for s in spans] == [("user", 1), ("assistant", 2), ("system", 0), ("user", 3)]


# What templates look for in contents


def test_what_was_thought_before_is_left_out_of_what_the_model_reads(qwen3):
    given = messages(("user", "Hi"), ("assistant", THOUGHT), ("user", "More"))
    prompt = qwen3.chat.encode(given)
    assert prompt.tokens == qwen3.theirs(given)
    (span,) = [s for s in prompt.spans if s.message == 1]
    assert qwen3.tokenizer.decode(prompt.tokens[span.start : span.end]) == "Hello you!"
    assert span.text == THOUGHT


def test_what_was_thought_last_is_shown_where_the_template_puts_it(qwen3):
    given = messages(("user", "Hi"), ("assistant", THOUGHT))
    prompt = qwen3.chat.encode(given, reply=False)
    assert prompt.tokens == qwen3.theirs(given, reply=False)
    spans = [s for s in prompt.spans if s.message == 1]
    assert qwen3.tokenizer.decode(prompt.tokens[spans[0].start : spans[-1].end]) == THOUGHT


def test_the_rest_of_a_generated_reply_keeps_its_own_tokens(qwen3):
    head = qwen3.tokenizer.encode("<think>\nThe user greets.\n</think>\n\n")
    rest = [qwen3.tokenizer.encode(letter)[0] for letter in "Hello"]  # not as the tokenizer would write it
    reply = {"role": "assistant", "content": qwen3.tokenizer.decode([*head, *rest]), "tokens": [*head, *rest]}
    prompt = qwen3.chat.encode([*messages(("user", "Hi")), reply, *messages(("user", "More"))])
    (span,) = [s for s in prompt.spans if s.message == 1]
    assert prompt.tokens[span.start : span.end] == rest


def test_a_reply_that_was_stopped_while_thinking_is_kept_whole(qwen3):
    given = messages(("user", "Hi"), ("assistant", "<think>\nThe user"), ("user", "More"))
    prompt = qwen3.chat.encode(given)
    assert prompt.tokens == qwen3.theirs(given)
    (span,) = [s for s in prompt.spans if s.message == 1]
    assert qwen3.tokenizer.decode(prompt.tokens[span.start : span.end]) == "<think>\nThe user"


def test_a_reply_of_nothing_but_thought_keeps_its_place(qwen3):
    given = messages(("user", "Hi"), ("assistant", "<think>\nhm\n</think>\n\n"), ("user", "More"))
    prompt = qwen3.chat.encode(given)
    assert prompt.tokens == qwen3.theirs(given)
    assert [s.message for s in prompt.spans if s.message is not None] == [0, 1, 2]
    assert_covered(prompt)


@pytest.mark.parametrize(
    "typed", ["a <think> b </think> c", "</think>", "<tool_response>x</tool_response>", "x</think>"]
)
def test_what_a_user_types_of_it_is_the_users(qwen3, typed):
    given = messages(("user", typed), ("assistant", "ok"), ("user", f"more {typed}"))
    prompt = qwen3.chat.encode(given)
    assert prompt.tokens == qwen3.theirs(given)
    assert_covered(prompt)
    for index, content in ((0, typed), (2, f"more {typed}")):
        spans = [s for s in prompt.spans if s.message == index]
        shown = qwen3.tokenizer.decode(prompt.tokens[spans[0].start : spans[-1].end])
        assert shown == content
        assert {s.text for s in spans} == {content}


@pytest.mark.parametrize(
    ("system", "shown"),
    [("Be nice. /no_think", "Be nice."), ("/no_think", ""), ("/think Be nice.", "Be nice."), ("Be nice.", "Be nice."),
     ("Only this. /system_override", "Only this.")],
)  # fmt: skip
def test_a_switch_in_the_system_prompt_acts_and_is_not_lost(smollm3, system, shown):
    given = messages(("system", system), ("user", "Hi"), ("assistant", "Ho"), ("user", "More"))
    prompt = smollm3.chat.encode(given)
    assert smollm3.tokenizer.decode(prompt.tokens).split() == smollm3.tokenizer.decode(smollm3.theirs(given)).split()
    (span,) = [s for s in prompt.spans if s.message == 0]
    assert smollm3.tokenizer.decode(prompt.tokens[span.start : span.end]).strip() == shown
    assert span.text == system
    assert_covered(prompt)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "changes contents"),
        ("{% for m in messages %}{{ m.content[1:] }}{% endfor %}", "takes contents apart"),
        ("{% for m in messages %}{{ m.content | length }}{% endfor %}", "no place for message 0, of the user"),
        (
            "{% for m in messages %}{% if m.content == 'Hi' %}!{% endif %}{{ m.content }}{% endfor %}",
            "changes contents",
        ),
    ],
)
def test_what_a_template_does_to_contents_and_cannot_be_followed_is_refused(qwen3, template, words):
    with pytest.raises(ChatError, match=words):
        ChatTemplate(template, qwen3.tokenizer, {}).encode(messages(("user", "Hi")))


def test_a_template_that_leaves_a_system_prompt_out_says_so(qwen3):
    source = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    chat = ChatTemplate(source, qwen3.tokenizer, {})
    assert chat.takes_system is False
    with pytest.raises(ChatError, match=r"no place for message 0, .* no system prompt, so leave that empty"):
        chat.encode(messages(("system", "Be brief."), ("user", "Hi")))
    assert chat.encode(messages(("user", "Hi"))).tokens == qwen3.tokenizer.encode("Hi")


def test_a_word_that_a_template_knows_is_the_users_when_a_user_types_it(tmp_path):
    family = Family("GEMMA2", tmp_path)
    given = messages(("user", "model"), ("assistant", "model"), ("user", "user model"))
    prompt = family.chat.encode(given)
    assert prompt.tokens == family.theirs(given)
    assert [s.text for s in prompt.spans if s.end > s.start and s.message is not None] == [m["content"] for m in given]


def test_thought_is_left_out_beside_an_empty_reply_too(qwen3):
    empty = {"role": "assistant", "content": "", "tokens": []}
    given = messages(("user", "Hi"), ("assistant", THOUGHT), ("user", "More"))
    prompt = qwen3.chat.encode([*given, empty, *messages(("user", "Hello?"))])
    assert "greets" not in qwen3.tokenizer.decode(prompt.tokens)
    assert [s.message for s in prompt.spans if s.message is not None] == [0, 1, 2, 3, 4]


def test_a_mark_that_is_all_a_user_wrote_is_the_users_where_contents_are_cut(qwen3):
    given = messages(("user", "</think>"), ("assistant", THOUGHT), ("user", "</think>"))
    prompt = qwen3.chat.encode(given)
    assert prompt.tokens == qwen3.theirs(given)
    said = [prompt.tokens[s.start : s.end] for s in prompt.spans if s.role == "user"]
    assert [qwen3.tokenizer.decode(tokens) for tokens in said] == ["</think>", "</think>"]
