"""What clients declare of their lengths, taken for what it has been worth."""

from __future__ import annotations

from collections import deque

import numpy as np

from controller_service.columns import Mask
from controller_service.learning.hints import HintModel, fit_hints
from controller_service.predictors.base import Floats

MEDIAN = 0.5
MOST_JUDGED = 256
"""Ended requests by which hints are judged, the newest."""
LEAST_JUDGED = 30
"""Before so many have ended, clients are believed."""


class HintBook:
    """Learns how far off hints are, and whether predictions are better with them than without."""

    def __init__(self) -> None:
        nobody = np.zeros(0)
        self._model = fit_hints(nobody, nobody, np.zeros(0, dtype=np.bool_))
        self._errors: deque[tuple[float, float]] = deque(maxlen=MOST_JUDGED)
        self.are_trusted = True
        """Whether hints have not made predictions worse of late."""

    @property
    def model(self) -> HintModel:
        return self._model

    def remaining(self, hint: Floats, written: Floats, most: Floats, quantile: float) -> Floats:
        """As :meth:`.lengths.LengthBook.remaining`, of requests with a hint."""
        if quantile:
            return self._model.quantile(hint, written, most, quantile)
        return self._model.expected(hint, written, most)

    def judge(
        self, hint: Floats, output: Floats, limit: Floats, stopped: Mask, without: Floats
    ) -> None:
        """Requests have ended that the curves do not know yet. All of shape ``(n,)``.

        Each is judged by its median as it was predicted before its first token: how far off it was
        as a factor. Of a request that was cut off no more is known than that it got so far.

        Args:
            without: the medians of who would not have listened to hints.
        """
        listening = self._model.quantile(hint, np.zeros_like(hint), limit, MEDIAN)
        self._errors.extend(
            zip(
                _off(listening, output, stopped).tolist(),
                _off(without, output, stopped).tolist(),
                strict=True,
            )
        )
        if len(self._errors) >= LEAST_JUDGED:
            with_hints, without_hints = np.array(self._errors).mean(axis=0)
            self.are_trusted = bool(with_hints <= without_hints)

    def learn(self, hint: Floats, output: Floats, stopped: Mask) -> None:
        """Draw the curve anew; see :func:`~controller_service.learning.hints.fit_hints`."""
        self._model = fit_hints(hint, output, stopped)


def _off(predicted: Floats, output: Floats, stopped: Mask) -> Floats:
    """Absolute logarithmic error; of who was cut off, only by how much it is too short already."""
    short = np.log(output / np.maximum(predicted, 1.0))
    off: Floats = np.where(stopped, np.abs(short), np.maximum(short, 0.0))
    return off
