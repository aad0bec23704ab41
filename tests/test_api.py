"""The named endpoints, through gradio_client and REST, on a running server with a tiny model."""

import json
import socket
from itertools import pairwise

import gradio as gr
import httpx
import numpy as np
import pytest
import torch
from gradio.utils import get_function_description
from gradio_client import Client
from gradio_client.exceptions import AppError

from demo.api import add_endpoints
from demo.layout import build_demo, launch
from gpt.heads import METRICS, HeadMetrics
from gpt.interp import Sight, attention_pattern, rollout, sight_rows
from gpt.params import SamplingParams


@pytest.fixture(scope="module")
def address(engine):
    demo = build_demo(engine)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    yield launch(demo, "127.0.0.1", port)
    demo.close()


@pytest.fixture(scope="module")
def client(address, tmp_path_factory):
    return Client(address, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def reply_of(engine, message, params, seed=0):
    session = engine.session(message, params, seed)
    return "".join(event.text for event in engine.stream(session))


def test_the_six_endpoints_and_no_other_are_public(client):
    schema = client.view_api(return_format="dict", print_info=False)
    names = {"/chat", "/tokens", "/attention", "/heads", "/attention_file", "/distribution"}
    assert set(schema["named_endpoints"]) == names
    assert schema["unnamed_endpoints"] == {}


def test_every_argument_has_a_name_a_type_and_an_explanation(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    names = {p["parameter_name"]: p["python_type"]["type"] for p in endpoints["/chat"]["parameters"]}
    assert names["temperature"] == "float"
    assert list(names)[:9] == ["message", "system", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
                               "max_new_tokens", "seed"]  # fmt: skip
    assert set(names) == {"message", "system", "seed", *SamplingParams().as_dict()}
    assert "streams the reply's text so far" in json.dumps(endpoints["/chat"])
    assert all(p["parameter_has_default"] or p["parameter_name"] == "message" for p in endpoints["/chat"]["parameters"])


def test_every_argument_is_explained_in_the_docstring_that_callers_are_shown(engine):
    with gr.Blocks() as blocks:
        add_endpoints(engine, engine)
    for made in blocks.fns.values():
        description, explained, _ = get_function_description(made.fn)
        assert description
        assert all(explained.values()), explained


def test_chat_streams_growing_text_and_ends_with_the_whole_reply(client, engine):
    params = SamplingParams(temperature=0.9, top_k=20, max_new_tokens=80)
    states = list(client.submit("hello", temperature=0.9, top_k=20, max_new_tokens=80, seed=3, api_name="/chat"))
    assert len(states) > 1
    assert all(after.startswith(before) for before, after in pairwise(states))
    assert states[-1] == reply_of(engine, "hello", params, seed=3)


def test_chat_takes_every_sampling_parameter(client, engine):
    settings = {"stop": ["z"], "banned": ["b"], "logit_bias": [[[70], 5]], "grammar": ["regex", "[a-z]*"],
                "order": ["top_k"], "xtc_probability": 0.5, "dry_multiplier": 0.8, "mirostat_tau": 3.0}  # fmt: skip
    reply = client.predict("hello", max_new_tokens=30, seed=2, **settings, api_name="/chat")
    assert reply == reply_of(engine, "hello", SamplingParams(max_new_tokens=30, **settings), seed=2)
    assert set(reply) <= set("acdefghijklmnopqrstuvwxyz")


def test_the_distribution_of_the_next_token_is_the_models_and_what_the_filters_make_of_it(client, engine):
    reply = client.predict(text="hello", n=5, temperature=0.5, top_k=3, seed=4, api_name="/distribution")
    logits = engine.model(torch.tensor([engine.tokenizer.encode("hello")]), torch.arange(5))[0, -1]
    raw, final = logits.softmax(0), (logits / 0.5).softmax(0)
    top = raw.topk(5)
    told = reply["candidates"][:5]
    assert [c["token"] for c in told] == top.indices.tolist()
    assert [c["raw"] for c in told] == pytest.approx(top.values.tolist(), abs=1e-4)
    kept = final[top.indices[:3]] / final[top.indices[:3]].sum()
    assert [c["final"] for c in told] == pytest.approx([*kept.tolist(), 0, 0], abs=1e-4)
    assert [c["removed_by"] for c in told] == [None] * 3 + ["top_k"] * 2
    assert [(s["filter"], s["tokens"]) for s in reply["stages"]] == [("temperature", 258), ("top_k", 3)]
    assert reply["drawn"] in top.indices[:3].tolist()


def test_the_distribution_after_a_conversation_is_that_of_the_replys_first_token(client, engine):
    messages = [{"role": "user", "content": "hello"}]
    reply = client.predict(messages=messages, seed=3, temperature=1.0, api_name="/distribution")
    session = engine.session(messages, SamplingParams(temperature=1.0), 3)
    assert reply["drawn"] == next(engine.stream(session)).token


def test_chat_obeys_the_system_prompt_and_the_seed(client):
    replies = [
        client.predict("hello", max_new_tokens=10, temperature=1.5, api_name="/chat", **more)
        for more in ({"seed": 1}, {"seed": 1}, {"seed": 2}, {"seed": 1, "system": "Be brief."})
    ]
    assert replies[0] == replies[1]
    assert len(set(replies)) == 3


def test_two_calls_do_not_share_a_session(client):
    jobs = [client.submit("hello", max_new_tokens=20, seed=5, api_name="/chat") for _ in range(3)]
    assert len({job.result() for job in jobs}) == 1


def test_tokens_are_ids_and_pieces(client, engine):
    reply = client.predict("hé <|im_end|>", api_name="/tokens")
    assert reply["ids"] == engine.tokenizer.encode("hé <|im_end|>")
    assert 1 not in reply["ids"]
    assert reply["pieces"][:3] == ["h", "⟨c3⟩", "⟨a9⟩"]


def test_attention_of_a_text_is_the_models_own(client, engine):
    reply = client.predict(2, 3, text="hello there", api_name="/attention")
    session = engine.session("hello there", raw=True)
    engine.feed(session)
    np.testing.assert_allclose(reply["weights"], attention_pattern(session, 2, [3])[0], atol=1e-6)
    assert "".join(reply["pieces"]) == "hello there"


def test_attention_of_a_conversation_is_read_through_the_chat_template(client):
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "so"},
    ]
    reply = client.predict(0, 0, messages=messages, api_name="/attention")
    assert "".join(reply["pieces"]).startswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>")
    np.testing.assert_allclose(np.sum(reply["weights"], axis=1), 1, atol=1e-4)


