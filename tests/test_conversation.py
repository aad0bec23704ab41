"""Messages and tokens in both directions, for chat and base models, and what is left out of a full context."""

import pytest

from gpt.cache import KVCache
from gpt.chat import ChatTemplate, Message
from gpt.conversation import fit, messages_of
from gpt.engine import Engine
from gpt.params import SamplingParams
from gpt.session import Session
from gpt.tokenizer import Tokenizer
from tests import family_templates as families
from tests.conftest import random_model
from tests.test_chat import messages
from tests.test_encoders import pieces
from tests.test_templates import THOUGHT, chatml


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Tokenizer:
    """A tokenizer that puts a space before a text."""
    folder = tmp_path_factory.mktemp("llama")
    pieces().save(str(folder / "tokenizer.json"))
    return Tokenizer.from_folder(folder)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("qwen")
    chatml().save(str(folder / "tokenizer.json"))
    return Tokenizer.from_folder(folder)


def session_of(model, given: list[Message], chat: ChatTemplate | None, tokenizer: Tokenizer, reply: str) -> Session:
    """A session in which `reply` was written to a conversation."""
    session = Session(KVCache(model.config))
    prompt, _ = fit(given, chat, tokenizer, 400)
    session.rewrite(prompt.tokens, prompt.spans)
    session.current.tokens += tokenizer.locate(reply, "text")[0]
    return session


def test_a_reply_to_a_chat_begins_without_the_space_of_its_first_token(model, llama):
    chat = ChatTemplate(families.LLAMA2, llama, {"bos_token": "<s>", "eos_token": "</s>"})
    session = session_of(model, messages(("user", "Hi")), chat, llama, " Hello")
    assert [m["content"] for m in messages_of(session, llama)] == ["Hi", "Hello"]


def test_a_text_that_goes_on_keeps_the_space_between(model, llama):
    session = session_of(model, messages(("user", "Once upon")), None, llama, " a time")
    said = messages_of(session, llama)
    assert [m["content"] for m in said] == ["Once upon", " a time"]
    again, _ = fit([*said, *messages(("user", "more"))], None, llama, 400)
    assert again.tokens[: len(session.tokens)] == session.tokens
    assert llama.decode(again.tokens) == "Once upon a time\n\nmore"


def test_a_message_that_a_template_shows_in_parts_is_one_message(model, qwen):
    chat = ChatTemplate(families.QWEN3, qwen, {})
    asked = messages(("user", "Hi"), ("assistant", THOUGHT), ("user", "More </think> please"))
    session = session_of(model, asked, chat, qwen, "ok")
    said = messages_of(session, qwen)
    assert [m["content"] for m in said] == ["Hi", "Hello you!", "More </think> please", "ok"]


def test_a_text_that_was_cut_fits_even_if_it_takes_a_token_more(llama):
    for room in range(20, 40):
        prompt, cut = fit(messages(("user", "the cat sat on the mat, and " * 9)), None, llama, room)
        assert len(prompt.tokens) <= room
        assert cut.tokens
    with pytest.raises(ValueError, match="takes up the whole context"):
        fit(messages(("user", "x")), None, llama, 0)


@pytest.mark.parametrize("stop", [(), ("zz",)])
@pytest.mark.parametrize("raw", [False, True])
def test_what_is_streamed_is_what_the_message_says(llama, stop, raw):
    chat = ChatTemplate(families.LLAMA2, llama, {"bos_token": "<s>", "eos_token": "</s>"})
    engine = Engine(random_model(vocab_size=llama.n_vocab), llama, chat, "tiny")
    space = llama.locate(" the", "text")[0][0]
    params = SamplingParams(max_new_tokens=12, stop=stop, logit_bias=(((space,), 100.0),))
    for seed in range(3):
        session = engine.session("Hi", params, seed, raw=raw)
        shown = "".join(event.text for event in engine.stream(session))
        reply = session.tokens[session.reply_start :]
        assert llama.token_bytes(reply[0]).startswith(b" ")
        assert llama.decode(reply, opening=not raw).startswith(shown)
        assert shown.startswith(" ") is raw
