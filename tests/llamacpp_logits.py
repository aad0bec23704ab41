"""What llama.cpp makes of GGUF files: `python -m tests.llamacpp_logits vocab_size,token,... file ...`.

It prints JSON, a list for each file: the logarithm of every token's probability to come after these tokens. It runs in
a process of its own, because llama.cpp merely loaded slows torch down.
"""

import json
import sys

import xllamacpp


def logprobs(path: str, tokens: list[int], vocab_size: int) -> list[float]:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = path, 64, 1, False
    params.cpuparams.n_threads = 1
    wanted = {"prompt": tokens, "max_tokens": 1, "logprobs": vocab_size, "temperature": 0.0, "cache_prompt": False}
    reply = xllamacpp.Server(params).handle_completions(wanted)
    top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return [entry["logprob"] for entry in sorted(top, key=lambda entry: entry["id"])]


if __name__ == "__main__":
    vocab_size, *tokens = map(int, sys.argv[1].split(","))
    print(json.dumps([logprobs(path, tokens, vocab_size) for path in sys.argv[2:]]))
