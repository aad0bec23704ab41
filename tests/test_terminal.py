"""What is told while one waits: written over on a terminal, sparse in a file."""

import io
from contextlib import suppress

from gpt.terminal import Teller

LOAD = [("wait", 0, 1), *(("download", n, 100_000_000) for n in (0, 400_000, 50_000_000, 100_000_000)), ("read", 0, 0)]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(out: io.StringIO) -> str:
    with Teller(out) as progress:
        for step in LOAD:
            progress(*step)
    return out.getvalue()


def test_a_terminal_gets_a_line_for_each_stage_that_is_written_over():
    text = told(Screen())
    assert text.count("\n") == 3
    assert text.endswith("read: ...  \n")
    shares = [part.strip() for part in text.split("\n")[1].split("\r")]
    assert shares == [f"download: {n} % of 100 MB" for n in (0, 50, 100)]


def test_a_file_gets_a_line_for_what_takes_long():
    assert told(io.StringIO()) == "wait: ...  \ndownload: 0 % of 100 MB  \n"


def test_an_error_begins_a_line_of_its_own():
    out = Screen()
    with suppress(RuntimeError), Teller(out) as progress:
        progress("read", 1, 10_000_000)
        raise RuntimeError
    assert out.getvalue() == "read: 0 % of 10 MB  \n"


def test_nothing_is_written_where_nothing_was_told():
    with Teller(out := Screen()):
        pass
    assert out.getvalue() == ""
