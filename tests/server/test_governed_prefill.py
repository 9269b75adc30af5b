"""Budgets, holds, orders and overtaking, at random at every step, on real engines: every greedy
token is as without a controller, and nothing is lost or leaked."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from drafting_controller import deciding
from engines import QUIET, STRICT, GovernedEngine, assert_sound_at_idle
from governor_bench.equality.check import compare, run
from governor_bench.processes import workspace
from governor_bench.servers import CpuEngine
from governor_protos.messages import EndReason, StepKind
from prefill_controller import Seen, at_random
from prefill_requests import prefill_requests

pytestmark = pytest.mark.engine

CHUNK_TOKENS = 96
LONGEST = 700
LOOPS = {
    "overlap": (True, ()),
    "mixed": (False, ("--enable-mixed-chunk",)),
    "two_ranks": (False, ("--tp", "2")),
}


@dataclass
class PrefillEngine(GovernedEngine):
    mixes: bool


@pytest.fixture(scope="module", params=LOOPS)
def engine(request: pytest.FixtureRequest, model: Path) -> Iterator[PrefillEngine]:
    """Governed by whoever listens at the socket: nobody unless a test does."""
    overlap, arguments = LOOPS[request.param]
    with (
        workspace() as folder,
        CpuEngine(
            folder,
            model,
            governor={"ENDPOINT": f"ipc://{folder}/controller.sock"},
            overlap=overlap,
            arguments=(*QUIET, *arguments, "--chunked-prefill-size", str(CHUNK_TOKENS)),
            environment=STRICT,
        ) as started,
    ):
        started.wait_ready()
        yield PrefillEngine(started, folder, mixes=request.param == "mixed")
        assert started.is_running()


def flush(url: str) -> None:
    request = urllib.request.Request(f"{url}/flush_cache", method="POST")
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.status == 200


def test_tokens_are_stocks_whatever_is_ordered(engine: PrefillEngine) -> None:
    specs = prefill_requests(48, 11, longest=LONGEST)
    stock = run(engine.url, specs)
    assert_sound_at_idle(engine.url)
    flush(engine.url)
    seen = Seen()
    with deciding(engine.endpoint, at_random(7, seen, chunk=CHUNK_TOKENS)) as heard:
        governed = run(engine.url, specs)
        assert_sound_at_idle(engine.url)
    assert compare(stock, governed) == []
    assert heard.hello is not None
    assert "prefill" in heard.hello.knobs
    assert heard.hello.mixes_chunks == engine.mixes
    assert all(seen.counts[kind] for kind in ("held", "held_started", "overtaken", "cached"))
    kinds = {step.kind for step in heard.feedback}
    assert (StepKind.MIXED in kinds) == engine.mixes
    # Whoever was seen waiting ran, or was told of as aborted.
    lost = seen.waited - seen.ran
    aborted = {end.request_id for end in heard.ended if end.reason == EndReason.ABORTED}
    assert lost <= aborted
