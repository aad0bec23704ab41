"""What the README says is so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = (line for line in "".join(blocks("sh")).splitlines() if "pytest" in line)
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert command in script


def test_the_tree_names_every_file_of_gpt():
    tree = re.search(r"```\n(app\.py.*?)```", README, re.DOTALL)[1]
    named = set(re.findall(r"^  (\w+\.py)", tree, re.MULTILINE))
    assert named == {p.name for p in (ROOT / "gpt").glob("*.py")} - {"__init__.py", "__main__.py"}


def test_every_requirement_is_pinned_and_says_why():
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+ +# .+", line), line


@pytest.mark.slow
def test_the_library_example_runs(capsys):
    scope: dict = {}
    exec(next(block for block in blocks("python") if "from gpt import" in block), scope)
    session = scope["session"]
    assert "Shakespeare" in capsys.readouterr().out
    pattern = scope["attention_pattern"](session, layer=3)
    assert pattern.shape == (9, session.cache.length, session.cache.length)


def test_every_file_that_the_readme_shows_exists():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
