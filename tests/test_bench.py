"""The bench's own logic, on a tiny engine; the peers are tested as they are used, by running the command."""

import argparse
import json

import pytest
import torch

from gpt import bench
from gpt.bench import Glassbox, KeysAndValues, comparison, interleave, main, parse, random_prompts
from gpt.bench_attention import attention_cost, attention_lines
from gpt.bench_peers import PEERS, Speed, speed
from gpt.bench_sampling import LARGE, SETTINGS, sampling_cost
from gpt.bench_sessions import sessions_cost, sessions_lines
from gpt.params import FILTERS


def test_speed_counts_the_first_token_as_prefill_and_the_others_as_decode():
    assert speed(100, [2.0, 0.1, 0.1, 0.2]) == Speed(prefill=50.0, decode=pytest.approx(7.5))


def test_programs_run_in_turn_and_medians_leave_the_warm_up_out():
    order = []

    class Fake:
        def __init__(self, name: str, rates: list[float]) -> None:
            self.name, self.rates = name, iter(rates)

        def run(self, prompt: list[int], n: int) -> Speed:
            order.append((self.name, prompt[0]))
            return Speed(1.0, next(self.rates))

    programs = {"a": Fake("a", [999, 1, 5, 3]), "b": Fake("b", [999, 2, 2, 8])}
    speeds = interleave(programs, iter([[0], [1], [2], [3], [4]]), n=4, rounds=3)
    assert speeds == {"a": Speed(1.0, 3), "b": Speed(1.0, 2)}
    assert order == [("a", 0), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3), ("a", 4), ("b", 4)]


def test_an_end_token_does_not_end_a_measurement(engine):
    program = Glassbox(engine)
    session = program.session([5, 6, 7])
    assert len(program.write(session, 40)) == 40
    assert len(session.tokens) == 43


def test_a_cache_without_queries_writes_the_same_text_and_is_smaller(engine):
    program = Glassbox(engine)
    whole, bare = program.session([5, 6, 7]), program.session([5, 6, 7], KeysAndValues(engine))
    for session in (whole, bare):
        program.write(session, 20)
    assert whole.tokens == bare.tokens
    c = engine.config
    keys_and_values, queries = 2 * c.n_layer * c.n_kv_head * c.head_dim, c.n_layer * c.n_head * c.head_dim
    without = keys_and_values + c.n_embd  # the last hidden state stays
    assert bare.cache.nbytes == whole.cache.nbytes * without / (without + queries)


def test_bytes_per_token_are_those_of_queries_keys_values_and_record(engine):
    program = Glassbox(engine)
    session = program.session([5, 6, 7])
    program.write(session, 20)
    c = engine.config
    cache = c.n_layer * (c.n_head + 2 * c.n_kv_head) * c.head_dim * 4
    assert cache < bench.bytes_per_token(session, 20) < cache + 20_000


def test_a_program_that_did_not_run_is_null():
    report = comparison({"glassbox": Speed(100.0, 30.0), "transformers": Speed(50.0, 10.0)})
    assert report["decode"] == {"glassbox": 30.0, "llama.cpp": None, "transformers": 10.0, PEERS[2]: None}
    assert report["ratios"]["decode"] == {"llama.cpp": None, "transformers": 3.0, PEERS[2]: None}
    assert report["ratios"]["prefill"]["transformers"] == 2.0


def test_the_cost_of_sampling_is_told_for_every_setting_and_as_a_share_of_a_step(engine):
    report = sampling_cost(engine, [5, 6, 7] * 5, n=6, step_seconds=0.5)
    assert {tuple(costs) for costs in report["ms"].values()} == {tuple(SETTINGS)}
    assert all(ms > 0 for costs in report["ms"].values() for ms in costs.values())
    assert report["share"]["every"] == pytest.approx(report["ms"]["258"]["every"] / 500)


def test_every_filter_acts_where_every_filter_is_measured():
    assert set(SETTINGS["every"].active()) == set(FILTERS)
    assert SETTINGS["nothing"].active() == ()


def test_the_cost_of_looking_at_attention_is_told_for_every_length_that_fits(engine):
    report = attention_cost(engine, random_prompts(258, 40), (30, 100, 600), repeats=1)
    assert list(report) == ["30", "100"]
    assert all(ms > 0 for costs in report.values() for ms in costs.values())
    lines = attention_lines(report)
    assert len({len(line) for line in lines}) == 1
    assert "30 tok" in lines[0]


def test_a_message_waits_for_its_own_tokens_only_and_sessions_share_their_steps(engine, monkeypatch):
    monkeypatch.setattr("gpt.bench_sessions.HISTORY", 50)
    fed: list[list[int]] = []
    run = engine.runner.run
    monkeypatch.setattr(engine.runner, "run", lambda feeds: fed.append([len(f[1]) for f in feeds]) or run(feeds))
    report = sessions_cost(engine, random_prompts(258, 40), n=3, repeats=2)
    reading, rounds = fed[:4], fed[4:]
    assert reading == [[50]] * 4
    assert rounds == 2 * ([[20]] * 4 + [[1]] * 4 + [[1] * 4] * 4)
    assert all(figure > 0 for figure in report.values())
    assert "20 tokens after 50 waits" in sessions_lines(report)[0]
    assert sessions_cost(engine, random_prompts(258, 40), n=500, repeats=1) is None
    assert sessions_lines(None) == []


@pytest.fixture
def tiny(engine, monkeypatch):
    """The command measures the tiny engine. It must not change the number of threads of the other tests."""
    monkeypatch.setattr(bench, "load", lambda name, dtype: engine)
    monkeypatch.setattr(bench, "resolve", lambda name: argparse.Namespace(suffix=""))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)


def test_the_json_has_the_documented_keys(tiny, capsys):
    command = ["--json", "--peers", "llama.cpp", "--context", "20", "--tokens", "3", "--repeats", "1"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert set(report) == {
        "decode", "prefill", "ratios", "queries_cost", "sampling", "attention", "sessions",
        "session_bytes_per_token", "load_seconds", "peak_rss_bytes", "machine",
    }  # fmt: skip
    assert set(report["decode"]) == set(report["prefill"]) == {"glassbox", *PEERS}
    assert report["decode"]["glassbox"] > 0
    assert report["decode"]["llama.cpp"] is None
    assert set(report["sampling"]["ms"]) == {"258", str(LARGE)}
    assert "llama.cpp is left out" in err


def test_the_table_shows_every_program(tiny, capsys):
    assert main(["--peers", "", "--context", "20", "--tokens", "3", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PEERS)
    assert "of decode speed" in out
    assert "choosing a token, ms" in out


def test_more_than_the_context_is_refused_in_one_sentence(tiny, capsys):
    assert main(["--peers", "", "--context", "600"]) == 2
    assert "the model holds 512; ask for fewer" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--peers", "ollama"], ["--tokens", "1"], ["--repeats", "0"]])
def test_wrong_options_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        parse(wrong)
    assert "--" in capsys.readouterr().err
