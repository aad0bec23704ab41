"""`python -m demo.bench`: how fast the page is, in a real browser, beside the model on the same processor.

It starts the program, opens the page in headless Chromium, has a long text read, and measures what a person would feel:

click_ms        from a click on another head to its map painted, at the first length of `--lengths`: median and worst
frames          of zooming and panning the map at the last length: frames a second, and the share over 1/30 s
stream          tokens/s of a reply at the first length, with the attention panel in sight and out of sight, in turn;
                and the ratio, the median over the pairs of replies
session_bytes   what the server holds for the conversation at the last length
page_bytes      what the page's scripts hold then, after many heads were looked at, and the renderer's whole memory

The browser is Debian's Chromium or what CHROMIUM names; it draws in software, so a desktop with a GPU does better.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["main", "measure"]

WORDS = ("the", "fox", "an", "old", "lighthouse", "keeper", "walked", "slowly", "over", "green", "hills", "and", "said")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]

CLICK = """async ([x, y]) => {
    const { glassbox } = window;
    const canvas = document.getElementById('head-grid');
    const map = document.getElementById('heatmap');
    const box = canvas.getBoundingClientRect();
    const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true };
    const before = map.dataset.key;
    const start = performance.now();
    canvas.dispatchEvent(new MouseEvent('click', at));
    const key = glassbox.sights.sightAt(glassbox.store.selection).key;
    if (key === before) return null;
    while (map.dataset.key !== key) await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    return performance.now() - start;
}"""

FRAMES = """async () => {
    const map = document.getElementById('heatmap');
    const box = map.getBoundingClientRect();
    const at = { clientX: box.left + 200, clientY: box.top + 200, bubbles: true, cancelable: true, pointerId: 1 };
    const times = [];
    let last = performance.now();
    const next = async () => {
        await new Promise(requestAnimationFrame);
        times.push(performance.now() - last);
        last = performance.now();
    };
    for (let i = 0; i < 40; i++) {
        map.dispatchEvent(new WheelEvent('wheel', { ...at, deltaY: -50 }));
        await next();
    }
    const panel = window.glassbox.attentionPanel;
    for (let i = 0; i < 80; i++) {
        panel.map.pan(i < 40 ? -6 : 6, i < 40 ? -4 : 4);
        panel.draw();
        await next();
    }
    for (let i = 0; i < 40; i++) {
        map.dispatchEvent(new WheelEvent('wheel', { ...at, deltaY: 50 }));
        await next();
    }
    return times;
}"""


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The whole report, as the module's docstring explains it."""
    from playwright.sync_api import sync_playwright

    from demo.layout import build_demo, launch
    from gpt import DEFAULT_MODEL, load

    demo = build_demo(load(args.model or DEFAULT_MODEL, dtype=args.dtype))
    address = launch(demo, "127.0.0.1")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=args.chromium, args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(300_000)
            page.goto(address)
            page.wait_for_function("() => !!(window.glassbox && window.glassbox.store.sid)")
            return _report(page, args)
    finally:
        demo.close(verbose=False)


def _report(page: Any, args: argparse.Namespace) -> dict[str, Any]:
    first, last = args.lengths[0], args.lengths[-1]
    _read(page, first)
    clicks = _clicks(page, args.clicks)
    stream = _stream(page, args.tokens, args.repeats)
    _read(page, last)
    _clicks(page, args.clicks)
    frames = page.evaluate(FRAMES)
    report = {
        "click_ms": {"median": statistics.median(clicks), "worst": max(clicks), "tokens": first},
        "frames": {
            "per_second": 1e3 * len(frames) / sum(frames),
            "over_33_ms": sum(frame > 1e3 / 30 + 1 for frame in frames) / len(frames),
            "tokens": last,
        },
        "stream": {**stream, "tokens": first},
        "session_bytes": page.evaluate("() => window.glassbox.store.memory"),
        "page_bytes": _page_bytes(page),
    }
    return report


def _read(page: Any, tokens: int) -> None:
    """Let the conversation be about so many tokens long, all of them read, and the map drawn."""
    draw = random.Random(0)
    page.evaluate("() => window.glassbox.actions.newChat()")
    page.evaluate("() => window.glassbox.actions.setParams({max_new_tokens: 2, temperature: 0})")
    _send(page, " ".join(draw.choices(WORDS, k=max(tokens - 45, 5))))
    page.wait_for_function(
        "() => Number(document.querySelector('#heatmap').dataset.rows) === window.glassbox.store.tokens.length"
    )


def _send(page: Any, text: str) -> None:
    before = page.evaluate("() => window.glassbox.store.run")
    page.fill("#message", text)
    page.click("#send")
    page.wait_for_function("(run) => window.glassbox.store.run > run && window.glassbox.store.streaming", arg=before)
    page.wait_for_function("() => !window.glassbox.store.streaming")


