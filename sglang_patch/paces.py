"""How long steps take, believed the worse: for time limits that must not be missed."""

from __future__ import annotations

import math

RECOVERY = 0.05
"""Weight of a step that is faster than what is believed. A slower one is believed at once."""


class StepTimes:
    """Times of steps by their size: the number of rows, or of prompt tokens.

    Sizes count as equal where they have the same number of bits.
    """

    def __init__(self) -> None:
        self._times_s: dict[int, float] = {}

    def add(self, size: int, took_s: float) -> None:
        bits = size.bit_length()
        believed_s = self._times_s.get(bits, 0.0)
        if took_s < believed_s:
            took_s = believed_s + RECOVERY * (took_s - believed_s)
        self._times_s[bits] = took_s

    def of(self, size: int) -> float:
        """Time of a step of this size; infinite before the first step of any size.

        A step that is larger than any before is taken to be longer in proportion, which is the
        most that it can be: a part of the time of every step does not hang on its size.
        """
        known = self._times_s
        if not known:
            return math.inf
        bits = size.bit_length()
        reach = min((one for one in known if one >= bits), default=0)
        if reach:
            return max(took_s for one, took_s in known.items() if one <= reach)
        least = 1 << max(0, max(known) - 1)
        return max(known.values()) * size / least


class Paces:
    """Times of decode steps and of prefill.

    A decode step counts with all that was prefilled since the one before: a row waits for both.
    """

    def __init__(self) -> None:
        self._decode = StepTimes()
        self._prefill = StepTimes()
        self._prefilled_s = 0.0
        """Time of the prefill since the last decode step."""

    def decoded(self, rows: int, took_s: float, *, idle_before: bool) -> None:
        """A step has brought ``rows`` rows on."""
        if idle_before:
            self._prefilled_s = 0.0
        self._decode.add(rows, took_s + self._prefilled_s)
        self._prefilled_s = 0.0

    def prefilled(self, tokens: int, took_s: float) -> None:
        """A step has prefilled so many prompt tokens, and brought no row on."""
        self._prefilled_s += took_s
        self._prefill.add(tokens, took_s)

    def step_s(self, rows: int) -> float:
        """Time of a decode step of so many rows, with the prefill that comes between steps."""
        return self._decode.of(rows)

    def prefill_s(self, tokens: int, chunk_tokens: int) -> float:
        """Time in which the engine prefills so many tokens.

        Args:
            chunk_tokens: tokens of a step at most.
        """
        if tokens <= chunk_tokens:
            return self._prefill.of(tokens)
        return math.ceil(tokens / chunk_tokens) * self._prefill.of(chunk_tokens)
