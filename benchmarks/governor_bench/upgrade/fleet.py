"""Users of several engines behind one router that can take an engine out."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from governor_bench.load.client import LoadClient
from governor_bench.load.result import RequestResult
from governor_bench.load.spec import RequestSpec

USERS = 8
DRAIN_S = 60.0


class Fleet:
    """Sends each request to the engine that has the fewest of those that serve.

    Args:
        urls: base URL of each engine, by name.
    """

    def __init__(self, urls: dict[str, str]) -> None:
        self._urls = dict(urls)
        self._busy: Counter[str] = Counter()
        self._turn = threading.Condition()

    def take_out(self, name: str) -> None:
        """Send it nothing more, and wait until it has nothing left to do.

        Raises:
            TimeoutError: it is not done after a minute.
        """
        with self._turn:
            del self._urls[name]
            if not self._turn.wait_for(lambda: not self._busy[name], DRAIN_S):
                raise TimeoutError(f"{name} is not done with its requests after {DRAIN_S:.0f} s")

    def put_in(self, name: str, url: str) -> None:
        with self._turn:
            self._urls[name] = url

    @contextmanager
    def serving(self, specs: Sequence[RequestSpec]) -> Iterator[list[RequestResult]]:
        """Users send the requests over and over for as long as the block runs, then wait for what
        they have sent. Results are in the list when the block is left."""
        results: list[RequestResult] = []
        ended = threading.Event()
        queue = itertools.cycle(specs)

        def user() -> None:
            while not ended.is_set():
                with self._turn:
                    spec = next(queue)
                results.append(self.send(spec))

        users = [threading.Thread(target=user, daemon=True) for _ in range(USERS)]
        for thread in users:
            thread.start()
        try:
            yield results
        finally:
            ended.set()
            for thread in users:
                thread.join()

    def send(self, spec: RequestSpec) -> RequestResult:
        """Send one request now, and wait for its reply."""
        with self._turn:
            name, url = min(self._urls.items(), key=lambda item: self._busy[item[0]])
            self._busy[name] += 1
        try:
            (result,) = LoadClient(url, token_ids=True).run_closed(iter((spec, None)).__next__, 1)
        finally:
            with self._turn:
                self._busy[name] -= 1
                self._turn.notify_all()
        return result