def test_attention_takes_token_ids_several_heads_and_some_rows(client, engine):
    tokens = [*engine.tokenizer.encode("hello there"), 1, 0, 70]
    heads = [[0, 1], [2, 3]]
    reply = client.predict(tokens=tokens, heads=heads, mix="max", rows=[4, 9], api_name="/attention")
    session = engine.session()
    session.rewrite(tokens)
    engine.feed(session)
    expected = torch.maximum(attention_pattern(session, 0, [1]), attention_pattern(session, 2, [3]))[0, 4:9]
    np.testing.assert_allclose(reply["weights"], expected, atol=1e-6)
    assert (reply["ids"], reply["rows"]) == (tokens, [4, 9])
    assert reply["definition"].endswith("the largest of these heads, cell by cell")


@pytest.mark.parametrize("what", ["rest", "score", "value"])
def test_attention_shows_other_quantities_and_null_where_a_score_does_not_exist(client, engine, what):
    session = engine.session("hello there", raw=True)
    engine.feed(session)
    reply = client.predict(1, 2, text="hello there", what=what, api_name="/attention")
    expected = sight_rows(session, Sight(((1, 2),), what=what), range(11), engine.gram).numpy()
    assert (reply["weights"][3][4] is None) == (what == "score")
    told = np.nan_to_num(np.array(reply["weights"], np.float32), nan=-np.inf)
    np.testing.assert_allclose(told, expected, rtol=1e-5, atol=1e-6)


def test_attention_rolls_all_layers_up_to_one_out(client, engine):
    session = engine.session("hello there", raw=True)
    engine.feed(session)
    reply = client.predict(1, 0, text="hello there", mix="rollout", rows=[2, 5], api_name="/attention")
    np.testing.assert_allclose(reply["weights"], rollout(session, 1)[2:5], atol=1e-6)


def test_a_long_text_is_answered_in_rows_and_refused_as_a_whole(client, monkeypatch):
    monkeypatch.setattr("demo.api_attention.MAX_CELLS", 400 * 100)
    with pytest.raises(AppError, match=r"rows 0 to 400 of 400 tokens are 160,000 cells; at most 40,000 are returned"):
        client.predict(0, 0, text="x" * 400, api_name="/attention")
    reply = client.predict(0, 0, text="x" * 400, rows=[300, 400], api_name="/attention")
    assert np.shape(reply["weights"]) == (100, 400)


def test_heads_gives_every_metric_of_every_head_with_what_it_means(client, engine):
    messages = [{"role": "user", "content": "hello hello"}]
    reply = client.predict(messages=messages, api_name="/heads")
    session = engine.session(messages)
    engine.feed(session)
    assert list(reply["metrics"]) == list(reply["definitions"]) == list(METRICS)
    for name, metric in HeadMetrics().update(session).items():
        np.testing.assert_allclose(np.array(reply["metrics"][name], np.float32), metric, rtol=1e-5, equal_nan=True)
    assert reply["ids"] == session.tokens


def test_heads_of_a_text_has_no_user_to_look_at(client):
    reply = client.predict(text="hello hello", api_name="/heads")
    assert reply["metrics"]["user"] == [[None] * 4] * 3
    assert np.all(np.array(reply["metrics"]["first"]) > 0)


def test_the_attention_file_is_downloaded_and_holds_every_pattern(client, engine):
    path = client.predict(tokens=[72, 0, 105, 33, 33], api_name="/attention_file")
    session = engine.session()
    session.rewrite([72, 0, 105, 33, 33])
    engine.feed(session)
    with np.load(path) as file:
        assert file["tokens"].tolist() == session.tokens
        for layer in range(3):
            np.testing.assert_allclose(file["patterns"][layer], attention_pattern(session, layer), atol=1e-3)
        scope = {"np": np}
        exec(json.loads(str(file["metadata"]))["pattern"], scope)
        np.testing.assert_allclose(scope["pattern"](file, 2, 3), attention_pattern(session, 2, [3])[0], atol=1e-6)
    assert path.endswith("attention-tiny-5-tokens.npz")


