"""`python -m gpt "prompt"`: a reply on standard output, as it is written. Errors go to standard error, exit code 2."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt import DEFAULT_MODEL, load
from gpt.catalog import known
from gpt.fetching import in_words
from gpt.options import add_options, params_of
from gpt.terminal import Teller

if TYPE_CHECKING:  # torch takes seconds to import, and --help needs none
    from gpt.engine import Engine
    from gpt.session import Session

__all__ = ["main"]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gpt", description="Let a GPT that runs on this machine answer.")
    parser.add_argument("prompt", nargs="?", help="what to say; read from standard input when it is left out or -")
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="a name (--list-models), owner/name on the Hugging Face hub, a folder in its layout, or a .gguf file",
    )
    parser.add_argument("--revision", help="a branch, tag or commit of a model on the hub; default: the newest")
    parser.add_argument("--list-models", action="store_true", help="print the models that have short names, and end")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a CUDA GPU when there is one")
    parser.add_argument("--dtype", help="stored, float32, bfloat16 or float16; default: what suits the device")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same settings: same text")
    parser.add_argument("--n", type=int, default=1, help="this many replies at once, with seeds from --seed on")
    parser.add_argument("--system", help="a system prompt")
    parser.add_argument("--raw", action="store_true", help="no chat template: go on writing the prompt itself")
    parser.add_argument("--json", action="store_true", help="one TokenEvent per line instead of text")
    parser.add_argument("--save", metavar="FILE", help="save the conversation, every record included")
    parser.add_argument("--replay", metavar="FILE", help="open a saved conversation and repeat every draw of it")
    parser.add_argument(
        "--save-model", metavar="FOLDER", help="write the model in Hugging Face layout, and say nothing"
    )
    add_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = parse(argv)
    try:
        for piece in _pieces(args):
            print(piece, end="", flush=True)
    except BrokenPipeError:  # the reader of our pipe has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _pieces(args: argparse.Namespace) -> Iterator[str]:
    """What is asked for, piece by piece."""
    if args.list_models:
        return _models()
    if args.save_model:
        return _saved(args)
    return _repeated(args) if args.replay else _replies(args)


def _load(args: argparse.Namespace) -> "Engine":
    with Teller() as progress:
        return load(args.model, args.device, args.dtype, progress, None, args.revision)


def _models() -> Iterator[str]:
    """The list of models as a table, a line at a time."""
    columns = "{:24} {:>8} {:>7} {:11} {:7} {:5} {}\n"
    yield columns.format("name", "download", "weights", "licence", "Chinese", "here", "good for")
    for entry in known():
        licence = entry.licence + "*" * entry.gated
        marks = ("yes" if mark else "" for mark in (entry.chinese, entry.is_here))
        size, weights = in_words(entry.size), f"{entry.parameters / 1e6:,.0f} M"
        yield columns.format(entry.name, size, weights, licence, *marks, entry.good_for)
    yield "* accept the licence on its page at the Hugging Face hub, then set HF_TOKEN. Sizes are approximate.\n"


def _replies(args: argparse.Namespace) -> Iterator[str]:
    prompt = _prompt(args.prompt)
    if args.n < 1:
        raise ValueError(f"--n must be at least 1, got {args.n}")
    params_of(args, lambda text: [0])  # what is out of range is told before the model is loaded
    engine = _load(args)
    params = params_of(args, engine.tokenizer.encode)
    engine.check(params)
    given = prompt if args.raw else [{"role": "user", "content": prompt}]
    if args.system and not args.raw:
        given = [{"role": "system", "content": args.system}, *given]
    session = engine.session(given, params, args.seed, raw=args.raw)
    yield from _one(args, engine, session) if args.n == 1 else _several(args, engine, session)
    if args.save:
        from gpt.record import to_record

        Path(args.save).write_text(json.dumps(to_record(session, engine.name), ensure_ascii=False), "utf-8")


def _one(args: argparse.Namespace, engine: "Engine", session: "Session") -> Iterator[str]:
    for event in engine.stream(session):
        yield json.dumps(event.as_dict(), ensure_ascii=False) + "\n" if args.json else event.text
    if not args.json:
        yield "\n"


def _several(args: argparse.Namespace, engine: "Engine", session: "Session") -> Iterator[str]:
    """The first reply as it is written, the others after it; with --json, every token of all as it comes."""
    engine.feed(session)
    samples = session.spread([args.seed + i for i in range(args.n)])
    texts = [f"--- seed {sample.seed}\n" for sample in samples]
    for chosen in engine.stream_all(samples):
        for i, event in chosen:
            if args.json:
                yield json.dumps({"sample": i, **event.as_dict()}, ensure_ascii=False) + "\n"
            else:
                texts[i] += event.text
        if not args.json:
            yield texts[0]
            texts[0] = ""
    session.gather(samples, 0)
    if not args.json:
        yield "\n".join((*texts, ""))


def _repeated(args: argparse.Namespace) -> Iterator[str]:
    from gpt.record import from_record, replay

    try:
        record = json.loads(Path(args.replay).read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{args.replay} is not a conversation that was saved here: {error}") from error
    engine = _load(args)
    session = from_record(engine, record)
    for number in session.branches:
        session.switch(number)
        yield f"branch {number}: all {replay(engine, session)} draws came out again\n"


def _saved(args: argparse.Namespace) -> Iterator[str]:
    from gpt.save import save

    save(_load(args), args.save_model)
    yield f"{args.model} was written to {args.save_model}\n"


def _prompt(given: str | None) -> str:
    if given in (None, "-"):
        given = sys.stdin.read().rstrip("\n")
    if not given.strip():
        raise ValueError('the prompt is empty; try: python -m gpt "Who wrote Hamlet?"')
    return given


if __name__ == "__main__":
    sys.exit(main())
