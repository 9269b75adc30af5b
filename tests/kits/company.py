"""Plain branches that run beside a kit whose own rows are alone, or may never be parked."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from branch_headers import GROUP

BRANCHES, TOKENS = 3, 48


@contextlib.contextmanager
def company(url: str) -> Iterator[None]:
    """Keep an engine busy with branches of one group.

    Raises:
        urllib.error.HTTPError: one of them was refused.
    """
    ended = threading.Event()
    body = {
        "text": "def company(self):",
        "sampling_params": {"temperature": 0, "max_new_tokens": TOKENS, "ignore_eos": True},
    }
    request = urllib.request.Request(
        f"{url}/generate",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", GROUP: "company"},
    )

    def keep_asking() -> None:
        while not ended.is_set():
            with urllib.request.urlopen(request, timeout=120) as reply:
                reply.read()

    with ThreadPoolExecutor(BRANCHES) as pool:
        asked = [pool.submit(keep_asking) for _ in range(BRANCHES)]
        try:
            yield
        finally:
            ended.set()
    for branch in asked:
        branch.result()