def test_the_attention_file_of_a_conversation_knows_who_said_what(client):
    path = client.predict(messages=[{"role": "user", "content": "hi"}], api_name="/attention_file")
    with np.load(path) as file:
        assert "".join(file["texts"][file["roles"] == "user"]) == "hi"
        assert np.isfinite(file["head_user"]).all()


@pytest.mark.parametrize(("endpoint", "args", "says"), [
    ("/chat", {"message": ""}, "empty"),
    ("/chat", {"message": "x" * 3000}, "context of 512 tokens"),
    ("/chat", {"message": "x", "temperature": -0.1}, "temperature must be a number from 0.0 to 5.0"),
    ("/chat", {"message": "x", "temperature": "hot"}, "temperature"),
    ("/chat", {"message": "x", "top_p": 0}, "top_p"),
    ("/chat", {"message": "x", "top_k": 1.5}, "top_k must be a whole number"),
    ("/chat", {"message": "x", "max_new_tokens": 0}, "max_new_tokens"),
    ("/chat", {"message": "x", "seed": -1}, "seed"),
    ("/tokens", {"text": " "}, "empty"),
    ("/attention", {"layer": 3, "head": 0, "text": "x"}, "layer must be a whole number from 0 to 2"),
    ("/attention", {"layer": 0, "head": 4, "text": "x"}, "head must be a whole number from 0 to 3"),
    ("/attention", {"layer": 0, "head": 0}, "empty"),
    ("/attention", {"layer": 0, "head": 0, "text": "x" * 513}, "context of 512"),
    ("/attention", {"layer": 0, "head": 0, "messages": [{"role": "robot", "content": "x"}]}, "roles"),
    ("/attention", {"layer": 0, "head": 0, "messages": "hello"}, "messages must be a list"),
    ("/attention", {"tokens": []}, "tokens must be a list of token ids from 0 to 257"),
    ("/attention", {"tokens": "hello"}, "tokens must be a list of token ids"),
    ("/attention", {"tokens": [70, 258]}, "tokens must be a whole number from 0 to 257, got 258"),
    ("/attention", {"tokens": [70] * 513}, "context of 512"),
    ("/attention", {"text": "x", "heads": [[0, 4]]}, "head must be a whole number from 0 to 3"),
    ("/attention", {"text": "x", "heads": []}, "heads must be a list of"),
    ("/attention", {"text": "x", "heads": [0, 1]}, "heads must be a list of"),
    ("/attention", {"text": "x", "mix": "sum"}, "mix must be one of mean, max, rollout"),
    ("/attention", {"text": "x", "what": "colour"}, "what must be one of weight, rest, score, value"),
    ("/attention", {"text": "x", "heads": [[0, 0], [0, 1]], "mix": "rollout"}, "rollout takes one head"),
    ("/attention", {"text": "xyz", "rows": [2, 4]}, "rows must be .from, to. within 0 and 3"),
    ("/attention", {"text": "xyz", "rows": [1, 1]}, "rows must be"),
    ("/attention", {"text": "xyz", "rows": 1}, "rows must be"),
    ("/heads", {"text": ""}, "empty"),
    ("/heads", {"tokens": [-1]}, "tokens must be a whole number"),
    ("/attention_file", {"text": "x" * 513}, "context of 512"),
    ("/attention_file", {}, "empty"),
    ("/chat", {"message": "x", "grammar": ["regex", "("]}, "grammar"),
    ("/chat", {"message": "x", "stop": "x"}, "stop must be a list"),
    ("/distribution", {"text": ""}, "empty"),
    ("/distribution", {"text": "x" * 513}, "context of 512"),
    ("/distribution", {"text": "x", "n": 0}, "n must be a whole number"),
    ("/distribution", {"text": "x", "logit_bias": [[[258], 1]]}, "logit_bias"),
])  # fmt: skip
def test_bad_input_is_answered_with_a_sentence(client, endpoint, args, says):
    with pytest.raises(AppError, match=says):
        client.predict(**args, api_name=endpoint)


def test_a_stream_can_be_cancelled(client):
    job = client.submit("hello", max_new_tokens=400, temperature=1.0, api_name="/chat")
    next(iter(job))
    job.cancel()
    assert job.done() or job.status() is not None


def test_rest_takes_arguments_by_name_and_streams(address, engine):
    url = f"{address}gradio_api/call/v2/chat"
    event = httpx.post(url, json={"message": "hello", "max_new_tokens": 5, "temperature": 0}).json()["event_id"]
    lines = httpx.get(f"{address}gradio_api/call/chat/{event}", timeout=30).text.splitlines()
    data = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert data[-1] == [reply_of(engine, "hello", SamplingParams(temperature=0, max_new_tokens=5))]
