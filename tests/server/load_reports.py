"""What an engine says of its load while branches of a request are parked."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from drafting_controller import Decide, Heard, deciding, decision
from generating import generate, prompts
from governor_bench.processes import get_json
from governor_protos.columns import unpack
from governor_protos.messages import Decision, Snapshot
from prometheus_client.parser import text_string_to_metric_families

BRANCHES = 8
TOKENS = 150


def parks_every_branch() -> Decide:
    """Only the trunk of a request advances, as far as the engine lets it."""

    def decide(snapshot: Snapshot, lengths: tuple[int, ...]) -> Decision:
        return decision(snapshot, park=list(unpack("I", snapshot.rows.request_id)))

    return decide


def running(url: str) -> dict[int, int]:
    """Running requests of each replica, by ``/v1/loads``."""
    loads = get_json(f"{url}/v1/loads")["loads"]
    return {load["dp_rank"]: load["num_running_reqs"] for load in loads}


def running_gauge(url: str) -> float:
    """``sglang:num_running_reqs``, of all replicas."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "sglang:num_running_reqs" and not sample.labels.get("priority")
    )


def while_parked(
    url: str, endpoint: str, observe: Callable[[], None], **request: Any
) -> tuple[Heard, Any]:
    """Observe over and over while the branches of one request are parked, until one has ended.

    Returns:
        What the controller heard, and the answers of the branches.
    """
    with ThreadPoolExecutor(1) as pool:
        with deciding(endpoint, parks_every_branch()) as heard:
            answers: Future[Any] = pool.submit(
                generate,
                url,
                prompts()[0],
                TOKENS,
                sampling={"n": BRANCHES, "ignore_eos": True},
                **request,
            )
            while not answers.done() and not _has_ended(heard):
                observe()
                time.sleep(0.02)
        return heard, answers.result()


def _has_ended(heard: Heard) -> bool:
    """Whether a branch has ended. What ran before is told of as well: SGLang's own first request,
    and the prefill of the prompt before its branches."""
    return any(end.max_new_tokens == TOKENS for end in heard.ended)


def once_full(seen: list[float]) -> list[float]:
    """What was seen from the moment on at which all branches were seen to run."""
    assert BRANCHES in seen, seen
    return seen[seen.index(BRANCHES) :]
