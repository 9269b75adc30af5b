"""What one client asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """One request, as a client sends it."""

    index: int
    arrival_s: float
    """Seconds after the start of the run (open loop)."""
    input_ids: tuple[int, ...]
    max_new_tokens: int
    n: int = 1
    """Parallel samples; above 1 they form a group of branches."""
    group: str = ""
    """Tagged group of sibling requests."""
    role: str = ""
    ttft_slo_ms: float | None = None
    tpot_slo_ms: float | None = None
    abort_after_s: float | None = None
    """Abort the request this long after it was sent."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Further sampling parameters; greedy unless they say otherwise."""
    ignore_eos: bool = True

    @property
    def branching(self) -> bool:
        return self.n > 1 or bool(self.group)

    def body(self, rid: str) -> dict[str, Any]:
        """The JSON body for ``/generate``."""
        custom: dict[str, Any] = {}
        if self.group:
            custom["branch_group"] = self.group
            custom["branch_role"] = self.role or "opportunistic"
        if self.ttft_slo_ms is not None:
            custom["ttft_slo_ms"] = self.ttft_slo_ms
        if self.tpot_slo_ms is not None:
            custom["tpot_slo_ms"] = self.tpot_slo_ms
        sampling = {
            "temperature": 0,
            "max_new_tokens": self.max_new_tokens,
            "ignore_eos": self.ignore_eos,
            "n": self.n,
            **self.sampling,
        }
        if custom:
            sampling["custom_params"] = custom
        return {
            "rid": rid,
            "input_ids": list(self.input_ids),
            "sampling_params": sampling,
            "stream": True,
        }