def _clicks(page: Any, n: int) -> list[float]:
    draw = random.Random(1)
    times = [page.evaluate(CLICK, [draw.uniform(0.15, 0.98), draw.uniform(0.05, 0.8)]) for _ in range(n)]
    return [time for time in times if time is not None]


def _stream(page: Any, tokens: int, repeats: int) -> dict[str, float]:
    page.evaluate("(n) => window.glassbox.actions.setParams({max_new_tokens: n, temperature: 1.0})", tokens)
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeats):
        for shown in (True, False):
            page.evaluate(
                "(shown) => { document.getElementById('attention').style.display = shown ? '' : 'none'; }", shown
            )
            page.wait_for_function("(shown) => window.glassbox.attentionPanel.closed === !shown", arg=shown)
            speeds[shown].append(_regenerate(page))
    page.evaluate("() => { document.getElementById('attention').style.display = ''; }")
    ratios = [a / b for a, b in zip(speeds[True], speeds[False], strict=True)]
    return {
        "shown": statistics.median(speeds[True]),
        "hidden": statistics.median(speeds[False]),
        "ratio": statistics.median(ratios),
    }


def _regenerate(page: Any) -> float:
    """Tokens a second of the last reply, written anew: from its own records."""
    run = page.evaluate("() => window.glassbox.store.run")
    page.evaluate("() => window.glassbox.actions.regenerate()")
    page.wait_for_function("(run) => window.glassbox.store.run > run && window.glassbox.store.streaming", arg=run)
    page.wait_for_function("() => !window.glassbox.store.streaming")
    seconds = page.evaluate("() => window.glassbox.store.tokens.filter((t) => t.dt != null).slice(1).map((t) => t.dt)")
    return len(seconds) / sum(seconds)


def _page_bytes(page: Any) -> dict[str, int | None]:
    """The scripts' heap after a collection; the renderer's resident memory, on Linux."""
    client = page.context.new_cdp_session(page)
    client.send("HeapProfiler.collectGarbage")
    client.send("Performance.enable")
    metrics = {m["name"]: m["value"] for m in client.send("Performance.getMetrics")["metrics"]}
    return {"scripts": int(metrics["JSHeapUsedSize"]), "renderer": _largest_renderer()}


def _largest_renderer() -> int | None:
    if sys.platform != "linux":
        return None
    sizes = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as command, open(f"/proc/{pid}/statm") as memory:
                if b"--type=renderer" in command.read():
                    resident, shared = map(int, memory.read().split()[1:3])
                    sizes.append((resident - shared) * os.sysconf("SC_PAGE_SIZE"))
        except OSError:  # it has ended meanwhile
            continue
    return max(sizes, default=None)


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    click, frames, stream = report["click_ms"], report["frames"], report["stream"]
    scripts, renderer = report["page_bytes"]["scripts"], report["page_bytes"]["renderer"]
    first, last = f"{click['tokens']:,} tokens", f"{frames['tokens']:,} tokens"
    late = 100 * frames["over_33_ms"]
    lines = [
        f"another head, click to painted   {click['median']:.0f} ms, at worst {click['worst']:.0f} ({first})",
        f"zoom and pan                     {frames['per_second']:.0f} frames/s, {late:.0f} % over 33 ms ({last})",
        f"stream, panel shown / hidden     {stream['shown']:.1f} / {stream['hidden']:.1f} tokens/s ="
        f" {stream['ratio']:.2f} ({first})",
        f"memory ({last})           session {report['session_bytes'] / 1e6:.0f} MB, scripts of the page"
        f" {scripts / 1e6:.0f} MB" + (f", renderer {renderer / 1e6:.0f} MB" if renderer else ""),
    ]
    return "\n".join(lines)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.bench", description="Measure the page in a real browser.")
    parser.add_argument("--model", help="a name, a folder in Hugging Face layout, or a .gguf file")
    parser.add_argument("--dtype", help="stored, float32, ... (default: what suits)")
    parser.add_argument("--lengths", default="1000,2000", help="tokens of the two texts that are looked at")
    parser.add_argument("--tokens", type=int, default=40, help="tokens of a reply whose speed is taken, at least 2")
    parser.add_argument("--clicks", type=int, default=15, help="heads that are looked at")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of replies")
    parser.add_argument("--json", action="store_true", help="the report as JSON instead of a table")
    parser.add_argument(
        "--chromium",
        default=os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome"),
        help="the browser's program",
    )
    args = parser.parse_args(argv)
    args.lengths = [int(part) for part in args.lengths.split(",") if part.strip().isdigit()]
    if not args.lengths or min(args.lengths) < 60 or min(args.tokens - 1, args.clicks, args.repeats) < 1:
        parser.error("--lengths takes whole numbers from 60 on, --clicks and --repeats from 1, --tokens from 2")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = parse(argv)
    if not args.chromium:
        print("error: there is no Chromium here; install it, or name it with --chromium", file=sys.stderr)
        return 2
    report = measure(args)
    print(json.dumps(report, indent=2) if args.json else table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
