"""What users ask of an engine: requests, and how they arrive."""

from __future__ import annotations

from typing import Literal

import msgspec

from governor_workloads.acceptance import Acceptance


class WorkRequest(msgspec.Struct, frozen=True, gc=False):
    """One request of one user. Times in seconds of the workload's own clock."""

    index: int
    """Position in the workload; also seeds the request's prompt."""
    arrival_s: float
    """When an open-loop user sends it; 0 in a closed loop."""
    prompt_tokens: int
    output_tokens: int
    """Tokens of each branch; all branches of one request have one length."""
    branches: int = 1
    """Parallel branches (``n``); 1 is a serial request."""
    ttft_slo_s: float | None = None
    tpot_slo_s: float | None = None
    priority: int = 0
    think_s: float = 0.0
    """Closed loop: how long the user pauses before sending it."""
    prefix_blocks: tuple[int, ...] = ()
    """Ids of the prompt's leading blocks; equal ids are equal text (Mooncake's ``hash_ids``)."""
    expected_tokens: int = 0
    """What its user says that each branch will write, right or wrong: a hint, at most 2^20. 0:
    nothing."""

    @property
    def total_output_tokens(self) -> int:
        return self.branches * self.output_tokens


class Workload(msgspec.Struct, frozen=True):
    """Requests in the order in which they are sent, and the rule by which they are."""

    name: str
    description: str
    """Every synthetic distribution in words, for the report."""
    requests: tuple[WorkRequest, ...]
    arrivals: Literal["open", "closed"] = "open"
    users: int = 0
    """Closed loop: users, each with one request in flight or thinking."""
    prefix_block_tokens: int = 512
    """Size of a block of ``prefix_blocks``."""
    seed: int = 0
    """Of every draw, and of the prompts' text together with a request's ``index``."""
    acceptance: Acceptance | None = None
    """How often drafts are right, on an engine that speculates; None: nobody knows."""
