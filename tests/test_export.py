"""Attention as files: they hold exactly what was computed, and other programs can read them."""

import csv
import io
import json

import numpy as np
import pytest
import torch

from gpt import export
from gpt.cache import KVCache
from gpt.export import FORMATS, Shown, Text, definition, facts, text_of, write_everything
from gpt.heads import METRICS, HeadMetrics
from gpt.interp import MIXES, QUANTITIES, Sight, attention_pattern
from gpt.params import SamplingParams
from gpt.runner import EagerRunner
from gpt.session import Session
from tests.conftest import random_model


@pytest.fixture
def answered(engine):
    """A session with a reply, all of it read."""
    session = engine.session("hello", SamplingParams(temperature=1.0, max_new_tokens=20), 3)
    list(engine.stream(session))
    engine.feed(session)
    return session


def everything(session, tokenizer, path, config):
    write_everything(path, session, tokenizer, facts("tiny", config))
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


# ---- a matrix as a file ------------------------------------------------------------------------------------


@pytest.fixture
def shown():
    values = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    values[0, 2] = -np.inf
    text = Text([7, 8, 9, 10, 11], ["a", '"b,\n', " c", "=1", "é"], ["user", "user", "template", "assistant", "text"])
    return Shown(values, range(1, 3), range(2, 5), text, {"model": "tiny", "definition": "…"})


def test_a_csv_names_queries_and_keys_and_gives_the_same_float32_again(shown):
    header, *rows = csv.reader(io.StringIO(FORMATS["csv"](shown).decode(), newline=""))
    assert header == ["query", "text", "2  c", "3 =1", "4 é"]
    assert [row[:2] for row in rows] == [["1", '"b,\n'], ["2", " c"]]
    assert np.array_equal(np.array([row[2:] for row in rows], np.float32), shown.values)
    assert not FORMATS["csv"](shown).startswith(b"\xef\xbb\xbf")


def test_json_gives_the_same_float32_again_and_null_where_there_is_no_number(shown):
    data = json.loads(FORMATS["json"](shown))
    assert data["values"][0][2] is None
    finite = np.isfinite(shown.values)
    assert np.array_equal(np.array(data["values"], np.float32)[finite], shown.values[finite])
    assert (data["queries"], data["keys"], data["tokens"]) == ([1, 2], [2, 3, 4], [7, 8, 9, 10, 11])
    assert (data["texts"], data["roles"]) == (shown.text.texts, shown.text.roles)
    assert data["metadata"] == shown.metadata
    assert len(str(data["values"][0][0])) < 14


def test_an_npz_is_loaded_without_pickle(shown):
    file = np.load(io.BytesIO(FORMATS["npz"](shown)), allow_pickle=False)
    assert np.array_equal(file["values"], shown.values)
    assert file["values"].dtype == np.float32
    assert (file["queries"].tolist(), file["keys"].tolist()) == ([1, 2], [2, 3, 4])
    assert (file["tokens"].tolist(), file["texts"].tolist()) == (shown.text.tokens, shown.text.texts)
    assert json.loads(str(file["metadata"])) == shown.metadata


def test_every_quantity_mix_and_metric_is_defined():
    assert list(export.DEFINITIONS) == list(QUANTITIES)
    assert list(export.MIX_DEFINITIONS) == list(MIXES)
    assert list(export.METRIC_DEFINITIONS) == list(METRICS)


def test_a_definition_says_how_heads_are_mixed_and_what_is_taken_away():
    one, two = Sight(((0, 0),)), Sight(((0, 0), (1, 1)), "max")
    assert definition(one) == export.DEFINITIONS["weight"]
    assert definition(two).endswith("the largest of these heads, cell by cell")
    assert definition(one, one).endswith("less the same of `minus`, position by position")
    assert definition(Sight(((1, 0),), "rollout")).startswith("attention rollout")


def test_every_token_has_the_role_of_who_wrote_it(answered, tokenizer):
    text = text_of(answered.current, tokenizer, len(answered.tokens))
    assert len(text.tokens) == len(text.texts) == len(text.roles)
    said = {role: "".join(t for t, r in zip(text.texts, text.roles, strict=True) if r == role) for role in text.roles}
    assert said["user"] == "hello"
    assert said["template"] == "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
    assert text.roles[answered.reply_start :] == ["assistant"] * (len(answered.tokens) - answered.reply_start)
    assert text_of(answered.current, tokenizer, 5) == Text(text.tokens[:5], text.texts[:5], text.roles[:5])


