"""Whoever hangs up, aborts or is retracted leaves nothing behind: no page, no row, no memory.

``make test`` runs these in a reduced size, ``make test-full-size`` as they are meant.
"""

from __future__ import annotations

import os
import random
import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from churned_engine import (
    CHUNK_TOKENS,
    Footprint,
    abort,
    churned_engine,
    flush,
    hang_up,
    load_of,
)
from cramped_engine import told
from emulated_requests import generate, metrics, prompt
from governor_bench.processes import workspace
from governor_bench.servers import Controller, EmulatedEngine
from governor_protos.columns import unpack
from governor_protos.messages import Decision, Snapshot
from listening_controller import listening

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
RETRACTED = "governor_retracted_rows_total"
CLIENT_CLOSED_REQUEST = 499
EVERY_KNOB = "laps_sd+adaptive_chunk+random:0.5"


class Governed(NamedTuple):
    engine: EmulatedEngine
    controller: Controller

    @property
    def url(self) -> str:
        return self.engine.url


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with workspace() as path:
        yield path


@pytest.fixture(scope="module", params=["overlap", "normal"] if FULL else ["overlap"])
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[EmulatedEngine]:
    with churned_engine(folder, overlap=request.param == "overlap") as started:
        started.wait_ready()
        yield started
        assert started.is_running()


@pytest.fixture
def governed(engine: EmulatedEngine, folder: Path) -> Iterator[Governed]:
    with Controller(folder, policy=EVERY_KNOB) as controller:
        controller.wait_ready()
        yield Governed(engine, controller)
        assert controller.is_running()


def assert_nothing_is_left(engine: EmulatedEngine) -> None:
    flush(engine.url)
    load = load_of(engine.url)
    left = ("num_running_reqs", "num_waiting_reqs", "num_used_tokens")
    assert {name: load[name] for name in left} == dict.fromkeys(left, 0)
    ids = prompt(30)
    assert generate(engine, ids, 20)["output_ids"] == continuation(ids, 20)


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
    assert_nothing_is_left(governed.engine)
    assert len(governed.controller.status()["engines"]) == 1
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
    assert_nothing_is_left(governed.engine)


def at_random(seed: int) -> Callable[[Snapshot], Decision]:
    """Any budget, often none; waiting ones in any order; rows that sit out, rows that give way."""
    rng = random.Random(seed)

    def decide(asked: Snapshot) -> Decision:
        rows = unpack("I", asked.rows.request_id)
        waiting = list(unpack("I", asked.queue.request_id))
        return told(
            asked,
            rng.choice((-1, 0, 0, rng.randint(1, 16), rng.randint(1, CHUNK_TOKENS))),
            rng.sample(waiting, rng.randint(0, len(waiting))),
            park=[row for row in rows if rng.random() < 0.3],
            retract=[row for row in rows if rng.random() < 0.05],
        )

    return decide


def test_a_crowd_that_is_retracted_parked_and_held_gets_every_token(
    engine: EmulatedEngine, folder: Path
) -> None:
    """There is memory for a part of it only; some hang up."""
    rng, ordered, all_of_them = random.Random(11), RETRACTED, "sglang:num_retracted_requests_total"
    before = metrics(engine)
    work = [
        (prompt(rng.choice((3, 60, 400, 900))), rng.choice((20, 60, 300)), rng.choice((1, 1, 4)))
        for _ in range(CROWD)
    ]
    with listening(folder, at_random(5)) as heard, ThreadPoolExecutor(CROWD) as pool:
        heard.wait(lambda it: it.hello is not None, "the engine did not connect")
        answers = []
        for number, (ids, tokens, samples) in enumerate(work):
            answers.append(pool.submit(generate, engine, ids, tokens, sampling={"n": samples}))
            time.sleep(rng.uniform(0, 0.03))
            if number % 8 == 0:
                hang_up(engine.url, prompt(50), 400, rng)
        for (ids, tokens, _), answer in zip(work, answers, strict=True):
            replied = answer.result()
            for one in replied if isinstance(replied, list) else [replied]:
                assert one["output_ids"] == continuation(ids, tokens)
    after = metrics(engine)
    gave_way = after[ordered] - before.get(ordered, 0)
    assert 0 < gave_way <= after[all_of_them] - before.get(all_of_them, 0)
    assert_nothing_is_left(engine)
