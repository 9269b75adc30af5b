"""What one client asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from governor_workloads.spec import Workload, WorkRequest

from governor_bench.load.prompts import prompt_ids
from sglang_patch.emulated.speculation.fields import encoded


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
    think_s: float = 0.0
    """Pause of a closed loop's user before sending it."""
    abort_after_s: float | None = None
    """Abort the request this long after it was sent."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Further sampling parameters; greedy unless they say otherwise."""
    ignore_eos: bool = True
    luck: dict[str, str] = field(default_factory=dict)
    """What its drafts come to, for an engine that takes it from the client."""
    expected_tokens: int = 0
    """How much it will write, as far as its client says; 0: nothing."""

    @classmethod
    def of(
        cls,
        workload: Workload,
        request: WorkRequest,
        *,
        time_scale: float,
        vocabulary: int,
        sampling: dict[str, Any],
    ) -> RequestSpec:
        """One request of a workload with all its durations stretched by ``time_scale``."""

        def target_ms(target_s: float | None) -> float | None:
            return None if target_s is None else 1e3 * target_s * time_scale

        return cls(
            index=request.index,
            arrival_s=request.arrival_s * time_scale,
            input_ids=tuple(prompt_ids(workload, request, vocabulary)),
            max_new_tokens=request.output_tokens,
            n=request.branches,
            ttft_slo_ms=target_ms(request.ttft_slo_s),
            tpot_slo_ms=target_ms(request.tpot_slo_s),
            think_s=request.think_s * time_scale,
            sampling=sampling,
            luck=_luck(workload, request),
            expected_tokens=request.expected_tokens,
        )

    def body(self, rid: str) -> dict[str, Any]:
        """The JSON body for ``/generate``."""
        custom: dict[str, Any] = dict(self.luck)
        if self.group:
            custom["branch_group"] = self.group
            custom["branch_role"] = self.role or "opportunistic"
        if self.ttft_slo_ms is not None:
            custom["ttft_slo_ms"] = self.ttft_slo_ms
        if self.tpot_slo_ms is not None:
            custom["tpot_slo_ms"] = self.tpot_slo_ms
        if self.expected_tokens:
            custom["expected_tokens"] = self.expected_tokens
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


def _luck(workload: Workload, request: WorkRequest) -> dict[str, str]:
    """As the simulator draws it. Samples of one request share that of the first."""
    if workload.acceptance is None:
        return {}
    tokens = request.output_tokens + 1
    luck = workload.acceptance.luck(workload.seed, request.index, 0, tokens)
    return encoded(luck.choice, luck.level)
