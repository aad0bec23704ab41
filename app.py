"""Glassbox: chat with a GPT that runs here, and look inside it while it answers."""

import argparse
import os
import sys

from gpt import DEFAULT_MODEL, load
from gpt.terminal import Teller

ATTENTION_MEMORY = 320  # MB: 4,600 tokens of the default model in float32


def parse_args() -> argparse.Namespace:
    """Options not given are taken from the environment: GLASSBOX_MODEL for --model, and so on."""
    parser = argparse.ArgumentParser(prog="app.py", description=__doc__, epilog=parse_args.__doc__)
    parser.add_argument("--model", help=f"a name, owner/name of the hub, folder or .gguf (default: {DEFAULT_MODEL})")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps ... (default: a GPU when there is one)")
    parser.add_argument("--dtype", help="stored, float32, bfloat16, float16 (default: what suits)")
    parser.add_argument("--host", help="address to listen on, 0.0.0.0 for all (default: this machine only)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument("--threads", type=int, help="threads of the processor (default: one a core)")
    parser.add_argument("--attention-memory", type=float, help="MB of a conversation's queries (default: 320)")
    parser.add_argument("--share", action="store_true", help="make a public link")
    parser.add_argument("--models", help="what the page may load: any, catalog, fixed (default: any, if none but you)")
    names = ("model", "device", "dtype", "host", "port", "threads", "attention_memory", "share", "models")
    parser.set_defaults(**{name: os.environ.get(f"GLASSBOX_{name.upper()}") or None for name in names})
    return parser.parse_args()


def serve(args: argparse.Namespace) -> None:
    """Load the model, open the page, wait for Ctrl-C."""
    from demo.layout import Wish, build_demo, launch, policy_of, share_arenas  # isort: skip  (before torch)
    import torch

    share_arenas()  # before there are threads that have their own
    torch.set_num_threads(args.threads or torch.get_num_threads())
    memory = int(1e6 * (ATTENTION_MEMORY if args.attention_memory is None else args.attention_memory))
    policy = policy_of(args.models, args.host, args.share)
    wish = Wish(args.model or DEFAULT_MODEL, args.device, args.dtype)
    with Teller() as progress:
        engine = load(wish.name, wish.device, wish.dtype, progress, memory)
    demo = build_demo(engine, wish=wish, policy=policy)
    print(f"Glassbox is ready at {launch(demo, args.host, args.port, bool(args.share))} (Ctrl-C ends it)", flush=True)
    demo.block_thread()


def main() -> int:
    try:
        serve(parse_args())
    except KeyboardInterrupt:
        print(file=sys.stderr)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
