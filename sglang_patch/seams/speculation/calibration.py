"""How often a draft is right that says it is right so often.

A draft model says how likely its token is in the text. What is wanted is how likely the target is
to accept it, which under greedy decoding asks only whether the token is the target's first choice,
and is far more often the case than a small model dares to say. So what was said is held against
what came of it.
"""

from __future__ import annotations

from typing import Any

EDGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Bounds of the bins in which chances are kept; closer together where they matter most."""
CENTRES = (0.01, 0.035, 0.075, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.925, 0.965, 0.99)
PRIOR_TESTS = 8.0
"""Tests that a bin's first guess counts as. The guess is the square root of what was said: it is
hopeful, so that what is thought unlikely is verified now and then and shows what it is worth."""
HALF_LIFE_TESTS = 4000.0
"""Tests after which earlier ones count half. A bin that is not tested returns to its guess."""


class Calibration:
    """Of one draft worker. Ranks that see the same results come to the same chances."""

    def __init__(self) -> None:
        import torch

        self._edges = torch.tensor(EDGES)
        self._guess = torch.tensor(CENTRES).sqrt()
        self._right = torch.zeros(len(CENTRES))
        self._tested = torch.zeros(len(CENTRES))

    def chances(self, said: Any) -> Any:
        """Chances of being accepted, given that those before in the chain are.

        Args:
            said: chances by the draft, any shape.
        """
        import torch

        by_bin = (self._right + PRIOR_TESTS * self._guess) / (self._tested + PRIOR_TESTS)
        return by_bin[torch.bucketize(said.cpu(), self._edges)].to(said)

    def learn(self, said: Any, verified: Any, accepted: Any) -> None:
        """Take in what came of a step's chains.

        Args:
            said: (rows, length) chances by the draft, each given the tokens before.
            verified: (rows,) draft tokens of each chain that were verified.
            accepted: (rows,) how many of them were accepted.
        """
        import torch

        place = torch.arange(said.shape[1])
        # The first wrong token ends a chain, and those behind it say nothing.
        tested = place < torch.minimum(accepted + 1, verified).unsqueeze(1)
        right = place < accepted.unsqueeze(1)
        bins = torch.bucketize(said.cpu(), self._edges)[tested]
        fade = 0.5 ** (len(bins) / HALF_LIFE_TESTS)
        size = len(CENTRES)
        self._tested = self._tested * fade + torch.bincount(bins, minlength=size)
        hits = torch.bincount(bins, right[tested].float(), minlength=size)
        self._right = self._right * fade + hits
