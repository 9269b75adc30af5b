"""Budgets, holds, orders, overtaking and retraction, at random at every step, on real engines.

Every greedy token is as without a controller, and nothing is lost or leaked.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from drafting_controller import deciding
from engines import QUIET, STRICT, GovernedEngine, assert_sound_at_idle
from generating import generate_all, prompts
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
    "two_ranks": (True, ("--tp", "2")),
    "pages": (True, ("--page-size", "16")),
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
    assert {"prefill", "retract"} <= set(heard.hello.knobs)
    assert heard.hello.mixes_chunks == engine.mixes
    kinds_seen = ("held", "held_started", "overtaken", "cached", "retracted")
    assert all(seen.counts[kind] for kind in kinds_seen), seen.counts
    kinds = {step.kind for step in heard.feedback}
    assert (StepKind.MIXED in kinds) == engine.mixes
    # Whoever was seen waiting ran, or was told of as aborted.
    lost = seen.waited - seen.ran
    aborted = {end.request_id for end in heard.ended if end.reason == EndReason.ABORTED}
    assert lost <= aborted


def test_log_probabilities_are_stocks_whoever_is_retracted(engine: PrefillEngine) -> None:
    """Of the prompt as well: those in a batch with a retracted row, and of that row itself."""
    texts = [text[: 40 + 50 * place] for place, text in enumerate(prompts()[:6])]
    asked = {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 2}
    stock = generate_all(engine.url, texts, 40, **asked)
    flush(engine.url)
    with deciding(engine.endpoint, at_random(8, Seen(), chunk=CHUNK_TOKENS)):
        governed = generate_all(engine.url, texts, 40, **asked)
        assert_sound_at_idle(engine.url)
    assert sum(reply["meta_info"]["num_retractions"] for reply in governed) > 0
    for mine, theirs in zip(governed, stock, strict=True):
        assert mine["text"] == theirs["text"]
        assert mine["meta_info"]["finish_reason"] == theirs["meta_info"]["finish_reason"]
        for kind in ("input_token_logprobs", "output_token_logprobs"):
            pairs = zip(mine["meta_info"][kind], theirs["meta_info"][kind], strict=True)
            for (have, token, *_), (want, wanted, *_) in pairs:
                assert token == wanted
                assert have == want or have == pytest.approx(want, abs=1e-3)
        tops = "output_top_logprobs"
        assert len(mine["meta_info"][tops]) == len(theirs["meta_info"][tops])
