"""Output lengths of one engine: learnt from requests as they end, and from those that run.

Before enough requests have ended, a request is expected to write as much again as it has, and some:
the mean residual life of a Pareto law, which is about how lengths are spread. Then there are the
survival curves of what the engine has shown since it started, and once that is a few hundred
requests, LightGBM's (:mod:`controller_service.learning.hazards`) where they say more. Who runs or
was cut off counts as "at least so long"; without them, the first to end would pass for all, and
they are the short ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from governor_protos.messages import EndReason, RequestEnd

from controller_service.learning.arrays import pack
from controller_service.learning.ends import Lives
from controller_service.learning.hazard_table import HazardTable
from controller_service.learning.lengths import LengthModel, fit_lengths
from controller_service.predictors.base import Floats
from controller_service.service.state import Ints

if TYPE_CHECKING:
    from controller_service.service.fits import LengthFits

UNKNOWN_TOKENS = 256.0
"""What a request that nothing is known of is expected to write at first."""
MOST_ENDS = 4096
"""Ended requests that are remembered."""
GROWTH = 1.15
"""Curves are drawn anew when so many times as many requests have ended."""
LEAST_NEW = 8
MOST_NEW = 256
LEAST_FOR_TREES = 250
TREES_GROWTH = 1.5
MOST_NEW_FOR_TREES = 1024
_RUNS = -1


class LengthBook:
    """Remembers how requests ended, and says how much others will write.

    Args:
        fits: where trees are fitted; None: there will be none.
    """

    def __init__(self, fits: LengthFits | None = None) -> None:
        self._fits = fits
        self._fit: Future[bytes] | None = None
        self._trees: HazardTable | None = None
        self._trees_due = LEAST_FOR_TREES
        self._ends: deque[tuple[int, int, int, int]] = deque(maxlen=MOST_ENDS)
        self._seen = self._seen_by_model = 0
        self._model: LengthModel | None = None

    @property
    def model(self) -> LengthModel | HazardTable | None:
        """What predicts now; None: nothing is known yet."""
        return self._trees or self._model

    def ended(self, ends: Sequence[RequestEnd]) -> None:
        """Requests have left the engine."""
        for end in ends:
            if end.output_tokens:
                facts = (end.prompt_tokens, end.output_tokens, end.max_new_tokens, end.reason)
                self._ends.append(facts)
                self._seen += 1

    @property
    def is_due(self) -> bool:
        """Whether :meth:`learn` is worth a call."""
        new = self._seen - self._seen_by_model
        wanted = max(LEAST_NEW, min(MOST_NEW, (GROWTH - 1.0) * self._seen_by_model))
        return new >= wanted

    def learn(self, prompt: Ints, output: Ints, limit: Ints) -> None:
        """Draw the curves anew.

        Args:
            prompt, output, limit: tokens of the requests that have begun and not ended.
        """
        self._seen_by_model = self._seen
        lives = self._lives(prompt, output, limit)
        self._model = fit_lengths(lives) or self._model
        self._grow_trees(lives)

    def remaining(self, prompt: Ints, output: Ints, limit: Ints, quantile: float = 0.0) -> Floats:
        """Tokens that requests are expected to write still; all of shape ``(n,)``.

        Args:
            quantile: such that this share of them writes no more; 0: the mean.
        """
        written, most = output.astype(np.float64), limit.astype(np.float64)
        model = self.model
        if model is None:
            found = np.minimum(UNKNOWN_TOKENS + written, most - written)
        else:
            cells, curves = model.cells(prompt, limit), model.curves
            if quantile:
                found = curves.quantile(cells, written, most, quantile)
            else:
                found = curves.expected(cells, written, most)
        remaining: Floats = np.maximum(found, 1.0)
        return remaining

    def _grow_trees(self, lives: Lives) -> None:
        """Take in trees that have been fitted, and have them fitted again once it is worth it."""
        if self._fit is not None and self._fit.done():
            table, self._fit = self._fit.result(), None
            self._trees = HazardTable.from_bytes(table) if table else None
        if self._fits is None or self._fit is not None or self._seen < self._trees_due:
            return
        self._fit = self._fits.start(pack(msgspec.structs.asdict(lives)))
        if self._fit is not None:
            more = min(MOST_NEW_FOR_TREES, int((TREES_GROWTH - 1.0) * self._seen))
            self._trees_due = self._seen + more

    def _lives(self, prompt: Ints, output: Ints, limit: Ints) -> Lives:
        ends = np.array(self._ends, dtype=np.int64).reshape(-1, 4)
        begun = output > 0
        run = np.stack(
            [prompt[begun], output[begun], limit[begun], np.full(np.count_nonzero(begun), _RUNS)]
        )
        facts = np.concatenate([ends.T, run], axis=1)
        none = np.zeros(facts.shape[1], dtype=np.int64)
        return Lives(facts[0], facts[1], facts[2], facts[3], none, none)


assert _RUNS not in set(EndReason)  # noqa: S101 - a request that runs has not ended by itself