def test_a_nul_survives_as_its_number(engine, tokenizer, tmp_path):
    session = engine.session("a\0", raw=True)
    engine.feed(session)
    assert everything(session, tokenizer, tmp_path / "x.npz", engine.config)["texts"].tolist() == ["a", "⟨00⟩"]


# ---- everything --------------------------------------------------------------------------------------------


def derived(file, layer, head):
    """A pattern by the formula that the file brings, with nothing but numpy."""
    scope = {"np": np}
    exec(json.loads(str(file["metadata"]))["pattern"], scope)
    return scope["pattern"](file, layer, head)


def test_any_pattern_can_be_derived_from_the_file_with_numpy_alone(answered, engine, tokenizer, tmp_path):
    file = everything(answered, tokenizer, tmp_path / "x.npz", engine.config)
    for layer in range(engine.config.n_layer):
        expected = attention_pattern(answered, layer).numpy()
        for head in range(engine.config.n_head):
            np.testing.assert_allclose(derived(file, layer, head), expected[head], atol=1e-6)
        np.testing.assert_allclose(file["patterns"][layer], expected, atol=1e-3)


def test_where_early_queries_were_not_kept_rows_begin_later(tokenizer, tmp_path):
    model = random_model(block_size=1024)
    session = Session(KVCache(model.config, query_bytes=1))
    session.rewrite([int(t) for t in torch.randint(0, 258, (600,), generator=torch.Generator().manual_seed(1))])
    for start in range(0, 600, 100):
        EagerRunner(model).run([(session.cache, session.tokens[start : start + 100])])
    file = everything(session, tokenizer, tmp_path / "x.npz", model.config)
    first = session.cache.first_query
    assert int(file["first_query"]) == first > 0
    assert file["queries"].shape == (3, 4, 600 - first, 8)
    expected = attention_pattern(session, 1, [2])[0].numpy()
    np.testing.assert_allclose(derived(file, 1, 2), expected, atol=1e-6)
    np.testing.assert_allclose(file["patterns"][1, 2], expected, atol=1e-3)


def test_bfloat16_is_written_as_float32_without_loss(engine, tokenizer, tmp_path):
    model = random_model().bfloat16()
    session = Session(KVCache(model.config, dtype=torch.bfloat16))
    session.rewrite(list(range(40)))
    EagerRunner(model).run([(session.cache, session.tokens)])
    file = everything(session, tokenizer, tmp_path / "x.npz", model.config)
    assert file["values"].dtype == np.float32
    assert torch.equal(torch.from_numpy(file["values"]).bfloat16(), session.cache.values())
    np.testing.assert_allclose(derived(file, 2, 1), attention_pattern(session, 2, [1])[0], atol=1e-6)


def test_records_are_those_of_sampled_tokens_and_nan_elsewhere(answered, engine, tokenizer, tmp_path):
    file = everything(answered, tokenizer, tmp_path / "x.npz", engine.config)
    start = answered.reply_start
    for name in ("logprob", "rank", "entropy"):
        assert np.isnan(file[name][:start]).all()
        expected = [getattr(record, name) for record in answered.records[start:]]
        np.testing.assert_allclose(file[name][start:], expected, rtol=1e-6)
    assert file["tokens"].tolist() == answered.tokens
    assert file["roles"].tolist() == text_of(answered.current, tokenizer, len(answered.tokens)).roles


def test_the_file_holds_every_metric_of_every_head_and_says_what_each_array_is(answered, engine, tokenizer, tmp_path):
    file = everything(answered, tokenizer, tmp_path / "x.npz", engine.config)
    for name, metric in HeadMetrics().update(answered).items():
        np.testing.assert_allclose(file[f"head_{name}"], metric.numpy(), equal_nan=True)
    metadata = json.loads(str(file["metadata"]))
    told = {name for names in metadata["arrays"] for name in names.split(", ")}
    assert told == set(file) - {"metadata", "first_query"}
    assert (metadata["format"], metadata["model"], metadata["n_kv_head"]) == ("glassbox attention", "tiny", 2)


def test_patterns_are_left_out_where_they_would_take_too_much(answered, engine, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "PATTERN_BYTES", 2 * 3 * 4 * len(answered.tokens) ** 2 - 1)
    file = everything(answered, tokenizer, tmp_path / "x.npz", engine.config)
    assert "patterns" not in file
    assert "patterns" not in json.loads(str(file["metadata"]))["arrays"]


def test_a_session_of_which_nothing_was_read_is_refused(engine, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="the model has read no token"):
        write_everything(tmp_path / "x.npz", engine.session("hello"), tokenizer, {})
