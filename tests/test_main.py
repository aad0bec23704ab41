"""The command line: text and JSON on standard output, one clear sentence and exit code 2 for bad input."""

import io
import json

import pytest

from gpt import __main__ as command
from gpt.catalog import known
from gpt.params import FILTERS


@pytest.fixture
def run(engine, monkeypatch, capsys):
    """Run the command with the tiny engine; (exit code, standard output, standard error)."""

    def run(*argv: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(command, "load", lambda *a: engine)
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = command.main(list(argv))
        return code, *capsys.readouterr()

    return run


def test_a_prompt_is_answered_the_same_way_for_the_same_seed(run):
    first, again, other = (run("hello", "--seed", s, "--max-new-tokens", "8") for s in ("1", "1", "2"))
    assert first[0] == 0
    assert len(first[1]) > 1
    assert first == again != other


def test_json_is_one_event_a_line(run):
    code, out, _ = run("hello", "--json", "--max-new-tokens", "4", "--temperature", "0")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [e["position"] for e in events] == list(range(events[0]["position"], events[0]["position"] + 4))
    assert events[-1]["finish"] == "length"
    assert events[0]["params"]["temperature"] == 0
    assert {"token", "text", "logprob", "rank", "entropy", "candidates", "u"} <= events[0].keys()


def test_the_prompt_can_come_through_a_pipe(run):
    assert run("-", stdin="hello\n")[1] == run("hello")[1]


def test_raw_continues_the_prompt_itself(run):
    raw = json.loads(run("hello", "--raw", "--json", "--max-new-tokens", "1")[1])
    assert raw["position"] == len("hello")


def test_a_system_prompt_comes_first(run):
    assert run("hello", "--system", "be brief")[1] != run("hello")[1]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["hello", "--temperature", "9"], "temperature must be"),
        (["hello", "--top-p", "0"], "top_p"),
        ([" "], "empty"),
        (["hello", "--n", "0"], "--n must be at least 1"),
        (["hello", "--n", "9"], "from 2 to 8 replies"),
        (["hello", "--bias", "x"], 'bias must look like " word=5"'),
        (["hello", "--order", "top_q"], "order must name"),
        (["hello", "--regex", "["], "grammar"),
        (["--replay", __file__], "not a conversation that was saved here"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(run, argv, said):
    code, out, err = run(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_several_replies_are_what_their_seeds_give_alone(run):
    out = run("hello", "--n", "3", "--seed", "4", "--max-new-tokens", "6", "--top-k", "5")[1]
    alone = [run("hello", "--seed", s, "--max-new-tokens", "6", "--top-k", "5")[1] for s in "456"]
    assert out == "".join(f"--- seed {4 + i}\n{text}" for i, text in enumerate(alone))


def test_several_replies_as_json_tell_which_is_which(run):
    out = run("hello", "--n", "2", "--json", "--max-new-tokens", "3")[1]
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["sample"] for line in lines] == [0, 1] * 3


def test_a_saved_conversation_is_drawn_again(run, tmp_path):
    file = tmp_path / "talk.json"
    assert run("hello", "--n", "2", "--max-new-tokens", "5", "--save", str(file))[0] == 0
    code, out, _ = run("--replay", str(file))
    assert (code, out) == (0, "branch 0: all 5 draws came out again\nbranch 1: all 5 draws came out again\n")


def test_every_sampling_parameter_is_an_option(run):
    argv = ["--preset", "creative", "--eta-cutoff", "0.001", "--no-repeat-ngram", "3", "--bias", "a=2.5", "--ban", "xy"]
    out = run("hello", "--json", "--max-new-tokens", "1", *argv, "--stop", "zz", "--choice", "yes", "--choice", "no")[1]
    params = json.loads(out)["params"]
    assert (params["temperature"], params["xtc_probability"], params["dynatemp_range"]) == (1.2, 0.5, 0)
    assert (params["eta_cutoff"], params["no_repeat_ngram"]) == (0.001, 3)
    assert (params["stop"], params["banned"], params["logit_bias"]) == (["zz"], ["xy"], [[[99], 2.5]])
    assert params["grammar"] == ["choice", "yes\nno"]
    assert {name for group in FILTERS.values() for name in group} <= params.keys()


def test_the_list_of_models_says_what_each_is_and_which_are_here(run, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    code, out, err = run("--list-models", stdin="")
    head, *rows, note = out.splitlines()
    assert (code, err) == (0, "")
    assert [row.split()[0] for row in rows] == [entry.name for entry in known()]
    assert rows[1].split()[:6] == ["gpt2", "548", "MB", "124", "M", "MIT"]
    place = head.index("Chinese")
    assert {row.split()[0] for row in rows if row[place:].startswith("yes")} == {e.name for e in known() if e.chinese}
    assert all(row[head.index("good for") :] == entry.good_for for row, entry in zip(rows, known(), strict=True))
    assert not any(row[head.index("here") :].startswith("yes") for row in rows[1:])
    assert "HF_TOKEN" in note


def test_model_and_revision_are_what_is_loaded(engine, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(command, "load", lambda *given: asked.append(given) or engine)
    options = ["--model", "some-one/model", "--revision", "v2", "--dtype", "bfloat16", "--device", "cpu"]
    assert command.main(["hello", "--max-new-tokens", "1", *options]) == 0
    ((*given, progress, memory, revision),) = asked
    assert (*given, memory, revision) == ("some-one/model", "cpu", "bfloat16", None, "v2")
    assert callable(progress)


def test_an_unknown_model_lists_the_known_ones(capsys):
    assert command.main(["hello", "--model", "gpt-17"]) == 2
    assert "smollm2-135m-instruct" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--device", "abacus"), ("--dtype", "float1")])
def test_a_device_or_type_that_cannot_be_is_refused(capsys, option, value):
    assert command.main(["hello", option, value]) == 2
    assert value in capsys.readouterr().err
