"""What the attention was, as files for other programs: the matrix that is shown, or everything that a session kept.

A matrix becomes CSV, JSON or NPZ, with the tokens that its rows and columns stand for and facts that say what was
computed. Everything is one NPZ: queries, keys and values, from which numpy alone derives any pattern (FORMULA), with
the tokens, their records and every head metric. It is written array by array and layer by layer, never held as a
whole; nothing is compressed, because that saves 7% and takes fifteen times as long. No array needs pickle.
"""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt.branch import Branch
from gpt.cache import Reading
from gpt.chat import Span
from gpt.config import GPTConfig
from gpt.heads import METRICS, HeadMetrics
from gpt.interp import Sight, block_scores, blocks_of_rows
from gpt.session import Session
from gpt.tokenizer import Tokenizer

__all__ = ["FORMATS", "FORMULA", "METRIC_DEFINITIONS", "Shown", "Text", "definition", "facts", "text_of",
           "write_everything"]  # fmt: skip

FORMAT, VERSION = "glassbox attention", 2
PATTERN_BYTES = 64 << 20  # what all patterns of a session may take, to be written beside what they are derived from

Values = dict[str, Any]

DEFINITIONS = {
    "weight": "softmax(q k^T * scale) over the keys that the query looks at",
    "rest": "softmax(q k^T * scale) without the first position, each row scaled to sum to 1",
    "score": "q k^T * scale, before the softmax; -inf (null in JSON) where the query does not look",
    "value": "softmax(q k^T * scale) times the norm of the head's output for that key, ||v W_o||",
}
TERMS = {
    "scale": "what q k^T is multiplied by",
    "softcap": "if it is not 0, softcap * tanh(q k^T * scale / softcap) takes the place of q k^T * scale",
    "windows": "(layer): how many positions up to itself a query looks at, 0: all up to itself",
}
"""What every file says of the model's scores, beside q and k."""
MIX_DEFINITIONS = {
    "mean": "the mean of these heads",
    "max": "the largest of these heads, cell by cell",
    "rollout": "attention rollout (Abnar & Zuidema 2020): the product, from layer 0 up to this layer, of (A + I) / 2, "
    "A being the mean pattern of a layer's heads",
}
METRIC_DEFINITIONS = {
    "first": "mean weight on position 0",
    "previous": "mean weight on the position just before the query",
    "self": "mean weight on the query's own position",
    "duplicate": "mean weight on earlier positions with the query's own token, over the rows that have one",
    "induction": "mean weight on positions right after an earlier occurrence of the query's token, over the rows that "
    "have one",
    "user": "mean weight on the last user message, over the rows after it",
    "entropy": "mean entropy of the rows, as a fraction of the largest possible, log(number of keys)",
    "distance": "mean distance in tokens between query and key, weighted by attention",
}
"""What each of METRICS is; row 0 never counts, and a mean over no row is NaN (null in JSON)."""

FORMULA = """
def pattern(file, layer, head):
    "Attention weights (rows, keys) of one head; row 0 is that of position first_query."
    q = file["queries"][layer, head].astype("f4")
    k = file["keys"][layer, head * file["keys"].shape[1] // file["queries"].shape[1]].astype("f4")
    scores = q @ k.T * np.float32(file["scale"])
    if file["softcap"]:
        scores = np.tanh(scores / np.float32(file["softcap"])) * np.float32(file["softcap"])
    ago = int(file["first_query"]) + np.arange(len(q))[:, None] - np.arange(len(k))
    scores[(ago < 0) | (ago >= (file["windows"][layer] or len(k)))] = -np.inf
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)
""".strip()
"""Python that derives any pattern from a file of everything, `file = np.load(path)`."""


@dataclass(frozen=True)
class Text:
    """Tokens by position: ids, what each says alone, and whose it is: a role of chat.ROLES, "template" or "text"."""

    tokens: list[int]
    texts: list[str]
    roles: list[str]


