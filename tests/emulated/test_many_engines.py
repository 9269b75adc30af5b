"""Several real engines at one controller: each has a name of its own, or is told that it has not.

``make test`` starts two. ``make test-full-size`` starts four, and two of one name; in ``make test``
the latter are two links (``tests/controller/test_engine_names.py``).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from churned_engine import churned_engine
from emulated_requests import generate, prompt
from governor_bench.engine_metrics import read_counters
from governor_bench.processes import workspace
from governor_bench.servers import Controller, EmulatedEngine

from sglang_patch.emulated.tokens import continuation

pytestmark = pytest.mark.engine

FULL = os.environ.get("TEST_FULL_SIZE") == "1"
ENGINES = 4 if FULL else 2
NAME = "twin"


@pytest.fixture
def folder() -> Iterator[Path]:
    with workspace() as path:
        yield path


@pytest.fixture
def controller(folder: Path) -> Iterator[Controller]:
    with Controller(folder, policy="random:0.5") as started:
        started.wait_ready()
        yield started


@contextlib.contextmanager
def together(folder: Path, count: int, name: str = "") -> Iterator[list[EmulatedEngine]]:
    """Engines that were started at the same time."""
    with contextlib.ExitStack() as stack:
        engines = [
            stack.enter_context(
                churned_engine(folder, overlap=True, name=name, log_name=f"engine-{number}.log")
            )
            for number in range(count)
        ]
        for engine in engines:
            engine.wait_ready()
        yield engines


def until(holds: Callable[[], bool], complaint: str, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, complaint
        time.sleep(0.1)


def serve(engine: EmulatedEngine) -> None:
    """Samples that may be parked, of which every token is right."""
    for tokens in (40, 80):
        ids = prompt(30)
        answers = generate(engine, ids, tokens, sampling={"n": 4})
        assert [answer["output_ids"] for answer in answers] == [continuation(ids, tokens)] * 4


def serve_all(engines: list[EmulatedEngine]) -> None:
    with ThreadPoolExecutor(len(engines)) as pool:
        list(pool.map(serve, engines))


def incarnations(controller: Controller) -> set[str]:
    return {engine["incarnation"] for engine in controller.status()["engines"]}


def test_engines_without_a_name_get_distinct_ones_and_each_is_governed(
    controller: Controller, folder: Path
) -> None:
    with together(folder, ENGINES) as engines:
        until(lambda: len(controller.status()["engines"]) == ENGINES, "an engine is missing")
        serve_all(engines)
        found = controller.status()["engines"]
        assert len({engine["engine_id"] for engine in found}) == ENGINES
        assert all(engine["outcomes"]["applied"] > 0 for engine in found)
        time.sleep(1.5)  # the engines publish their counters twice a second
        for engine in engines:
            assert read_counters(engine.url).parked_row_steps > 0
        assert len(controller.status()["engines"]) == ENGINES
        assert "name_taken" not in controller.log.read_text()


@pytest.mark.skipif(not FULL, reason="make test-full-size runs it")
def test_of_two_engines_of_one_name_the_first_is_governed_until_it_is_gone(
    controller: Controller, folder: Path
) -> None:
    with together(folder, 2, NAME) as engines:
        until(lambda: any(is_refused(engine) for engine in engines), "nobody was refused")
        first = incarnations(controller)
        assert len(first) == 1
        (loser,) = [engine for engine in engines if is_refused(engine)]
        (winner,) = [engine for engine in engines if engine is not loser]
        for _ in range(20):
            serve_all(engines)
            assert incarnations(controller) == first
        time.sleep(1.5)
        assert read_counters(winner.url).outcomes["applied"] > 0
        counted = read_counters(loser.url)
        assert counted.outcomes["applied"] == counted.parked_row_steps == 0
        assert counted.falls["refused"] > 0
        assert f"engine {NAME}-dp0: refused" in controller.log.read_text()
        winner.stop()
        until(lambda: bool(incarnations(controller) - first), "the other did not get the name")
        serve(loser)
        assert len(incarnations(controller)) == 1


def is_refused(engine: EmulatedEngine) -> bool:
    text = engine.log.read_text()
    return "refused by the controller (name_taken)" in text and "GOVERNOR_ENGINE_ID" in text
