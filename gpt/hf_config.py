"""config.json of a Hugging Face checkpoint -> GPTConfig, and back, by the table of families.py.

The way back is checked by going there again, so that nothing is written that means another model.
"""

from gpt.config import GPTConfig, UnsupportedModel
from gpt.families import FAMILIES, Family, Values, check_sizes, need, refuse_unless, unsupported
from gpt.hf_rope import rope_from_hf, rope_to_hf

__all__ = ["config_from_hf", "config_to_hf"]


def config_from_hf(c: Values) -> GPTConfig:
    """Translate the parsed config.json of a Hugging Face checkpoint.

    Raises UnsupportedModel for an architecture or a feature that is not expressed here, ValueError for a missing key
    or an impossible number.
    """
    if c.get("quantization_config"):
        method = c["quantization_config"].get("quant_method", "unknown")
        raise UnsupportedModel(f"its weights are quantised ({method}); use full precision, or a GGUF file")
    if c.get("model_type") == "gemma3":  # a model that also sees: its text part is a model of its own
        text = {"model_type": "gemma3_text", **need(c, "text_config")}
        refuse_unless(text, "final_logit_softcapping", (None,))  # which transformers leaves out where there are eyes
        return config_from_hf(text)
    name = c.get("model_type")
    if name not in FAMILIES:
        raise UnsupportedModel(unsupported(name))
    family = FAMILIES[name]
    for key, allowed in family.only.items():
        refuse_unless(c, key, allowed)
    c = {**family.defaults, **c}
    values = {**family.traits, **_numbers(c, family), **_biases(c, family), "family": name}
    if family.traits.get("position") != "learned":
        values |= rope_from_hf(c, family.ropes, family.theta, family.share, values)
    return GPTConfig(**values | family.more(c))


def _numbers(c: Values, family: Family) -> Values:
    """Our numbers, where a name is enough; what follows from others is filled in."""
    free = {"n_kv_head", "head_dim", "d_mlp"}  # may be absent, or null
    found = {ours: c.get(key) if ours in free else need(c, key) for ours, key in family.keys.items()}
    n_head, n_embd = found["n_head"], found["n_embd"]
    check_sizes(found["n_layer"], n_head, n_embd)
    if found.get("head_dim") is None and n_embd % n_head:
        raise ValueError(f"n_embd ({n_embd}) must be a multiple of n_head ({n_head})")
    derived = {"n_kv_head": n_head, "head_dim": n_embd // n_head}
    if "n_inner" in family.keys.values():
        derived["d_mlp"] = 4 * n_embd
    return found | {ours: value for ours, value in derived.items() if found.get(ours) is None}


def _biases(c: Values, family: Family) -> Values:
    found = {key: bool(c.get(key, default)) for key, default in family.flags.items()}
    attention, mlp = found.get("attention_bias"), found.get("mlp_bias")
    return ({} if attention is None else {"qkv_bias": attention, "out_bias": attention}) | (
        {} if mlp is None else {"mlp_bias": mlp}
    )


def config_to_hf(config: GPTConfig) -> Values:
    """The config.json with which transformers computes what a GPT of this shape does.

    Raises ValueError when its family has no words for it.
    """
    family = FAMILIES[config.family]
    c = {"architectures": [family.architecture], "model_type": config.family}
    c |= {key: getattr(config, ours) for ours, key in family.keys.items()}
    biases = {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}
    c |= {key: biases[key] for key in family.flags}
    if config.position == "rope":
        c |= rope_to_hf(config, family.share is not None)
    c |= family.back(config)
    if config_from_hf(c) != config:
        raise ValueError(
            f"a model of this shape cannot be written as {config.family}: transformers has no words for it"
        )
    return c
