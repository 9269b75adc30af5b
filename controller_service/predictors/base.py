"""The interface of a step-latency predictor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
V = TypeVar("V", float, Floats)
"""Either one step or an array of steps."""


LEAST_LATENCY_S = 1e-6
"""What claims to be faster is an error of a clock, and teaches nothing."""

P90 = 0.9
"""Share of steps that ``predict_p90`` covers."""


class DraftingCost(NamedTuple):
    """What drafting costs beside the step that verifies."""

    step_s: float = 0.0
    """Of each draft step."""
    row_step_s: float = 0.0
    """What each row adds to a draft step."""
    start_s: float = 0.0
    """Of drafting at all."""
    partial_s: float = 0.0
    """Of verifying some of the drafts and not all of them, of an engine of chains."""
    token_s: float = 0.0
    """Of each draft token that is verified, beyond what the predictor takes it to cost; less than 0
    where that is too much."""

    def seconds(self, length: float | V, rows: float | V, draft_tokens: float | V) -> V:
        """Of ``length`` draft steps of a batch of ``rows``; 0 for none.

        Args:
            draft_tokens: how many of them all are verified.
        """
        before: Any = self.before_verifying(length, rows, draft_tokens)
        seconds: V = before + self.token_s * draft_tokens
        return seconds

    def before_verifying(self, length: float | V, rows: float | V, draft_tokens: float | V) -> V:
        """The same without what grows with the tokens that are verified."""
        every: Any = length * rows
        some: Any = (length > 0) * self.start_s + (draft_tokens < every) * self.partial_s
        seconds: V = self.step_s * length + self.row_step_s * every + some
        return seconds


NO_DRAFTING = DraftingCost()


class StepSample(msgspec.Struct, frozen=True, gc=False):
    """One measured step."""

    rows: int
    """Rows that advanced."""
    context_tokens: int
    """KV tokens that they attended to, summed."""
    prefill_tokens: int
    latency_s: float
    """Without what drafting took."""
    draft_tokens: int = 0
    """Draft tokens verified beyond the one token of each row, summed."""
    draft_length: int = 0
    """Draft steps before the verification."""
    drafting: DraftingCost = NO_DRAFTING
    """What they were taken to cost."""

    @property
    def drafting_s(self) -> float:
        return self.drafting.seconds(self.draft_length, self.rows, self.draft_tokens)


class StepLatencyPredictor(Protocol):
    """Predicts the latency of a step from its shape.

    ``predict`` must never fall when a row, a context token, a prefill token or a draft token is
    added: policies rely on the marginal cost of one more being at least zero. It reads no clock;
    callers pass the time.
    """

    @property
    def name(self) -> str: ...

    @property
    def fitted(self) -> bool:
        """Whether ``predict`` means anything yet."""
        ...

    @property
    def version(self) -> int:
        """Grows whenever predictions change."""
        ...

    def predict(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        """Mean latency in seconds.

        Args:
            rows: rows that advance; scalar or shape ``(n,)``.
            context_tokens: their summed context; same shape as ``rows``.
            prefill_tokens: prompt tokens that ride along; scalar or the same shape.
            draft_tokens: draft tokens verified beyond one token a row, summed; likewise.
        """
        ...

    def predict_p90(
        self,
        rows: V,
        context_tokens: V,
        prefill_tokens: float | V = 0.0,
        draft_tokens: float | V = 0.0,
    ) -> V:
        """Latency that nine steps in ten stay below; arguments as for :meth:`predict`."""
        ...

    def observe(self, sample: StepSample) -> None:
        """Remember a measured step. Only steps without prefill teach the cost of a decode."""
        ...

    def refit_due(self, now_s: float) -> bool:
        """Whether :meth:`refit` is worth a call; ``now_s`` is any clock that never goes back."""
        ...

    def refit(self, now_s: float) -> None:
        """Learn from what was observed, within a millisecond or in the background."""
        ...

    def coefficients(self) -> Mapping[str, float]:
        """What was learnt, for people: names carry units. Empty until fitted."""
        ...


@runtime_checkable
class KnowsRowCost(Protocol):
    """A predictor that can promise what rows cost at least."""

    def least_rows_s(self, most_rows: int) -> Floats:
        """Cumulated least cost of rows, shape ``(most_rows + 1,)``, seconds, starting at 0.

        Going from ``m`` to ``n > m`` rows, at whatever context, adds at least entry ``n`` minus
        entry ``m`` to a prediction.
        """
        ...


@runtime_checkable
class FollowsChange(Protocol):
    """A predictor whose memory can be told that the machine has changed."""

    def machine_changed(self, newer_steps: int, factor: float) -> None:
        """Since ``newer_steps`` observed decode steps, steps take ``factor`` times as long."""
        ...


def marginal_s(
    predictor: StepLatencyPredictor, rows: int, context_tokens: int, row_context: Floats
) -> Floats:
    """Added latency of each candidate row alone, on top of a step (TAPER's branch externality).

    Args:
        row_context: context tokens of each candidate, shape ``(n,)``.

    Returns:
        Seconds, shape ``(n,)``.
    """
    with_row = predictor.predict(
        np.full(len(row_context), rows + 1.0), row_context + context_tokens
    )
    return with_row - predictor.predict(float(rows), float(context_tokens))
