"""An attention backend that computes nothing: the emulated model has no attention."""

from __future__ import annotations

from typing import Any

NAME = "governor_emulated"
"""Value of ``--attention-backend``."""


def register() -> None:
    """Make the backend known to SGLang, in this process."""
    from sglang.srt.layers.attention.attention_registry import register_attention_backend
    from sglang.srt.server_args import ATTENTION_BACKEND_CHOICES, add_attention_backend_choices

    if NAME not in ATTENTION_BACKEND_CHOICES:
        add_attention_backend_choices([NAME])
    register_attention_backend(NAME)(_create)


def _create(runner: Any) -> Any:
    from sglang.srt.layers.attention.base_attn_backend import AttentionBackend

    class NoAttention(AttentionBackend):  # type: ignore[misc]
        """Prepares nothing; a model that asks it for attention gets NotImplementedError."""

        def init_forward_metadata(self, forward_batch: Any) -> None:
            """Nothing to prepare."""

    return NoAttention()
