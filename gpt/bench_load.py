"""`python -m gpt.bench --load`: what loading 1.5 billion weights takes, in seconds and memory.

The checkpoint is random, in four files of bfloat16, and again as one GGUF file of Q4_0; both are written to the folder
for temporary files (4 GB) and deleted again. It is loaded as bfloat16 and float32 from the first, and with its codes
left as they are from the second, each time in a process of its own, which looks every 5 ms at what it holds.

seconds    from an open checkpoint to a model that can answer; the files are in the system's memory, since they were
           just written
final      bytes of the weights that the model holds
anonymous  the most memory that is no file's, over `final`; what the process held before is not counted. 1 means that
           nothing was held twice
resident   the same with pages of mapped files that were in memory; the system takes those back when it needs them
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import psutil
import torch
from safetensors.torch import save_file

from gpt.checkpoint import open_checkpoint
from gpt.native import kernels

__all__ = ["load_cost", "load_lines", "write_checkpoint", "write_gguf"]

SHAPE = dict(
    model_type="llama",
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    head_dim=128,
    vocab_size=151_936,
    max_position_embeddings=32_768,
    tie_word_embeddings=True,
)
_GGUF = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def load_cost(shape: dict[str, Any] | None = None) -> dict[str, dict[str, float]]:
    """What is loaded as -> the four figures; "stored" only where there is a compiler."""
    shape = shape or SHAPE
    with tempfile.TemporaryDirectory() as place:
        folder, file = Path(place), Path(place, "model.gguf")
        write_checkpoint(folder, shape)
        report = {dtype: _in_a_process(folder, dtype) for dtype in ("bfloat16", "float32")}
        if kernels():
            write_gguf(file, shape)
            report["stored"] = _in_a_process(file, "stored")
        return report


def load_lines(report: dict[str, dict[str, float]]) -> list[str]:
    """The report for people."""
    lines = [f"{'loading as':14}{'seconds':>9}{'weights':>10}{'peak, anonymous':>17}{'and mapped':>12}"]
    for dtype, cost in report.items():
        size, parts = f"{cost['final'] / 1e9:.2f} GB", [f"{cost[name]:.2f} x" for name in ("anonymous", "resident")]
        lines.append(f"{dtype:14}{cost['seconds']:9.1f}{size:>10}{parts[0]:>17}{parts[1]:>12}")
    return lines


def write_checkpoint(folder: Path, shape: dict[str, Any], files: int = 4) -> None:
    """A random Llama in Hugging Face layout, in bfloat16, its tensors spread over some files."""
    (folder / "config.json").write_text(json.dumps(shape))
    names = list(_tensors(shape))
    places = {
        name: f"model-{1 + i * files // len(names):05}-of-{files:05}.safetensors" for i, (name, _) in enumerate(names)
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    for file in sorted(set(places.values())):
        tensors = {
            name: torch.empty(size, dtype=torch.bfloat16).normal_(0, 0.02)
            for name, size in names
            if places[name] == file
        }
        save_file(tensors, folder / file)


def write_gguf(path: Path, c: dict[str, Any]) -> None:
    """The same as a GGUF file whose matrices are random blocks of Q4_0."""
    writer, random = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0)
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_key_length(c["head_dim"])
    writer.add_vocab_size(c["vocab_size"])
    for name, size in _tensors(c):
        parts = name.split(".")
        block = f"blk.{parts[2]}." if parts[1] == "layers" else ""
        to = f"{block}{_GGUF[parts[-2]]}.weight"
        if len(size) == 1:
            writer.add_tensor(to, np.ones(size, np.float32))
            continue
        blocks = random.integers(0, 256, (size[0], size[1] // 32, 18), dtype=np.uint8)
        blocks[..., :2] = np.array([0.01], np.float16).view(np.uint8)  # the scale; 16 bytes hold 32 codes
        writer.add_tensor(to, blocks.reshape(size[0], -1), raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        step()
    writer.close()


def _tensors(c: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, inner, d = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, k = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    yield "model.embed_tokens.weight", (c["vocab_size"], width)
    for i in range(c["num_hidden_layers"]):
        block = f"model.layers.{i}."
        yield from ((f"{block}{norm}_layernorm.weight", (width,)) for norm in ("input", "post_attention"))
        yield from ((f"{block}self_attn.{name}_proj.weight", (n, width)) for name, n in (("q", q), ("k", k), ("v", k)))
        yield f"{block}self_attn.o_proj.weight", (width, q)
        yield from ((f"{block}mlp.{name}_proj.weight", (inner, width)) for name in ("gate", "up"))
        yield f"{block}mlp.down_proj.weight", (width, inner)
    yield "model.norm.weight", (width,)


def _in_a_process(path: Path, dtype: str) -> dict[str, float]:
    command = [sys.executable, "-m", "gpt.bench_load", str(path), dtype]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


class _Watch:
    """The most memory that this process has held while it was watched."""

    def __init__(self) -> None:
        self.process, self.over = psutil.Process(), threading.Event()
        self.before = self.peak = self.held()
        self.thread = threading.Thread(target=self.look)

    def held(self) -> tuple[int, int]:
        """Bytes: anonymous, and all that is resident. Only Linux tells them apart."""
        info = self.process.memory_info()
        return info.rss - getattr(info, "shared", 0), info.rss

    def look(self) -> None:
        while not self.over.wait(0.005):
            self.peak = tuple(map(max, self.peak, self.held()))

    def __enter__(self) -> "_Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def _measure(path: str, dtype: str) -> dict[str, float]:
    checkpoint, stored = open_checkpoint(Path(path)), dtype == "stored"
    with _Watch() as watch:
        start = time.perf_counter()
        model = checkpoint.model("cpu", torch.float32 if stored else getattr(torch, dtype), stored)
        seconds = time.perf_counter() - start
    final = sum({t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}.values())
    anonymous, resident = ((peak - before) / final for peak, before in zip(watch.peak, watch.before, strict=True))
    return {"seconds": seconds, "final": final, "anonymous": anonymous, "resident": resident}


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
