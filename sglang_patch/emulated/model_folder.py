"""The model folder that SGLang is started on: a configuration and no weights."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sglang_patch.emulated.tokens import EOS_TOKEN, VOCAB_SIZE

ARCHITECTURE = "EmulatedForCausalLM"
CONTEXT_TOKENS = 65_536
"""Longest context unless ``--context-length`` says otherwise."""


def write_model_folder(folder: Path) -> Path:
    """Write the emulated model's configuration; its KV is 8 bytes a token in float32.

    Args:
        folder: created if it is not there.

    Returns:
        ``folder``, for ``--model-path``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": [ARCHITECTURE],
        "model_type": "qwen3",
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": CONTEXT_TOKENS,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "hidden_size": 1,
        "head_dim": 1,
        "intermediate_size": 1,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": EOS_TOKEN,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    return folder
