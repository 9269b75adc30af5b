"""The demo's users: chats that want a steady pace, and requests that branch eight ways."""

from __future__ import annotations

import random
from dataclasses import dataclass

from governor_bench.load.spec import RequestSpec

VOCABULARY = 2000


@dataclass(frozen=True, slots=True)
class DemoLoad:
    """A seeded open-loop load. Printed with every result."""

    seconds: float
    chats_per_s: float = 3.0
    chat_tokens: tuple[int, int] = (20, 45)
    bursts_per_s: float = 0.18
    burst_requests: tuple[int, int] = (5, 8)
    """Branching requests that arrive together: agents fan out in bursts."""
    branches: int = 8
    branch_tokens: tuple[int, int] = (24, 56)
    prompt_tokens: tuple[int, int] = (16, 96)

    def describe(self, tpot_slo_ms: float) -> str:
        return (
            f"Poisson chats, {self.chats_per_s:g}/s, {_span(self.chat_tokens)} tokens each; "
            f"Poisson bursts, {self.bursts_per_s:g}/s, of {_span(self.burst_requests)} requests "
            f"with n = {self.branches} and {_span(self.branch_tokens)} tokens a branch; prompts of "
            f"{_span(self.prompt_tokens)} tokens (all uniform); TPOT target {tpot_slo_ms:g} ms"
        )

    def requests(self, seed: int, tpot_slo_ms: float) -> list[RequestSpec]:
        """Arrivals of one turn; equal seeds give equal turns."""
        rng = random.Random(seed)
        specs: list[RequestSpec] = []
        for at_s in _poisson(rng, self.chats_per_s, self.seconds):
            specs.append(self._request(rng, at_s, self.chat_tokens, 1, tpot_slo_ms))
        for at_s in _poisson(rng, self.bursts_per_s, self.seconds):
            for _ in range(rng.randint(*self.burst_requests)):
                specs.append(
                    self._request(rng, at_s, self.branch_tokens, self.branches, tpot_slo_ms)
                )
        specs.sort(key=lambda spec: spec.arrival_s)
        return specs

    def _request(
        self, rng: random.Random, at_s: float, tokens: tuple[int, int], n: int, tpot_slo_ms: float
    ) -> RequestSpec:
        return RequestSpec(
            index=rng.randrange(1 << 30),
            arrival_s=at_s,
            input_ids=tuple(
                rng.randrange(3, VOCABULARY) for _ in range(rng.randint(*self.prompt_tokens))
            ),
            max_new_tokens=rng.randint(*tokens),
            n=n,
            tpot_slo_ms=tpot_slo_ms,
        )


def _poisson(rng: random.Random, per_s: float, seconds: float) -> list[float]:
    arrivals: list[float] = []
    at_s = rng.expovariate(per_s)
    while at_s < seconds:
        arrivals.append(at_s)
        at_s += rng.expovariate(per_s)
    return arrivals


def _span(bounds: tuple[int, int]) -> str:
    return f"{bounds[0]}-{bounds[1]}"
