"""Fixtures: tiny models of three families with random weights, a byte tokenizer with a template, an engine of them."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from gpt.catalog import resolve
from gpt.chat import ChatTemplate
from gpt.checkpoint import open_checkpoint
from gpt.config import GPTConfig
from gpt.engine import Engine
from gpt.model import GPT
from gpt.tokenizer import Tokenizer

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ["<|im_start|>", "<|im_end|>"]


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


def byte_fields() -> dict:
    """GGUF metadata of a tokenizer with two control tokens and one token for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in printable]
    chars = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(hidden)}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [*SPECIALS, *(chars[b] for b in range(256))],
        "tokenizer.ggml.token_type": [3, 3] + [1] * 256,
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }


def random_model(seed: int = 0, **changes: object) -> GPT:
    """A grouped-query model with rotary positions, large enough weights that its attention is not flat."""
    shape = dict(n_layer=3, n_head=4, n_kv_head=2, n_embd=32, head_dim=8, d_mlp=48, block_size=512, vocab_size=258)
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**{**shape, **changes})).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.normal_(0, 0.3)
    return model


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf(byte_fields())


@pytest.fixture(scope="session")
def chat(tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate.from_gguf(byte_fields(), tokenizer)


@pytest.fixture(scope="session")
def engine(tokenizer: Tokenizer, chat: ChatTemplate) -> Engine:
    return Engine(random_model(), tokenizer, chat, "tiny")


@pytest.fixture(scope="session")
def fields() -> dict:
    """GGUF metadata of the default model."""
    return open_checkpoint(resolve("smollm2-135m-instruct")).fields


@pytest.fixture(scope="session")
def smollm(fields: dict) -> Tokenizer:
    """The default model's tokenizer."""
    return Tokenizer.from_gguf(fields)


def loaded(reference, folder):
    """A random transformers model with eager attention, float32, and the same checkpoint loaded by us."""
    for parameter in reference.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    reference.save_pretrained(folder)
    reference.set_attn_implementation("eager")
    return reference.eval().requires_grad_(False), open_checkpoint(folder).model()


def reference_models(vocab_size: int, positions: int) -> dict:
    """family -> a random transformers model."""
    from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return {
        "gpt2": GPT2LMHeadModel(
            GPT2Config(vocab_size=vocab_size, n_positions=positions, n_embd=32, n_layer=3, n_head=4,
                       initializer_range=0.3)
        ),
        "llama": LlamaForCausalLM(
            LlamaConfig(vocab_size=vocab_size, max_position_embeddings=positions, hidden_size=36, num_hidden_layers=3,
                        num_attention_heads=6, num_key_value_heads=2, head_dim=8, intermediate_size=40,
                        rope_theta=5000.0, initializer_range=0.3)
        ),
        "gemma2": Gemma2ForCausalLM(
            Gemma2Config(vocab_size=vocab_size, max_position_embeddings=positions, hidden_size=32, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=2, head_dim=12, intermediate_size=40,
                         query_pre_attn_scalar=20, sliding_window=9, attn_logit_softcapping=3.0, initializer_range=0.3)
        ),
    }  # fmt: skip


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """family -> (transformers model with eager attention, the same checkpoint loaded by us), float32."""
    return {name: loaded(made, tmp_path_factory.mktemp(name)) for name, made in reference_models(101, 64).items()}


@pytest.fixture(scope="session")
def talkers(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, chat: ChatTemplate) -> dict:
    """family -> (transformers model with eager attention, an engine of the same checkpoint), float32."""
    pairs = {name: loaded(made, tmp_path_factory.mktemp(name)) for name, made in reference_models(258, 512).items()}
    return {name: (reference, Engine(ours, tokenizer, chat, name)) for name, (reference, ours) in pairs.items()}
