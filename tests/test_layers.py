"""Who may import whom, and how large a file may grow (see README, "How to read the code")."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = [  # a module may import those before it
    {"config", "params", "added", "cuts", "template", "fetching", "groups", "threads", "terminal"},
    {"bindings", "spelling", "placeholders", "rope", "names", "hf_rope"},
    {"selfcheck", "sentencepiece", "families"},
    {"vocabulary", "hf_config", "gguf_config"},
    {"encoders"},
    {"model", "tokenizer", "filters", "native", "weights", "wheel", "download"},
    {"quant", "hub", "folder", "precision"},
    {"fused"},
    {"cache", "checkpoint", "chat", "lexicon", "survivors"},
    {"sampling", "estimate"},
    {"branch", "slots", "catalog"},
    {"runner"},
    {"session"},
    {"conversation", "interp", "chooser"},
    {"heads"},
    {"export"},
    {"engine"},
    {"record", "save", "options", "bench_peers", "bench_sampling", "bench_attention", "bench_sessions", "bench_load"},
    {"__init__"},
    {"__main__", "bench"},
]
FILES = sorted((ROOT / "gpt").glob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rank(module: str) -> int:
    return next(i for i, group in enumerate(ORDER) if module in group)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_gpt_never_imports_the_page(path):
    assert not {n for n in imported(path) if n.split(".")[0] in ("gradio", "demo", "app", "assets")}


@pytest.mark.parametrize("path", [p for p in FILES if p.stem != "__init__"], ids=lambda p: p.name)
def test_imports_inside_gpt_go_one_way(path):
    names = {n.split(".")[1] for n in imported(path) if n.startswith("gpt.")}
    for name in names & {p.stem for p in FILES}:
        assert rank(name) < rank(path.stem), f"{path.stem} imports {name}"


def test_panels_never_import_each_other():
    for path in (ROOT / "demo" / "panels").glob("*.py"):
        assert not {n for n in imported(path) if n.startswith("demo.panels") or n.startswith("demo.layout")}, path.name


@pytest.mark.parametrize("path", [p for d in ("gpt", "demo") for p in (ROOT / d).rglob("*.py")], ids=lambda p: p.name)
def test_no_file_holds_two_ideas(path):
    assert path.stem == "i18n" or len(path.read_text("utf-8").splitlines()) <= 350  # i18n is a table
