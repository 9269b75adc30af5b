"""``--speculative-algorithm EMULATED``: its name and its other launch arguments."""

from __future__ import annotations

from typing import Any

from governor_protos.limits import MAX_DRAFT_TOKENS

from sglang_patch.emulated import config
from sglang_patch.errors import ConfigurationError

NAME = "EMULATED"
DEFAULT_STEPS = 3


def fill_in(server_args: Any) -> None:
    """Set what follows from ``--speculative-num-steps``.

    Raises:
        ConfigurationError: an argument that does not fit, named.
    """
    steps = server_args.speculative_num_steps
    if steps is None:
        steps = server_args.speculative_num_steps = DEFAULT_STEPS
    lengths(steps)
    for field, only in (
        ("speculative_eagle_topk", 1),
        ("speculative_num_draft_tokens", steps + 1),
    ):
        if getattr(server_args, field) not in (None, only):
            option = "--" + field.replace("_", "-")
            raise ConfigurationError(
                f"{option}: with {steps} steps the emulated engine takes {only}; leave it out"
            )
        setattr(server_args, field, only)
    # As SGLang does for every algorithm: a batch either prefills or verifies.
    server_args.enable_mixed_chunk = False


def lengths(steps: int) -> tuple[int, ...]:
    """Draft lengths of an engine that drafts at most ``steps`` tokens.

    Raises:
        ConfigurationError: ``steps`` is out of range, or the configured lengths do not fit it.
    """
    if not 1 <= steps <= MAX_DRAFT_TOKENS:
        raise ConfigurationError(
            f"--speculative-num-steps {steps}: give 1 to {MAX_DRAFT_TOKENS}, the longest draft"
        )
    return config.load().lengths(steps)
