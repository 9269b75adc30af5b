"""What came back for one request."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from governor_workloads.served import Served

from governor_bench.load.spec import RequestSpec


@dataclass(slots=True)
class Branch:
    """One output of a request."""

    tokens: int = 0
    output_ids: list[int] = field(default_factory=list)
    """Empty unless the client was asked to keep them."""
    finish_reason: str = ""
    chunk_s: list[float] = field(default_factory=list)
    """When its chunks came; empty unless the client was asked to keep that."""


@dataclass(slots=True)
class RequestResult:
    """What came back for one request. Times in seconds after the start of the run, as measured."""

    spec: RequestSpec
    sent_s: float
    first_token_s: float | None = None
    last_token_s: float | None = None
    branches: list[Branch] = field(default_factory=list)
    error: str = ""
    cut_off: bool = False
    """Whether the client aborted it: when the run ended, or as its spec says."""

    @property
    def output_tokens(self) -> int:
        return sum(branch.tokens for branch in self.branches)

    def pauses_s(self) -> list[float]:
        """Between one chunk of a branch and its next, over all branches."""
        return [
            later - earlier
            for branch in self.branches
            for earlier, later in itertools.pairwise(branch.chunk_s)
        ]

    def served(self, time_scale: float = 1.0) -> Served:
        """The outcome in the workload's clock: what was stretched on the wire is shrunk back.

        A request that was cut off has no last token, so that no report judges it.
        """

        def shrunk(time_s: float | None) -> float | None:
            return None if time_s is None else time_s / time_scale

        def target_s(target_ms: float | None) -> float | None:
            return None if target_ms is None else target_ms / 1e3 / time_scale

        return Served(
            index=self.spec.index,
            branches=self.spec.n,
            ttft_slo_s=target_s(self.spec.ttft_slo_ms),
            tpot_slo_s=target_s(self.spec.tpot_slo_ms),
            sent_s=self.sent_s / time_scale,
            first_token_s=shrunk(self.first_token_s),
            last_token_s=None if self.cut_off else shrunk(self.last_token_s),
            output_tokens=self.output_tokens,
            error="" if self.cut_off else self.error,
        )
