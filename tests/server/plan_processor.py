"""A custom logit processor, as users write them: it reads deep into its parameters.

A module of its own, because the engine under test has to import it.
"""

from __future__ import annotations

from typing import Any

from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor


class ForcePlanned(CustomLogitProcessor):
    """Forces a token that a nested plan names, moved on by the length of the nameless text."""

    def __call__(self, logits: Any, params: list[dict[str, Any]]) -> Any:
        for row, own in enumerate(params):
            logits[row] = float("-inf")
            logits[row, own["plan"]["steps"][0]["token"] + len(own[""])] = 0.0
        return logits
