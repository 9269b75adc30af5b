"""How much prefill each output token brings with it.

SGLang prefills in steps of its own, and every running row waits meanwhile. A row that is promised
50 ms per token cannot be given decode steps of 50 ms when 10 ms of prefill come with each. Over a
while, prefill follows output: who finishes makes room for who comes next. So it is counted per
token, and a wider step will bring more of it.
"""

from __future__ import annotations

from governor_protos.messages import StepFeedback, StepKind

HALF_LIFE_STEPS = 128
_FADE = 0.5 ** (1 / HALF_LIFE_STEPS)


class PrefillShare:
    """A fading average over decode steps."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    @property
    def per_token_s(self) -> float:
        """Seconds of prefill per token decoded; 0 before the first decode step."""
        return self._seconds / self._tokens if self._tokens else 0.0

    def add(self, feedback: StepFeedback) -> None:
        if feedback.kind == StepKind.PREFILL:
            self._seconds += feedback.latency_s
        else:
            self._tokens = self._tokens * _FADE + feedback.rows + feedback.accepted_tokens
            self._seconds *= _FADE
