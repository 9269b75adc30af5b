"""What the EAGLE head is made of: every number that changes its weights, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from governor_bench.tiny_models.recipe import Recipe


@dataclass(frozen=True)
class EagleRecipe:
    """One training run of a draft head for the target of `base`."""

    base: Recipe = field(default_factory=Recipe)
    intermediate_size: int = 512

    steps: int = 160
    batch_rows: int = 2
    """Rows of the base recipe's length in one step."""

    learning_rate: float = 2e-3
    """Peak of AdamW's rate; its course is the base recipe's."""

    feature_weight: float = 5.0
    """Weight of the distance between the head's state and the target's, beside the cross-entropy of
    their tokens. From the second drafted token on, the head reads its own states for the target's.
    """

    unrolled: int = 2
    """Passes a step: each after the first reads the states of the one before it, as drafting does.
    """
