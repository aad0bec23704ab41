"""The browser's benchmark runs as it is documented: a small one, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from demo.bench import main, parse
from tests.browser.conftest import CHROMIUM

ROOT = Path(__file__).parent.parent.parent
SMALL = ["--lengths", "80,120", "--clicks", "4", "--repeats", "1", "--tokens", "4"]


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine")
def test_the_report_holds_what_it_promises():
    command = [sys.executable, "-m", "demo.bench", "--json", "--chromium", CHROMIUM, *SMALL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    report = json.loads(done.stdout)
    assert set(report) == {"click_ms", "frames", "stream", "session_bytes", "page_bytes"}
    assert report["click_ms"]["worst"] >= report["click_ms"]["median"] > 0
    assert report["frames"]["per_second"] > 1
    assert 0.1 < report["stream"]["ratio"] < 10
    assert report["session_bytes"] > 10_000_000
    assert report["page_bytes"]["scripts"] > 1_000_000


@pytest.mark.parametrize("wrong", [["--lengths", "10"], ["--lengths", "x"], ["--clicks", "0"], ["--tokens", "1"]])
def test_wrong_options_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        parse(wrong)
    assert "--lengths takes whole numbers" in capsys.readouterr().err


def test_without_a_browser_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr("demo.bench.shutil.which", lambda name: None)
    monkeypatch.delenv("CHROMIUM", raising=False)
    assert main([]) == 2
    assert "there is no Chromium here" in capsys.readouterr().err
