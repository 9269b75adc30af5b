"""What a predictor is off by at each batch size, beyond a factor that is common to all.

A bias in seconds is kept at each power of two of rows and is linear in between. It is shrunk by how
little was seen, and it is bounded by what the predictor promises a row to cost at least
(:class:`~.base.KnowsRowCost`): where the bias would fall faster than the prediction rises, the two
knots meet half-way, weighted by what was seen. So prediction plus bias never falls as a row is
added, whatever was measured.
"""

from __future__ import annotations

import numpy as np

from controller_service.predictors.base import Floats, V

KNOTS = 12
MOST_ROWS = 1 << (KNOTS - 1)
"""Beyond, the bias stays as it is."""

SHRINK_STEPS = 4.0
"""The bias starts as if this many steps had shown none."""

MEMORY_STEPS = 24.0
"""A step has at least one part in so many of the say in its bias."""

KEPT_SHARE = 0.9
"""A falling bias takes at most this share of what a row costs: a row never becomes free."""

LEAST_CHANGE = 5e-3
"""Relative change of a prediction for which the table is compiled anew."""

LARGEST_SHARE = 0.5
"""The bias takes at most this share off the shortest step."""


BiasState = tuple[tuple[float, ...], tuple[float, ...]]


class RowBias:
    """Seconds to add to a prediction, by rows."""

    def __init__(self) -> None:
        self.least_rows_s: Floats = np.zeros(MOST_ROWS + 1)
        """Cumulated least cost of rows, as the predictor promises it."""
        self.shortest_s = 0.0
        """The prediction for one row without context."""
        self._knots_s = [0.0] * KNOTS
        self._seen = [0.0] * KNOTS
        self._compiled_from = [0.0] * KNOTS
        self._by_rows_s = np.zeros(MOST_ROWS + 1)
        self.compiled = 0
        """How often what :meth:`at` says has changed."""

    def at(self, rows: V) -> V:
        """Seconds, in the shape of ``rows``."""
        if isinstance(rows, np.ndarray):
            return self._by_rows_s.take(rows.astype(np.intp), mode="clip")
        return self._by_rows_s.item(int(rows) if rows < MOST_ROWS else MOST_ROWS)

    def follow(self, rows: int, error_s: float, typical_s: float) -> None:
        """A step of ``rows`` rows took ``error_s`` more than was predicted with this bias.

        Args:
            typical_s: what it took or so: the measure of whether a change is worth telling.
        """
        low, high_share = _knot(rows)
        shares = ((low, 1.0 - high_share), (low + 1, high_share))
        # Both knots move by the same rule whatever their shares; dividing by the sum of squares
        # makes the bias at `rows` move by `gain` of the error.
        length = (1.0 - high_share) ** 2 + high_share**2
        news = False
        for knot, share in shares:
            if not share:
                continue
            self._seen[knot] = seen = min(self._seen[knot] + share, MEMORY_STEPS)
            gain = 1.0 / (seen + SHRINK_STEPS)
            self._knots_s[knot] += gain * share / length * error_s
            moved = abs(self._knots_s[knot] - self._compiled_from[knot])
            news = news or moved > LEAST_CHANGE * typical_s
        if news:
            self._compile()

    def restart(self, rows: Floats, error_s: Floats) -> None:
        """Forget the bias, and learn it from these steps at once.

        Args:
            rows: shape ``(n,)``; ``error_s``: measured less predicted time without bias, likewise.
        """
        nearest = np.rint(np.log2(np.clip(rows, 1.0, MOST_ROWS))).astype(np.intp)
        for knot in range(KNOTS):
            here = error_s[nearest == knot]
            seen = min(float(len(here)), MEMORY_STEPS)
            self._seen[knot] = seen
            self._knots_s[knot] = 0.0
            if seen:
                self._knots_s[knot] = float(np.median(here)) * seen / (seen + SHRINK_STEPS)
        self._compile()

    def state(self) -> BiasState:
        """What :meth:`set_state` goes back to."""
        return tuple(self._knots_s), tuple(self._seen)

    def set_state(self, state: BiasState) -> None:
        """Forget what was followed since ``state`` was taken."""
        self._knots_s, self._seen = list(state[0]), list(state[1])
        self._compile()

    def _compile(self) -> None:
        """The knots that were seen, put in order, as a table over whole rows."""
        self.compiled += 1
        known = [knot for knot in range(KNOTS) if self._seen[knot] > 0]
        if not known:
            self._by_rows_s = np.zeros(MOST_ROWS + 1)
        else:
            self._by_rows_s = self._interpolated(known)
        self._compiled_from = list(self._knots_s)

    def _interpolated(self, known: list[int]) -> Floats:
        at_rows = [1 << knot for knot in known]
        room = KEPT_SHARE * self.least_rows_s
        floor = [float(room[rows]) for rows in at_rows]
        # bias + room must not fall; where it does, neighbours are pooled.
        risen = _never_falling(
            [self._knots_s[knot] + low for knot, low in zip(known, floor, strict=True)],
            [self._seen[knot] for knot in known],
        )
        bias = [value - low for value, low in zip(risen, floor, strict=True)]
        lift = -min(0.0, bias[0] + LARGEST_SHARE * self.shortest_s)
        bias = [value + lift for value in bias]
        for knot, value in zip(known, bias, strict=True):
            self._knots_s[knot] = value  # what cannot be said must not pile up
        table = np.full(MOST_ROWS + 1, bias[0])
        for (first, start), (last, end) in zip(
            zip(at_rows, bias, strict=True), list(zip(at_rows, bias, strict=True))[1:], strict=False
        ):
            table[first : last + 1] = _between(start, end, room[first : last + 1])
        table[at_rows[-1] :] = bias[-1]
        return table


_COUNTED: Floats = np.arange(MOST_ROWS + 1, dtype=np.float64)


def _between(start: float, end: float, room: Floats) -> Floats:
    """From ``start`` to ``end``: evenly where it rises, and where it falls in step with ``room``,
    which grows by at least as much."""
    steps = len(room) - 1
    if end >= start:
        rising: Floats = start + (end - start) / steps * _COUNTED[: steps + 1]
        return rising
    grown = room - room[0]
    falling: Floats = start + (end - start) * grown / grown[-1]
    return falling


def _knot(rows: int) -> tuple[int, float]:
    """The knot at or below ``rows``, and how far it is to the next: 0 to below 1."""
    if rows >= MOST_ROWS:
        return KNOTS - 2, 1.0
    low = max(rows, 1).bit_length() - 1
    return low, rows / (1 << low) - 1.0 if rows else 0.0


def _never_falling(values: list[float], weights: list[float]) -> list[float]:
    """The nearest non-decreasing sequence (weighted least squares, pooling adjacent violators)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, mass, count = pools.pop()
            total = mass + pool[1]
            pool = ((mean * mass + pool[0] * pool[1]) / total, total, count + pool[2])
        pools.append(pool)
    return [mean for mean, _, count in pools for _ in range(count)]
