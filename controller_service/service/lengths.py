"""Output lengths of one engine: learnt from requests as they end, and from those that run.

Before enough requests have ended, a request is expected to write as much again as it has, and some:
the mean residual life of a Pareto law, which is about how lengths are spread. Then there are the
survival curves of what the engine has shown since it started, and once that is a few hundred
requests, LightGBM's (:mod:`controller_service.learning.hazards`) where they say more. Who runs or
was cut off counts as "at least so long"; without them, the first to end would pass for all, and
they are the short ones.

What a client declares of its own request is more than all that, if it is true: whether it is, and
how far off, is learnt as well (:mod:`.hints`). Curves and trees know nothing of it, so that there
is something to hold it against, and to go by where it misleads.
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
from controller_service.learning.ends import Lives, ended_by_itself
from controller_service.learning.hazard_table import HazardTable
from controller_service.learning.lengths import LengthModel, fit_lengths
from controller_service.predictors.base import Floats
from controller_service.service.hints import MEDIAN, HintBook
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
        self._ends: deque[tuple[int, int, int, int, int]] = deque(maxlen=MOST_ENDS)
        self._seen = self._seen_by_model = 0
        self._model: LengthModel | None = None
        self.hints = HintBook()

    @property
    def model(self) -> LengthModel | HazardTable | None:
        """What predicts now; None: nothing is known yet."""
        return self._trees or self._model

    def ended(self, ends: Sequence[RequestEnd]) -> None:
        """Requests have left the engine."""
        for end in ends:
            if end.output_tokens:
                facts = (end.prompt_tokens, end.output_tokens, end.max_new_tokens, end.reason)
                self._ends.append((*facts, end.expected_tokens))
                self._seen += 1

    @property
    def is_due(self) -> bool:
        """Whether :meth:`learn` is worth a call."""
        new = self._seen - self._seen_by_model
        wanted = max(LEAST_NEW, min(MOST_NEW, (GROWTH - 1.0) * self._seen_by_model))
        return new >= wanted

    def learn(self, prompt: Ints, output: Ints, limit: Ints, hint: Ints) -> None:
        """Draw the curves anew.

        Args:
            prompt, output, limit, hint: tokens of the requests that have begun and not ended; a
                hint of 0 is none.
        """
        new, self._seen_by_model = self._seen - self._seen_by_model, self._seen
        lives, hints = self._lives(prompt, output, limit, hint)
        self._learn_hints(lives, hints, new)
        self._model = fit_lengths(lives) or self._model
        self._grow_trees(lives)

    def remaining(
        self, prompt: Ints, output: Ints, limit: Ints, hint: Ints, quantile: float = 0.0
    ) -> Floats:
        """Tokens that requests are expected to write still; all of shape ``(n,)``.

        Args:
            hint: what clients expect in all; 0: they said nothing.
            quantile: such that this share of them writes no more; 0: the mean.
        """
        written, most = output.astype(np.float64), limit.astype(np.float64)
        found = self._without_hints(prompt, limit, written, most, quantile)
        if self.hints.are_trusted:
            said = np.flatnonzero(hint > 0)
            if said.size:
                hints = hint[said].astype(np.float64)
                found[said] = self.hints.remaining(hints, written[said], most[said], quantile)
        remaining: Floats = np.maximum(found, 1.0)
        return remaining

    def _without_hints(
        self, prompt: Ints, limit: Ints, written: Floats, most: Floats, quantile: float
    ) -> Floats:
        model = self.model
        if model is None:
            unknown: Floats = np.minimum(UNKNOWN_TOKENS + written, most - written)
            return unknown
        cells, curves = model.cells(prompt, limit), model.curves
        if quantile:
            return curves.quantile(cells, written, most, quantile)
        return curves.expected(cells, written, most)

    def _learn_hints(self, lives: Lives, hints: Ints, new: int) -> None:
        """Hold hints against what the last ``new`` requests wrote, then learn from all with one."""
        ended = len(self._ends)
        stopped = ended_by_itself(lives)
        output, most = (
            column.astype(np.float64) for column in (lives.output_tokens, lives.max_new_tokens)
        )
        said = hints > 0
        recent = np.flatnonzero(said[max(ended - new, 0) : ended]) + max(ended - new, 0)
        if recent.size:
            prompt, limit = lives.prompt_tokens[recent], lives.max_new_tokens[recent]
            nothing = np.zeros(recent.size)
            without = self._without_hints(prompt, limit, nothing, most[recent], MEDIAN)
            hint = hints[recent].astype(np.float64)
            self.hints.judge(hint, output[recent], most[recent], stopped[recent], without)
        if said.any():
            self.hints.learn(hints[said].astype(np.float64), output[said], stopped[said])

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

    def _lives(self, prompt: Ints, output: Ints, limit: Ints, hint: Ints) -> tuple[Lives, Ints]:
        """Who ended, oldest first, then who runs; and their hints."""
        ends = np.array(self._ends, dtype=np.int64).reshape(-1, 5)
        begun = output > 0
        reason = np.full(np.count_nonzero(begun), _RUNS)
        run = np.stack([prompt[begun], output[begun], limit[begun], reason, hint[begun]])
        facts = np.concatenate([ends.T, run], axis=1)
        none = np.zeros(facts.shape[1], dtype=np.int64)
        return Lives(facts[0], facts[1], facts[2], facts[3], none, none), facts[4]


assert _RUNS not in set(EndReason)  # noqa: S101 - a request that runs has not ended by itself
