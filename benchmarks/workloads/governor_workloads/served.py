"""What one request got, as its user sees it: the input of every report."""

from __future__ import annotations

import msgspec


class Served(msgspec.Struct, frozen=True, gc=False):
    """One request's outcome. Times in seconds of the workload's clock after the start of the run.

    A request that was cut off in flight has no error and no last token: it counts as unfinished.
    """

    index: int
    branches: int
    ttft_slo_s: float | None
    tpot_slo_s: float | None
    sent_s: float
    first_token_s: float | None = None
    last_token_s: float | None = None
    output_tokens: int = 0
    """Of all branches."""
    error: str = ""

    @property
    def branching(self) -> bool:
        return self.branches > 1

    @property
    def finished(self) -> bool:
        return not self.error and self.last_token_s is not None

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_token_s is None else self.first_token_s - self.sent_s

    @property
    def tpot_s(self) -> float:
        """(t_last - t_first) / (tokens - 1); 0 for one token. Tokens of all branches count."""
        if self.first_token_s is None or self.last_token_s is None or self.output_tokens < 2:
            return 0.0
        return (self.last_token_s - self.first_token_s) / (self.output_tokens - 1)

    @property
    def meets_targets(self) -> bool:
        """Whether the request finished and met every target that it carries."""
        if not self.finished:
            return False
        if self.ttft_slo_s is not None and (self.ttft_s or 0.0) > self.ttft_slo_s:
            return False
        return self.tpot_slo_s is None or self.tpot_s <= self.tpot_slo_s