@dataclass(frozen=True)
class Shown:
    """A matrix: values (R, C) float32, row i being query position rows[i], column j key position columns[j].

    Positions are indices into `text`; `metadata` are plain values that say what the values are.
    """

    values: np.ndarray
    rows: range
    columns: range
    text: Text
    metadata: Values


def text_of(branch: Branch, tokenizer: Tokenizer, end: int) -> Text:
    """The first `end` tokens of a branch. A NUL, which neither CSV nor numpy can hold, is written as ⟨00⟩."""
    tokens = branch.tokens[:end]
    texts = [tokenizer.piece(token).replace("\0", "⟨00⟩") for token in tokens]
    spans = (*branch.spans, Span("assistant", branch.reply_start, len(tokens)))
    roles = [span.role for span in spans for _ in range(span.start, min(span.end, end))]
    return Text(tokens, texts, roles)


def facts(model: str, config: GPTConfig) -> Values:
    """What every file says of itself and of the model."""
    names = ("n_layer", "n_head", "n_kv_head", "head_dim")
    shape = {name: getattr(config, name) for name in names} | _terms(config)
    return {"format": FORMAT, "version": VERSION, "model": model, **shape, "terms": TERMS}


def _terms(config: GPTConfig) -> Values:
    """What is in TERMS."""
    windows = [config.window(layer) or 0 for layer in range(config.n_layer)]
    return {"scale": config.score_scale, "softcap": config.softcap, "windows": windows}


def definition(sight: Sight, minus: Sight | None = None) -> str:
    """What a cell of a sight is, in a sentence; of the difference of two, if there is `minus`."""
    if sight.mix == "rollout":
        return MIX_DEFINITIONS["rollout"]
    several = any(len(each.heads) > 1 for each in (sight, minus) if each)
    parts = [DEFINITIONS[sight.what], *([MIX_DEFINITIONS[sight.mix]] if several else [])]
    return "; ".join([*parts, *(["less the same of `minus`, position by position"] if minus else [])])


# ---- what is shown -----------------------------------------------------------------------------------------


def to_csv(shown: Shown) -> bytes:
    """A row a query: its position, its text, then a value a key. The header names keys as "position text"."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    texts = shown.text.texts
    writer.writerow(["query", "text", *(f"{j} {texts[j]}" for j in shown.columns)])
    for i, row in zip(shown.rows, shown.values, strict=True):
        writer.writerow([i, texts[i], *row.astype(str).tolist()])
    return text.getvalue().encode()


def to_json(shown: Shown) -> bytes:
    """{metadata, queries, keys, tokens, texts, roles, values}; values that are not finite are null.

    Numbers are the shortest that give the same float32 again, at most nine digits.
    """
    values = [[_number(value) for value in row.astype(str).tolist()] for row in shown.values]
    positions = {"queries": list(shown.rows), "keys": list(shown.columns)}
    whole = {"metadata": shown.metadata, **positions, **asdict(shown.text), "values": values}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def to_npz(shown: Shown) -> bytes:
    """Arrays `values`, `queries` and `keys` (positions), `tokens`, `texts`, `roles`, and `metadata` as JSON."""
    made = io.BytesIO()
    positions = {"queries": np.array(shown.rows, np.int64), "keys": np.array(shown.columns, np.int64)}
    np.savez(made, values=shown.values, **positions, **_text_arrays(shown.text), metadata=_json(shown.metadata))
    return made.getvalue()


FORMATS: dict[str, Callable[[Shown], bytes]] = {"csv": to_csv, "json": to_json, "npz": to_npz}
"""How a matrix can be written, by the ending of the file's name."""


def _number(digits: str) -> float | None:
    value = float(digits)
    return value if np.isfinite(value) else None


def _text_arrays(text: Text) -> dict[str, np.ndarray]:
    tokens = np.array(text.tokens, np.int64)
    return {"tokens": tokens, "texts": np.array(text.texts, np.str_), "roles": np.array(text.roles, np.str_)}


def _json(values: Values) -> np.ndarray:
    return np.array(json.dumps(values, ensure_ascii=False))


# ---- everything --------------------------------------------------------------------------------------------


