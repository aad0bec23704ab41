"""The command line: options, their environment variables, and how the program ends."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import app

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("GLASSBOX_") and name != "GLASSBOX_HOME"]:
        monkeypatch.delenv(name)


def run_main(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["app.py", *args])
    return app.main()


def test_options_come_from_the_command_line_then_the_environment(monkeypatch):
    monkeypatch.setenv("GLASSBOX_PORT", "7001")
    monkeypatch.setenv("GLASSBOX_MODEL", "from-env")
    monkeypatch.setenv("GLASSBOX_SHARE", "1")
    monkeypatch.setattr(sys, "argv", ["app.py", "--model", "given"])
    args = app.parse_args()
    assert (args.model, args.port, args.share, args.device) == ("given", 7001, "1", None)


def test_help_is_there_at_once():
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "app.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "--threads" in done.stdout
    assert "GLASSBOX_MODEL" in done.stdout
    assert time.perf_counter() - start < 5


def test_an_unknown_model_is_one_sentence_that_lists_the_known_ones(monkeypatch, capsys):
    assert run_main(monkeypatch, "--model", "nope") == 2
    error = capsys.readouterr().err
    assert "smollm2-135m-instruct" in error
    assert len(error.splitlines()) == 1


WRONG = [("--dtype", "float9"), ("--device", "abacus"), ("--threads", "-1"), ("--attention-memory", "-5")]
WRONG += [("--models", "all")]


@pytest.mark.parametrize(("option", "value"), WRONG)
def test_an_option_that_cannot_be_is_one_sentence(monkeypatch, capsys, option, value):
    assert run_main(monkeypatch, option, value) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_port_in_use_is_one_sentence(monkeypatch, capsys, engine):
    monkeypatch.setattr(app, "load", lambda *args: engine)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run_main(monkeypatch, "--port", str(taken.getsockname()[1])) == 2
    assert "is in use; choose another with --port" in capsys.readouterr().err


def test_the_memory_for_attention_is_given_in_megabytes(monkeypatch):
    asked = []
    monkeypatch.setattr(
        app, "load", lambda *args: asked.append(args[-1]) or (_ for _ in ()).throw(ValueError("enough"))
    )
    run_main(monkeypatch, "--attention-memory", "40.5")
    run_main(monkeypatch)
    assert asked == [40_500_000, 320_000_000]


def test_ctrl_c_while_loading_ends_without_a_trace(monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "load", interrupted)
    assert run_main(monkeypatch) == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_program_says_where_it_is_and_ends_cleanly_on_ctrl_c():
    command = [sys.executable, "app.py", "--threads", "1"]
    program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ready = program.stdout.readline()
    assert "Glassbox is ready at http://127.0.0.1:" in ready
    page = urllib.request.urlopen(ready.split(" at ")[1].split()[0]).read().decode()
    assert "Glassbox" in page
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=30)
    assert program.returncode == 0
    assert "Traceback" not in errors
