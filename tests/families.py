"""A random transformers model of every family, with all that is odd about it: what our own is compared with."""

from collections.abc import Callable

import torch

VOCAB, LENGTH = 83, 40
"""Tokens of the models' vocabulary, and of TOKENS: longer than every window and original context below."""

TOKENS = torch.randint(0, VOCAB, (LENGTH,), generator=torch.Generator().manual_seed(1))

SHAPE = dict(
    vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3, pad_token_id=None, bos_token_id=None,
    eos_token_id=None,
)  # fmt: skip
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)  # fmt: skip
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
LONG = dict(rope_type="longrope", short_factor=[1.0, 1.5, 2.0, 3.0], long_factor=[2.0, 4.0, 6.0, 9.0])

VARIANTS: dict[str, tuple[str, dict]] = {
    "gpt2": ("GPT2", {}),
    "gpt2, exact gelu": ("GPT2", dict(activation_function="gelu", n_inner=40)),
    "gpt2, untied": ("GPT2", dict(tie_word_embeddings=False)),
    "gpt_neox": ("GPTNeoX", dict(rotary_pct=0.5, rope_theta=5000.0)),
    "gpt_neox, one after the other": ("GPTNeoX", dict(use_parallel_residual=False, attention_bias=False)),
    "llama": ("Llama", dict(head_dim=8, rope_theta=5000.0)),
    "llama, biases, tied": ("Llama", dict(attention_bias=True, mlp_bias=True, tie_word_embeddings=True)),
    "llama, llama3": ("Llama", dict(rope_scaling=LLAMA3, hidden_size=64, initializer_range=0.15)),
    "llama, linear": ("Llama", dict(rope_scaling=dict(rope_type="linear", factor=4.0))),
    "llama, dynamic": ("Llama", dict(rope_scaling=dict(rope_type="dynamic", factor=4.0))),
    "llama, yarn": ("Llama", dict(rope_scaling=YARN)),
    "llama, yarn, all keys": (
        "Llama",
        dict(rope_scaling={**YARN, "beta_fast": 4.0, "beta_slow": 0.5, "mscale": 0.7, "mscale_all_dim": 0.4,
                           "truncate": False}, hidden_size=64, initializer_range=0.15),
    ),
    "smollm3": ("SmolLM3", dict(no_rope_layers=[1, 0, 1], tie_word_embeddings=True)),
    "smollm3, windows": ("SmolLM3", dict(no_rope_layers=[1, 0, 1], use_sliding_window=True, sliding_window=7)),
    "mistral": ("Mistral", dict(sliding_window=7)),
    "mistral, no window, wide heads": ("Mistral", dict(sliding_window=None, head_dim=12)),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True)),
    "qwen2, windows": ("Qwen2", dict(use_sliding_window=True, sliding_window=7, max_window_layers=1)),
    "qwen3": ("Qwen3", dict(head_dim=16, attention_bias=True)),
    "qwen3, windows, yarn": (
        "Qwen3",
        dict(head_dim=12, use_sliding_window=True, sliding_window=1, max_window_layers=2, rope_scaling=YARN),
    ),
    "olmo2": ("Olmo2", dict(attention_bias=True)),
    "gemma2": (
        "Gemma2",
        dict(head_dim=12, query_pre_attn_scalar=20, sliding_window=7, attn_logit_softcapping=2.0,
             final_logit_softcapping=3.0),
    ),
    "gemma2, nothing capped": (
        "Gemma2",
        dict(head_dim=12, attn_logit_softcapping=None, final_logit_softcapping=None, attention_bias=True,
             tie_word_embeddings=False, sliding_window=7),
    ),
    "gemma3_text": (
        "Gemma3",
        dict(head_dim=12, query_pre_attn_scalar=20, sliding_window=7, final_logit_softcapping=3.0,
             layer_types=["sliding_attention", "full_attention", "sliding_attention"],
             rope_scaling=dict(rope_type="linear", factor=8.0), rope_local_base_freq=300.0, rope_theta=9000.0),
    ),
    "phi3": ("Phi3", dict(sliding_window=7)),
    "phi3, longrope": ("Phi3", dict(rope_scaling=LONG, original_max_position_embeddings=LENGTH,
                                    max_position_embeddings=100)),
    "phi3, a part of the head": ("Phi3", dict(partial_rotary_factor=0.75, tie_word_embeddings=True)),
}  # fmt: skip
"""What is compared: the name of the transformers classes, and what their configuration has besides SHAPE."""

GPT2_SHAPE = dict(vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=64, initializer_range=0.3)


def made(variant: str, **more: object) -> torch.nn.Module:
    """The random model of one of VARIANTS: float32, eager attention, no weight of a norm or bias left at 1 or 0."""
    import transformers

    name, changes = VARIANTS[variant]
    shape = GPT2_SHAPE if name == "GPT2" else SHAPE
    config_class = getattr(transformers, "Gemma3TextConfig" if name == "Gemma3" else f"{name}Config")
    torch.manual_seed(0)
    model_class: Callable = getattr(transformers, f"{name}LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")
    model = model_class(config_class(**{**shape, **changes, **more}))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.set_attn_implementation("eager")
    return model.eval().requires_grad_(False)


def answers(reference: torch.nn.Module, tokens: torch.Tensor = TOKENS) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (T, V) and all attention patterns (L, H, T, T) of a text by the reference."""
    with torch.inference_mode():
        output = reference(tokens[None], output_attentions=True)
    return output.logits[0], torch.cat(output.attentions)
