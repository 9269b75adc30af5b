"""The demo's users: chats that want a steady pace, and agents that sample a prompt many times."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from governor_workloads.served import Served
from governor_workloads.spec import Workload, WorkRequest

PROMPTS_SEED = 7
"""Seeds the text of every prompt. It is the same in all turns: otherwise the agents' context would
not stay in the cache."""
TURN_INDICES = 10_000
"""Indices between two turns. The index seeds a prompt, so no turn finds the chats of another one in
the prefix cache."""
BLOCK_TOKENS = 512


@dataclass(frozen=True, slots=True)
class DemoLoad:
    """A seeded open-loop load. Printed with every result. Times are those of the GPU."""

    chats: int = 25
    """In each turn. They arrive at uniformly random times within ``seconds``."""
    seconds: float = 3.5
    chat_tokens: tuple[int, int] = (30, 50)
    chat_prompt_tokens: tuple[int, int] = (32, 96)
    waves_s: tuple[float, ...] = (0.0, 1.5, 3.0)
    """When agents fan out."""
    wave_requests: int = 3
    """Requests that branch, at uniformly random times within ``wave_s`` of a wave."""
    wave_s: float = 0.3
    branches: int = 20
    branch_tokens: tuple[int, int] = (16, 24)
    context_blocks: int = 20
    """Blocks of 512 tokens that all prompts of agents begin with. They are in the prefix cache."""
    task_tokens: tuple[int, int] = (16, 64)
    """What follows the common context in each of the agents' prompts."""
    promised_ms: float = 50.0
    """Per token, to everybody; what the demo judges by."""
    told_ms: float = 45.0
    """The target that requests carry. A tenth of the promise is kept for what the engine does not
    see: HTTP, the client, and prompts that reach the scheduler one by one on a busy host."""

    @property
    def context_tokens(self) -> int:
        return self.context_blocks * BLOCK_TOKENS

    def describe(self) -> str:
        """Every distribution in words."""
        waves = ", ".join(f"{at:g}" for at in self.waves_s)
        return (
            f"in each turn {self.chats} chats of {_span(self.chat_tokens)} tokens within "
            f"{self.seconds:g} s, prompts of {_span(self.chat_prompt_tokens)} tokens; at {waves} s "
            f"{self.wave_requests} agents each ask for n = {self.branches} samples of "
            f"{_span(self.branch_tokens)} tokens over a cached context of {self.context_tokens} "
            f"tokens and a task of {_span(self.task_tokens)} (all uniform); everybody is promised "
            f"{self.promised_ms:g} ms per token, and requests tell the engine {self.told_ms:g} ms"
        )

    def judged(self, served: Sequence[Served]) -> list[Served]:
        """What was served, held against the promise and not against what the engine was told."""
        promised_s = self.promised_ms / 1e3
        return [msgspec.structs.replace(item, tpot_slo_s=promised_s) for item in served]

    def turn(self, seed: int, number: int, from_s: float = 0.0) -> Workload:
        """One turn of a policy.

        Args:
            seed: of arrivals and lengths. Equal seeds give equal ones.
            number: of the turn, from 1. No two turns share the text of a chat.
            from_s: when the turn begins.
        """
        return self._workload(self._turn(seed, number, from_s))

    def warm_up(self) -> Workload:
        """Fill the prefix cache with the agents' context, then show narrow and wide steps: so the
        predictor has learnt what a step costs before the first turn."""
        return self._workload(self._warm_up())

    def rehearsal(self, seed: int, from_s: float) -> Workload:
        """The warm-up and, from ``from_s`` on, one turn: for the simulator, which starts anew each
        time."""
        return self._workload([*self._warm_up(), *self._turn(seed, 1, from_s)])

    def _turn(self, seed: int, number: int, from_s: float) -> list[WorkRequest]:
        rng = random.Random(seed)
        requests = [
            self._chat(rng, from_s + rng.uniform(0, self.seconds), rng.randint(*self.chat_tokens))
            for _ in range(self.chats)
        ] + [
            self._agent(
                rng, from_s + at_s + rng.uniform(0, self.wave_s), rng.randint(*self.branch_tokens)
            )
            for at_s in self.waves_s
            for _ in range(self.wave_requests)
        ]
        return _numbered(requests, number * TURN_INDICES)

    def _warm_up(self) -> list[WorkRequest]:
        rng = random.Random(0)
        filling_s = 1.6
        requests = [
            WorkRequest(
                index=0,
                arrival_s=0.0,
                prompt_tokens=self.context_tokens + 1,
                output_tokens=1,
                prefix_blocks=self._blocks(),
            )
        ]
        for number in range(self.wave_requests):
            at_s = filling_s + 0.2 * number
            requests.append(self._agent(rng, at_s, 12 + 2 * number))
            requests.append(self._chat(rng, at_s, 30))
        return _numbered(requests, 0)

    def _chat(self, rng: random.Random, at_s: float, tokens: int) -> WorkRequest:
        return WorkRequest(
            index=0,
            arrival_s=at_s,
            prompt_tokens=rng.randint(*self.chat_prompt_tokens),
            output_tokens=tokens,
            tpot_slo_s=self.told_ms / 1e3,
        )

    def _agent(self, rng: random.Random, at_s: float, tokens: int) -> WorkRequest:
        return WorkRequest(
            index=0,
            arrival_s=at_s,
            prompt_tokens=self.context_tokens + rng.randint(*self.task_tokens),
            output_tokens=tokens,
            branches=self.branches,
            tpot_slo_s=self.told_ms / 1e3,
            prefix_blocks=self._blocks(),
        )

    def _blocks(self) -> tuple[int, ...]:
        return tuple(range(self.context_blocks))

    def _workload(self, requests: list[WorkRequest]) -> Workload:
        return Workload(
            name="demo",
            description=self.describe(),
            requests=tuple(requests),
            prefix_block_tokens=BLOCK_TOKENS,
            seed=PROMPTS_SEED,
        )


def _numbered(requests: list[WorkRequest], first: int) -> list[WorkRequest]:
    """The requests in the order of their arrival, with indices from ``first`` on."""
    ordered = sorted(requests, key=lambda request: request.arrival_s)
    return [
        msgspec.structs.replace(request, index=first + at) for at, request in enumerate(ordered)
    ]


def _span(bounds: tuple[int, int]) -> str:
    return f"{bounds[0]}-{bounds[1]}"
