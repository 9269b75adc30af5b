"""Whoever hangs up, aborts or is retracted leaves nothing behind: no page, no row, no memory.

``make test`` runs these in a reduced size, ``make test-full-size`` as they are meant.
"""

from __future__ import annotations

import os
import random
import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from churned_engine import Footprint, abort, churned_engine, flush, hang_up, load_of
from emulated_requests import begin, generate, metrics, prompt
from governor_bench.processes import workspace
from governor_bench.servers import Controller, EmulatedEngine

from sglang_patch.emulated.tokens import continuation

pytestmark = pytest.mark.engine

FULL = os.environ.get("TEST_FULL_SIZE") == "1"
HANG_UPS = 500 if FULL else 60
ABORTS = 200 if FULL else 16
CROWD = 240 if FULL else 48
READINGS = 30
MOST_GROWTH_PCT = 2.0 if FULL else 10.0
"""A short run is all warm-up: caches fill, and threads of pools start."""
MOST_MORE_FILES = 8
"""Connections of the last few clients are still being closed."""
ENDLESS = 4000
"""Output tokens that nobody gets before the abort, however busy the machine is."""
CLIENT_CLOSED_REQUEST = 499
EVERY_KNOB = "laps_sd+adaptive_chunk+random:0.5"


class Governed(NamedTuple):
    engine: EmulatedEngine
    controller: Controller

    @property
    def url(self) -> str:
        return self.engine.url


@pytest.fixture(scope="module", params=["overlap", "normal"] if FULL else ["overlap"])
def governed(request: pytest.FixtureRequest) -> Iterator[Governed]:
    with (
        workspace() as folder,
        Controller(folder, policy=EVERY_KNOB) as controller,
        churned_engine(folder, overlap=request.param == "overlap") as engine,
    ):
        controller.wait_ready()
        engine.wait_ready()
        yield Governed(engine, controller)
        assert engine.is_running()
        assert controller.is_running()


def assert_nothing_is_left(governed: Governed) -> None:
    flush(governed.url)
    load = load_of(governed.url)
    left = ("num_running_reqs", "num_waiting_reqs", "num_used_tokens")
    assert {name: load[name] for name in left} == dict.fromkeys(left, 0)
    (session,) = governed.controller.status()["engines"]
    assert session["dp_rank"] == 0
    ids = prompt(30)
    assert generate(governed.engine, ids, 20)["output_ids"] == continuation(ids, 20)


def test_clients_that_hang_up_leave_nothing_behind(governed: Governed) -> None:
    """Beside them, others stay and get all that they were promised."""
    rng, footprint = random.Random(3), Footprint(governed.engine, governed.controller)
    before = metrics(governed.engine)
    with ThreadPoolExecutor(4) as quitters, ThreadPoolExecutor(1) as stayer:
        for _ in range(READINGS):
            ids = prompt(rng.randint(5, 200))
            stays = stayer.submit(generate, governed.engine, ids, 60, sampling={"n": 2})
            for gone in [
                quitters.submit(
                    hang_up,
                    governed.url,
                    prompt(rng.randint(3, 300)),
                    rng.randint(100, 400),
                    random.Random(rng.random()),
                )
                for _ in range(-(-HANG_UPS // READINGS))
            ]:
                gone.result()
            expected = [continuation(ids, 60)] * 2
            assert [answer["output_ids"] for answer in stays.result()] == expected
            footprint.read()
    name = "governor_parked_row_steps_total"
    assert metrics(governed.engine)[name] > before.get(name, 0)
    assert_nothing_is_left(governed)
    assert max(footprint.growth().values()) <= MOST_GROWTH_PCT, footprint.growth()
    assert max(footprint.more_files().values()) <= MOST_MORE_FILES, footprint.more_files()


def is_aborted(future: Future[Any]) -> bool:
    """SGLang says so with an answer, or with a status if nothing was written."""
    try:
        answer = future.result()
    except urllib.error.HTTPError as error:
        return error.code == CLIENT_CLOSED_REQUEST
    answers = answer if isinstance(answer, list) else [answer]
    return {one["meta_info"]["finish_reason"]["type"] for one in answers} == {"abort"}


@pytest.mark.parametrize("everybody", [False, True], ids=["by rid", "all"])
def test_after_every_abort_the_cache_can_be_flushed(governed: Governed, everybody: bool) -> None:
    """Samples that are parked, a chat, and a prompt in its middle: a flush succeeds only once
    nobody is left."""
    rng = random.Random(7)
    with ThreadPoolExecutor(3) as pool:
        for number in range(ABORTS // 2):
            rids = [f"{kind}-{everybody}-{number}" for kind in ("branches", "chat", "long")]
            asked: list[tuple[int, dict[str, Any]]] = [
                (20, {"sampling": {"n": 8}}),
                (40, {}),
                (1500, {}),
            ]
            answers = [
                pool.submit(generate, governed.engine, prompt(tokens), ENDLESS, rid=rid, **more)
                for rid, (tokens, more) in zip(rids, asked, strict=True)
            ]
            time.sleep(rng.uniform(0.0, 0.1))
            if everybody:
                while not all(answer.done() for answer in answers):
                    abort(governed.url, everybody=True)
                    time.sleep(0.02)
            else:
                for rid, answer in zip(rids, answers, strict=True):
                    while not answer.done():
                        abort(governed.url, rid)
                        time.sleep(0.02)
            assert all(is_aborted(answer) for answer in answers)
            flush(governed.url)
    assert_nothing_is_left(governed)


def test_a_crowd_that_is_retracted_parked_and_held_gets_every_token(governed: Governed) -> None:
    """More than there is memory for, with targets that can be met only if others give way."""
    rng, name = random.Random(11), "governor_retracted_rows_total"
    before = metrics(governed.engine)
    work: list[tuple[list[int], int, dict[str, Any]]] = []
    for number in range(CROWD):
        is_long = number % 12 < 4
        tokens = rng.randint(300, 600) if is_long else rng.randint(3, 40)
        targets = {} if is_long else {"ttft_slo_ms": 200, "tpot_slo_ms": 20}
        sampling = {"n": rng.choice((1, 2, 4)) if is_long else 1, "custom_params": targets}
        work.append((prompt(rng.choice((3, 60, 400, 900))), tokens, sampling))
    with ThreadPoolExecutor(CROWD) as pool:
        answers = []
        for ids, tokens, sampling in work:
            answers.append(pool.submit(generate, governed.engine, ids, tokens, sampling=sampling))
            time.sleep(rng.uniform(0, 0.03))
        with begin(governed.engine, prompt(50), 500):
            pass  # hangs up while all are there
        for (ids, tokens, _), answer in zip(work, answers, strict=True):
            told = answer.result()
            for one in told if isinstance(told, list) else [told]:
                assert one["output_ids"] == continuation(ids, tokens)
    after = metrics(governed.engine)
    own = "sglang:num_retracted_requests_total"
    ordered = after[name] - before.get(name, 0)
    assert 0 < ordered <= after.get(own, 0) - before.get(own, 0)
    assert_nothing_is_left(governed)
