"""Files of attention by the page: what it shows, everything, a program that fetches the same; nobody else gets them."""

import base64
import csv
import io
import json
import os
import re
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from demo.downloads import Downloads, file_name
from demo.layout import build_demo, launch
from demo.live import Remote
from demo.panels import export as panel
from gpt.interp import attention_pattern
from tests.page import Page
from tests.test_export import derived
from tests.test_layout import call, free_port
from tests.test_live import forked

HEAD = [[2, 3]]
SEVERAL = [[0, 1], [2, 3], [1, 0]]


@pytest.fixture(scope="module", autouse=True)
def served(tmp_path_factory):
    """A folder of these tests' own in place of Gradio's."""
    folder = tmp_path_factory.mktemp("gradio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture
def page(engine):
    page = Page(engine)
    page.act("send", text="hello")
    return page


def written(page, ending="npz", **args):
    reply = page.call("export_shown", format=ending, **{"heads": HEAD, **args})
    assert "error" not in reply, reply
    return base64.b64decode(reply["data"])


# ---- the page asks for what it shows -----------------------------------------------------------------------


def test_a_file_holds_the_rows_and_columns_that_are_shown(page):
    pattern = attention_pattern(page.session, 2, [3])[0].numpy()
    file = np.load(io.BytesIO(written(page)))
    assert np.array_equal(file["values"], pattern)
    assert file["tokens"].tolist() == page.session.tokens
    part = np.load(io.BytesIO(written(page, rows=[4, 9], columns=[2, 12])))
    assert (part["queries"].tolist(), part["keys"].tolist()) == (list(range(4, 9)), list(range(2, 12)))
    np.testing.assert_allclose(part["values"], pattern[4:9, 2:12], atol=1e-7)
    assert len(part["tokens"]) == 12


@pytest.mark.parametrize("sight", [{"what": "score"}, {"what": "value"}, {"heads": SEVERAL, "mix": "max"},
                                   {"mix": "rollout"}, {"what": "rest", "heads": SEVERAL}])  # fmt: skip
def test_a_file_holds_what_the_panel_shows_exactly(page, sight):
    sight = {"heads": HEAD, **sight}
    values = np.load(io.BytesIO(written(page, **sight)))["values"]
    last = len(values) - 1
    (told,) = page.call("rows", rows=[last], **sight)["rows"]
    np.testing.assert_allclose(values[last], np.frombuffer(base64.b64decode(told[1]), "<f4"), rtol=1e-5, atol=1e-7)


def test_the_metadata_say_what_is_shown(page):
    data = json.loads(written(page, "json", heads=SEVERAL, mix="max", what="score", rows=[1, 3]))
    metadata = data["metadata"]
    assert (metadata["heads"], metadata["mix"], metadata["what"]) == (SEVERAL, "max", "score")
    assert (metadata["rows"], metadata["columns"]) == ([1, 3], [0, len(page.session.tokens)])
    assert (metadata["model"], metadata["branch"], metadata["minus"]) == ("tiny", 0, None)
    assert metadata["definition"].startswith("q k^T * scale")
    assert data["values"][0][2:] == [None] * (len(page.session.tokens) - 2)


def test_a_difference_of_branches_is_exported_with_the_tokens_of_both(page):
    before = attention_pattern(page.session, 0, [1])[0].numpy()
    tokens = list(page.session.tokens)
    page.act("fork", position=page.session.reply_start + 2, tokens=[70])
    after = attention_pattern(page.session, 2, [3])[0].numpy()
    n = min(len(before), len(after))
    data = json.loads(written(page, "json", minus={"heads": [[0, 1]], "branch": 0}))
    np.testing.assert_allclose(data["values"], after[:n, :n] - before[:n, :n], atol=1e-6)
    assert data["tokens"] == page.session.tokens[:n]
    assert data["metadata"]["minus"] == {
        "heads": [[0, 1]], "mix": "mean", "what": "weight", "branch": 0, "tokens": tokens[:n]
    }  # fmt: skip
    assert data["metadata"]["branch"] == 1


def test_the_name_says_which_head_of_which_model(page):
    reply = page.call("export_shown", format="csv", heads=HEAD)
    assert (reply["name"], reply["type"]) == ("attention-tiny-L2H3-weight.csv", "text/csv")
    assert page.call("export_shown", format="npz", heads=HEAD, mix="rollout")["name"] == (
        "attention-tiny-rollout-L2.npz"
    )
    assert file_name("a", "../x/ y.gguf", ending="npz") == "a-x-y.gguf.npz"


@pytest.mark.parametrize(("args", "field", "says"), [
    ({"format": "xls"}, "format", "one of csv, json, npz"),
    ({"format": ["csv"]}, "format", "one of csv, json, npz"),
    ({"rows": [3, 3]}, "rows", "rows must be .from, to. within 0 and"),
    ({"rows": [0, 10_000]}, "rows", "rows must be"),
    ({"rows": "all"}, "rows", "rows must be"),
    ({"rows": [0.5, 2]}, "rows", "rows must be"),
    ({"columns": [-1, 2]}, "columns", "columns must be"),
    ({"columns": [True, 2]}, "columns", "columns must be"),
    ({"heads": []}, "heads", "heads must be a list"),
    ({"what": "colour"}, "", "what must be one of"),
    ({"minus": 1}, "minus", "minus must be a sight"),
    ({"branch": 7}, "", "no branch 7"),
])  # fmt: skip
def test_what_cannot_be_exported_is_refused_in_a_sentence(page, args, field, says):
    reply = page.call("export_shown", **{"heads": HEAD, "format": "csv", **args})
    assert (reply["code"], reply["field"]) == ("invalid", field)
    assert re.search(says, reply["error"])


def test_too_many_cells_are_refused_and_what_else_could_be_done_is_said(page, monkeypatch):
    monkeypatch.setattr(panel, "MAX_CELLS", 30)
    reply = page.call("export_shown", heads=HEAD, format="csv")
    assert "choose fewer rows or columns, or export everything" in reply["error"]
    assert "data" in page.call("export_shown", heads=HEAD, format="csv", rows=[0, 6], columns=[0, 5])


def test_an_empty_conversation_has_nothing_to_export(engine):
    page = Page(engine)
    for name, args in (("export_shown", {"format": "csv"}), ("export_all", {}), ("snippet", {"origin": "http://x"})):
        assert page.call(name, heads=HEAD, **args)["error"] == "There is nothing to export yet; write a message first."


def test_a_conversation_that_changes_meanwhile_is_not_mixed_into_the_file(page, monkeypatch):
    exact = panel.window_of

    def changing(*args):
        values = exact(*args)
        page.call("new_chat")
        return values

    monkeypatch.setattr(panel, "window_of", changing)
    reply = page.call("export_shown", heads=HEAD, format="csv")
    assert reply["code"] == "failed"
    assert reply["error"] == "the conversation was changed while it was read; export it again"


# ---- everything, by the page -------------------------------------------------------------------------------


def fetched(page, reply):
    """The file of an answer, from where Gradio serves it."""
    path = Path(httpx.URL(f"http://x/{reply['url']}").path.split("file=")[1])
    assert path.stat().st_size == reply["bytes"]
    return path


def test_everything_is_written_where_gradio_serves_it_under_a_name_that_cannot_be_guessed(page, served):
    reply = page.call("export_all")
    n = len(page.session.tokens)
    assert reply["name"] == f"attention-tiny-{n}-tokens.npz"
    path = fetched(page, reply)
    assert served in path.parents
    assert len(path.parent.name) >= 32
    assert path.parent.parent.stat().st_mode & 0o077 == 0
    file = np.load(path)
    np.testing.assert_allclose(derived(file, 1, 1), attention_pattern(page.session, 1, [1])[0], atol=1e-6)
    assert json.loads(str(file["metadata"]))["branch"] == 0


def test_a_new_file_of_a_session_takes_the_place_of_its_last_one_and_of_no_other(engine, page):
    first = fetched(page, page.call("export_all"))
    sid, page.sid = page.sid, page.server.hello({"owner": "b"})["sid"]
    page.entry.session.rewrite(engine.tokenizer.encode("hello"))
    page.entry.session.finish = "stopped"
    theirs = fetched(page, page.call("export_all"))
    page.sid = sid
    second = fetched(page, page.call("export_all"))
    assert not first.exists()
    assert second.exists()
    assert theirs.exists()


def test_another_branch_can_be_exported_whole(page):
    tokens = list(page.session.tokens)
    page.act("fork", position=page.session.reply_start + 2, tokens=[70])
    file = np.load(fetched(page, page.call("export_all", branch=0)))
    assert file["tokens"].tolist() == tokens
    assert json.loads(str(file["metadata"]))["branch"] == 0


def test_a_reply_goes_on_while_everything_is_written(page, monkeypatch):
    write = panel.write_everything

    def meanwhile(path, session, *rest):
        page.session.resume()
        list(page.engine.stream(page.session))
        write(path, session, *rest)

    monkeypatch.setattr(panel, "write_everything", meanwhile)
    n = len(page.session.tokens)
    file = np.load(fetched(page, page.call("export_all")))
    assert len(page.session.tokens) > n
    assert file["tokens"].shape == (n,)
    assert file["keys"].shape[2] == n


def test_one_large_file_is_written_at_a_time(page, monkeypatch):
    monkeypatch.setattr(panel, "PATIENCE", 0.01)
    write = panel.write_everything

    def twice(*args):
        assert page.call("export_all")["code"] == "busy"
        write(*args)

    monkeypatch.setattr(panel, "write_everything", twice)
    assert "error" not in page.call("export_all")


# ---- files that are given out ------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder in place of Gradio's that is still empty."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


def content(data):
    return lambda path: path.write_bytes(data)


def test_files_go_when_they_are_old(own):
    downloads = Downloads(life=100)
    old = downloads.make("a.txt", content(b"x"))
    os.utime(old.parent, (time.time() - 101,) * 2)
    new = Downloads(life=100).make("b.txt", content(b"x"))  # another program's are removed, too
    assert not old.parent.exists()
    assert new.exists()


def test_the_oldest_files_go_when_all_take_too_much(own):
    downloads = Downloads(capacity=25)
    files = []
    for age in (3, 2, 1):
        files.append(downloads.make("a.txt", content(b"x" * 10)))
        os.utime(files[-1].parent, (time.time() - age,) * 2)
    downloads.sweep()
    assert [file.exists() for file in files] == [False, True, True]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(own):
    def full(path):
        path.write_bytes(b"x")
        raise OSError(28, "No space left on device")

    with pytest.raises(RuntimeError, match=r"could not be written \(No space left on device\)"):
        Downloads().make("a.txt", full)
    assert not list(own.glob("*/*"))


# ---- a running server --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(engine, served):
    demo = build_demo(engine)
    yield launch(demo, "127.0.0.1", free_port())
    demo.close()


def conversation(address):
    sid = call(address, "tab", "hello")["sid"]
    call(address, "tab", "send", sid=sid, text="hello there")
    call(address, "tab", "hello", sid=sid, adopt=True)  # nobody streams: it rests
    return sid


def test_the_large_file_is_fetched_over_http_and_nothing_else_of_the_machine(address, served, tmp_path):
    sid = conversation(address)
    reply = call(address, "tab", "export_all", sid=sid)
    answer = httpx.get(f"{address}{reply['url']}")
    assert answer.headers["content-disposition"] == f'attachment; filename="{reply["name"]}"'
    assert len(answer.content) == reply["bytes"]
    file = np.load(io.BytesIO(answer.content))
    assert "".join(file["texts"]).startswith("<|im_start|>user\nhello there")
    (tmp_path / "secret.npz").write_bytes(b"x")
    for other in (tmp_path / "secret.npz", served, Path(__file__), "/etc/passwd"):
        assert httpx.get(f"{address}gradio_api/file={other}").status_code == 403


def test_a_small_file_comes_with_the_answer(address):
    sid = conversation(address)
    reply = call(address, "tab", "export_shown", sid=sid, heads=HEAD, format="csv")
    header, *rows = csv.reader(io.StringIO(base64.b64decode(reply["data"]).decode()))
    assert len(header) - 2 == len(rows)
    np.testing.assert_allclose(np.array([row[2:] for row in rows], float).sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("args", [
    {"heads": HEAD},
    {"heads": HEAD, "rows": [3, 11], "columns": [2, 9]},
    {"heads": SEVERAL, "mix": "max", "what": "value"},
    {"heads": HEAD, "what": "score"},
    {"heads": [[1, 0]], "mix": "rollout"},
    {"heads": HEAD, "minus": {"heads": [[0, 1]], "branch": 0}},
    {"heads": HEAD, "what": "score", "minus": {"heads": SEVERAL, "branch": 0}},
])  # fmt: skip
def test_the_snippet_runs_and_gives_what_is_shown(page, address, args, monkeypatch, capsys):
    monkeypatch.setattr(panel, "CELLS_OF_AN_ANSWER", 500)
    page.act("fork", position=page.session.reply_start + 2, tokens=[70])
    text = page.call("snippet", origin=address, **args)["text"]
    scope = {}
    exec(text, scope)
    shown = np.load(io.BytesIO(written(page, **args)))["values"]
    np.testing.assert_allclose(scope["matrix"], shown, rtol=1e-4, atol=1e-5)
    assert capsys.readouterr().out == f"{shown.shape}\n"
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("origin", [None, "", "javascript:alert(1)", "http://", 'x" + evil() + "', "http://x" * 500])
def test_a_snippet_needs_the_address_of_the_page(page, origin):
    assert page.call("snippet", heads=HEAD, origin=origin)["field"] == "origin"


def test_an_address_is_quoted_in_a_snippet(page):
    text = page.call("snippet", heads=HEAD, origin="http://x/'\"\n__import__('os')")["text"]
    assert "ORIGIN = 'http://x/\\'\"\\n__import__(\\'os\\')'" in text


@pytest.mark.skipif(sys.platform != "linux", reason="ZeroGPU forks, on Linux only")
def test_on_zerogpu_files_are_made_of_what_came_from_the_worker(engine):
    page = Page(engine, Remote(engine, forked()))
    page.act("send", text="hello")
    file = np.load(fetched(page, page.call("export_all")))
    np.testing.assert_allclose(derived(file, 1, 1), attention_pattern(page.session, 1, [1])[0], atol=1e-6)
    values = np.load(io.BytesIO(written(page, what="value")))["values"]
    pattern = attention_pattern(page.session, 2, [3])[0].numpy()
    norms = (page.session.cache.values()[2, 1] @ engine.model.blocks[2].attn.out.weight[:, 24:32].T).norm(dim=-1)
    np.testing.assert_allclose(values, pattern * norms.numpy(), rtol=1e-4, atol=1e-6)
