"""`python -m gpt "prompt"`: a reply on standard output, as it is written. Errors go to standard error, exit code 2."""

import argparse
import json
import sys
from collections.abc import Iterator

from gpt import DEFAULT_MODEL, load

__all__ = ["main"]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gpt", description="Let a GPT that runs on this machine answer.")
    parser.add_argument("prompt", nargs="?", help="what to say; read from standard input when it is left out or -")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="a name, a folder in Hugging Face layout, or a .gguf file"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU when there is one")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 = always the most probable token")
    parser.add_argument("--top-k", type=int, default=0, help="keep the k most probable tokens, 0 = off")
    parser.add_argument(
        "--top-p", type=float, default=1.0, help="keep the smallest set with this much probability, 1 = off"
    )
    parser.add_argument(
        "--min-p", type=float, default=0.0, help="keep tokens this probable relative to the best, 0 = off"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same settings: same text")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--system", help="a system prompt")
    parser.add_argument("--raw", action="store_true", help="no chat template: go on writing the prompt itself")
    parser.add_argument("--json", action="store_true", help="one TokenEvent per line instead of text")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = parse(argv)
    try:
        for piece in _reply(args):
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


def _reply(args: argparse.Namespace) -> Iterator[str]:
    from gpt.sampling import SamplingParams

    params = SamplingParams(args.temperature, args.top_k, args.top_p, args.min_p, max_new_tokens=args.max_new_tokens)
    prompt = _prompt(args.prompt)
    engine = load(args.model, args.device, args.dtype, _progress)
    given = prompt if args.raw else [{"role": "user", "content": prompt}]
    if args.system and not args.raw:
        given = [{"role": "system", "content": args.system}, *given]
    session = engine.session(given, params, args.seed, raw=args.raw)
    for event in engine.stream(session):
        yield json.dumps(event.as_dict(), ensure_ascii=False) + "\n" if args.json else event.text
    if not args.json:
        yield "\n"


def _prompt(given: str | None) -> str:
    if given in (None, "-"):
        given = sys.stdin.read().rstrip("\n")
    if not given.strip():
        raise ValueError('the prompt is empty; try: python -m gpt "Who wrote Hamlet?"')
    return given


def _progress(stage: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        share = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
        print(f"\r{stage}: {share}  ", end="" if done < total else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