def write_everything(path: Path, session: Session, tokenizer: Tokenizer, known: Values) -> None:
    """Write all that was kept of the S positions that the model has read, as an NPZ, to `path`.

    tokens, texts, roles (S,); logprob, rank, entropy (S,) float32, NaN where a token was given; queries (L, H, S -
    first_query, D), keys and values (L, G, S, D) in the cache's own type, bfloat16 as float32; head_<metric> (L, H)
    float32; first_query; scale, softcap, windows (L,), see TERMS; patterns (L, H, S - first_query, S) float16 if they
    fit into 64 MB; metadata, which is JSON: `known` and what the arrays are. The session must stay as it is meanwhile.
    Raises ValueError when nothing was read yet, OSError when the file cannot be written.
    """
    reading = session.cache.reading()
    if not reading.length:
        raise ValueError("there is nothing to export yet: the model has read no token")
    text = text_of(session.current, tokenizer, reading.length)
    patterns = _patterns_shape(reading)
    small = {
        **_text_arrays(text),
        **_record_arrays(session.current, reading.length),
        **{f"head_{name}": metric.numpy() for name, metric in HeadMetrics().update(session).items()},
        "first_query": np.array(reading.first),
        **{name: np.array(value) for name, value in _terms(reading.config).items()},
        "metadata": _json({**known, **_everything_facts(patterns is not None)}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in small.items():
            _add(archive, name, array.shape, array.dtype, [array])
        for name, tensor in zip(("queries", "keys", "values"), reading[:3], strict=True):
            _add(archive, name, tensor.shape, _array(tensor[:0]).dtype, map(_array, tensor))
        if patterns is not None:
            layers = (_layer_patterns(reading, layer) for layer in range(patterns[0]))
            _add(archive, "patterns", patterns, np.dtype(np.float16), layers)


def _add(
    archive: zipfile.ZipFile, name: str, shape: Sequence[int], dtype: np.dtype, pieces: Iterable[np.ndarray]
) -> None:
    """One array of an NPZ, as `np.savez` writes it, of pieces that lie one after another."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_2_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype).tobytes())


def _array(x: Tensor) -> np.ndarray:
    return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy()


def _record_arrays(branch: Branch, end: int) -> dict[str, np.ndarray]:
    names = ("logprob", "rank", "entropy")
    records = branch.records[:end]
    return {n: np.array([np.nan if r is None else getattr(r, n) for r in records], np.float32) for n in names}


def _patterns_shape(reading: Reading) -> tuple[int, ...] | None:
    """The shape of all patterns together; None when they would take more than PATTERN_BYTES in float16."""
    L, H, R, _ = reading.queries.shape
    return (L, H, R, reading.length) if 2 * L * H * R * reading.length <= PATTERN_BYTES else None


@torch.inference_mode()
def _layer_patterns(reading: Reading, layer: int) -> np.ndarray:
    """The patterns (H, R, S) of one layer in float16."""
    H, R = reading.queries.shape[1:3]
    weights = np.zeros((H, R, reading.length), np.float16)
    for start, end in blocks_of_rows(reading.first, reading.length):
        made = block_scores(reading, layer, start, end).softmax(-1)
        weights[:, start - reading.first : end - reading.first, :end] = made.half().cpu().numpy()
    return weights


def _everything_facts(patterns: bool) -> Values:
    arrays = {
        "tokens, texts, roles": "by position; every position here counts from 0",
        "logprob, rank, entropy": "of the model's own distribution that a token was sampled from, in nats, rank 1 the "
        "most probable; NaN where the token was given",
        "queries": "(layer, head, position - first_query, dimension), after the rotation by position",
        "keys, values": "(layer, key/value head, position, dimension); head h uses h * (key/value heads) // (heads)",
        **{f"head_{name}": f"(layer, head): {METRIC_DEFINITIONS[name]}" for name in METRICS},
        **TERMS,
        **({"patterns": "(layer, head, query position - first_query, key position): weights, rounded to float16"}
           if patterns else {}),
    }  # fmt: skip
    return {"arrays": arrays, "definition": DEFINITIONS["weight"], "pattern": FORMULA}
