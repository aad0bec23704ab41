"""Steps over buffers that never move against eager ones: tokens, patterns, every change of history, many sessions."""

from contextlib import nullcontext

import pytest
import torch

from gpt import runner as runners
from gpt.bench import Glassbox, KeysAndValues
from gpt.cache import KVCache
from gpt.engine import Engine
from gpt.interp import attention_pattern
from gpt.params import SamplingParams
from gpt.runner import EagerRunner, GraphRunner
from tests.conftest import random_model

WARM = SamplingParams(temperature=1.0, max_new_tokens=24)


@pytest.fixture(
    params=[{}, {"windows": (7, 0, 20)}, {"softcap": 3.0, "qk_norm": "head"}], ids=["plain", "windows", "cap"]
)
def pair(request, tokenizer, chat) -> tuple[Engine, Engine]:
    """An eager engine and one that steps over slots, of the same model."""
    model = random_model(**request.param)
    return Engine(model, tokenizer, chat, "a"), Engine(model, tokenizer, chat, "b", GraphRunner(model))


def assert_same(one, two) -> None:
    assert one.tokens == two.tokens
    assert one.cache.length == two.cache.length
    torch.testing.assert_close(one.cache.hidden(), two.cache.hidden(), rtol=0, atol=1e-4)
    torch.testing.assert_close(one.cache.values(), two.cache.values(), rtol=0, atol=1e-4)
    for layer in range(3):
        torch.testing.assert_close(attention_pattern(one, layer), attention_pattern(two, layer), rtol=0, atol=1e-5)


def test_a_conversation_through_edits_and_branches_is_the_same(pair):
    sessions = [engine.session("Hello there", WARM, seed=3) for engine in pair]
    for engine, session in zip(pair, sessions, strict=True):
        list(engine.stream(session))
        engine.extend(session, [*engine.messages(session), {"role": "user", "content": "and more?"}], 5)
        list(engine.stream(session))
        engine.extend(session, [{"role": "user", "content": "Hello, but otherwise"}], 6)  # history is rewritten
        list(engine.stream(session))
        session.switch(0)
        engine.feed(session)
    assert_same(*sessions)


def test_sessions_that_come_and_go_keep_to_their_own_keys(pair):
    results = []
    for engine in pair:
        sessions = [engine.session(text, WARM, seed=i) for i, text in enumerate(("a", "some more", "x" * 40, "last"))]
        for session in sessions:
            engine.feed(session)
        for together in ((0, 1, 2), (3,), (2, 0), (1, 3), (0, 1, 2, 3), (3, 2)):
            for _ in range(3):
                engine.step([sessions[i] for i in together if sessions[i].finish is None])
        results.append(sessions)
    for one, two in zip(*results, strict=True):
        assert_same(one, two)


@torch.inference_mode()
def test_a_text_that_outgrows_its_slot_gets_a_longer_one():
    model = random_model()
    caches, made = [KVCache(model.config) for _ in range(2)], (EagerRunner(model), GraphRunner(model))
    tokens = torch.randint(0, 258, (300,)).tolist()
    for runner, cache in zip(made, caches, strict=True):
        runner.run([(cache, tokens[:250])])
    lengths = set()
    for token in tokens[250:]:
        eager, ours = (runner.run([(cache, [token])]) for runner, cache in zip(made, caches, strict=True))
        torch.testing.assert_close(ours, eager, rtol=0, atol=1e-4)
        lengths.add(made[1]._steps[1].slots.length)
    assert lengths == {256, 512}


@torch.inference_mode()
def test_a_cache_that_went_another_way_is_mirrored_anew():
    model = random_model()
    cache, runner = KVCache(model.config), GraphRunner(model)
    runner.run([(cache, [1, 2, 3, 4])])
    runner.run([(cache, [5])])
    cache.truncate(2)
    runner.run([(cache, [9, 8])])  # as long as before, and the slot's keys are of another text
    cache.truncate(4)
    logits = runner.run([(cache, [7])])
    fresh = EagerRunner(model).run([(KVCache(model.config), [1, 2, 9, 8, 7])])
    torch.testing.assert_close(logits, fresh, rtol=0, atol=1e-4)


def test_a_cache_without_queries_goes_along(tokenizer, chat):
    """The bench compares with one."""
    engine = Engine(random_model(), tokenizer, chat, "a", GraphRunner(random_model()))
    prompt = list(range(20))
    program = Glassbox(engine)
    sessions = [program.session(prompt), program.session(prompt, KeysAndValues(engine))]
    for session in sessions:
        program.write(session, 5)
    assert sessions[0].tokens == sessions[1].tokens


@torch.inference_mode()
def test_more_sessions_than_a_step_takes_run_eagerly():
    model = random_model(n_layer=1)
    runner = GraphRunner(model)
    logits = runner.run([(KVCache(model.config), [i]) for i in range(33)])
    assert logits.shape == (33, 258)
    assert runner._steps == {}


class Recorder:
    """Stands for torch.cuda: a graph repeats the step, or does something else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, repeat) -> None:
        self.replayed, outer = 0, self

        class CUDAGraph:
            def replay(self) -> None:
                outer.replayed += 1
                repeat(outer.step)

        monkeypatch.setattr(torch.cuda, "CUDAGraph", CUDAGraph)
        monkeypatch.setattr(torch.cuda, "graph", lambda graph: nullcontext())
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        stream = type("Stream", (), {"wait_stream": lambda self, other: None})
        monkeypatch.setattr(torch.cuda, "Stream", stream)
        monkeypatch.setattr(torch.cuda, "current_stream", stream)
        made = runners._Step.__init__

        def make(step, *args) -> None:
            made(step, *args)
            step._recordable, self.step = True, step

        monkeypatch.setattr(runners._Step, "__init__", make)


def spoil(step) -> None:
    step.logits.add_(1)


def fail(step) -> None:
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize(("repeat", "times"), [(runners._Step._compute, 6), (spoil, 1), (fail, 1)])
@torch.inference_mode()
def test_a_graph_is_used_only_after_it_gave_what_the_step_gave(monkeypatch, repeat, times):
    recorder, model = Recorder(monkeypatch, repeat), random_model()
    caches, made = [KVCache(model.config) for _ in range(2)], (EagerRunner(model), GraphRunner(model))
    for token in range(6):
        eager, ours = (runner.run([(cache, [token])]) for runner, cache in zip(made, caches, strict=True))
        torch.testing.assert_close(ours, eager, rtol=0, atol=1e-4)
    assert recorder.replayed == times
