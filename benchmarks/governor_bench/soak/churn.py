"""Everybody who comes and goes during a soak. Each is a thread that ends when it is told to."""

from __future__ import annotations

import http.client
import itertools
import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec
import zmq
from governor_protos import encode
from governor_protos.messages import Goodbye

from governor_bench.equality.workload import mixed_requests
from governor_bench.load.client import LoadClient
from governor_bench.made_up import hello_of, snapshot_of
from governor_bench.servers import Controller, EmulatedEngine

ROUND_S = 20.0
REQUESTS_PER_S = 5.0
VISITOR_STEPS = 40
VISITOR_ROWS = 16

POLICIES = (
    "taper_plus",
    "laps_sd+adaptive_chunk+taper_plus+turbospec",
    "off",
    "adaptive_chunk+taper+draft_tree",
    "las",
    "random:0.5",
    "laps_sd+turbospec",
    "eager",
)


class Churn:
    """Users of every kind, users who hang up, engines that pass by, changes of policy, scrapes.

    Args:
        engine: serves the users.
        controller: governs it.
        seed: of the requests and of all pauses.
    """

    def __init__(self, engine: EmulatedEngine, controller: Controller, seed: int) -> None:
        self._engine = engine
        self._controller = controller
        self._seed = seed
        self._ended = threading.Event()
        self.counts: Counter[str] = Counter()
        """What has happened so far, by kind."""
        self.errors: list[str] = []
        """Of requests that nobody aborted."""
        self._actors = [
            threading.Thread(target=self._guarded, args=(actor,), name=actor.__name__, daemon=True)
            for actor in (
                self._users,
                self._quitters,
                self._visitors,
                self._switches,
                self._scrapes,
            )
        ]

    def _guarded(self, actor: Callable[[], None]) -> None:
        try:
            actor()
        except Exception as error:  # noqa: BLE001 - told in the report, which then fails
            self.errors.append(f"{actor.__name__.lstrip('_')} gave up: {error!r}")

    def _users(self) -> None:
        """Samples, groups, aborts in flight, stop tokens: the mix of the equality check, but for
        minimum lengths, which an engine without a tokenizer refuses."""
        for number in itertools.count(self._seed):
            if self._ended.is_set():
                return
            specs = mixed_requests(
                int(ROUND_S * REQUESTS_PER_S), number, penalties=False, spread_s=ROUND_S
            )
            served = [spec for spec in specs if "min_new_tokens" not in spec.sampling]
            for result in LoadClient(self._engine.url).run_open(served):
                self.counts["requests"] += 1
                self.counts["branches"] += result.spec.n
                if result.spec.abort_after_s is not None:
                    self.counts["aborts"] += 1
                elif result.error:
                    self.errors.append(result.error)

    def _quitters(self) -> None:
        """Clients whose connection ends in mid-reply."""
        rng = random.Random(self._seed)
        address = urlsplit(self._engine.url).netloc
        while not self._ended.wait(rng.uniform(0.5, 1.5)):
            connection = http.client.HTTPConnection(address, timeout=60)
            body = {
                "input_ids": [rng.randrange(3, 2000) for _ in range(rng.randrange(8, 200))],
                "sampling_params": {"max_new_tokens": 400, "ignore_eos": True, "n": 2},
                "stream": True,
            }
            connection.request(
                "POST", "/generate", msgspec.json.encode(body), {"content-type": "application/json"}
            )
            time.sleep(rng.uniform(0.0, 0.5))
            connection.close()
            self.counts["hang_ups"] += 1

    def _visitors(self) -> None:
        """Engines that introduce themselves, ask about some steps and leave, half with a word."""
        rng = random.Random(self._seed)
        with zmq.Context() as context:
            for number in itertools.count():
                if self._ended.wait(rng.uniform(0.5, 2.5)):
                    return
                name = f"visitor-{number}"
                with context.socket(zmq.DEALER) as socket:
                    socket.setsockopt(zmq.ROUTING_ID, name.encode())
                    socket.setsockopt(zmq.LINGER, 100)
                    socket.connect(self._controller.endpoint)
                    socket.send(encode(hello_of(name)))
                    for step in range(1, VISITOR_STEPS):
                        socket.send(encode(snapshot_of(step, VISITOR_ROWS)))
                        time.sleep(0.005)
                        while socket.poll(0):
                            socket.recv()
                    if rng.random() < 0.5:
                        socket.send(encode(Goodbye(reason="seen enough")))
                self.counts["visitors"] += 1

    def _switches(self) -> None:
        for policy in itertools.cycle(POLICIES):
            if self._ended.wait(7.0):
                return
            self._controller.set_policy(policy)
            self.counts["policy_switches"] += 1

    def _scrapes(self) -> None:
        urls: Sequence[str] = (
            f"{self._engine.url}/metrics",
            *(
                f"{self._controller.url}/{page}"
                for page in ("metrics", "v1/status", "v1/steps?last=4096", "v1/model")
            ),
        )
        while not self._ended.wait(5.0):
            for url in urls:
                with urllib.request.urlopen(url, timeout=30) as reply:  # noqa: S310 - our own URL
                    reply.read(16 << 20)
                self.counts["scrapes"] += 1

    def __enter__(self) -> Self:
        for thread in self._actors:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        for thread in self._actors:
            thread.join()
