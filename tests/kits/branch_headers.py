"""Requests of clients that know nothing of Governor become branches, by headers of HTTP."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import aiohttp
import httpx
import requests

GROUP, ROLE = "x-governor-branch-group", "x-governor-branch-role"
TRUNK_EVERY = 4


@contextlib.contextmanager
def branches(group: str) -> Iterator[None]:
    """Make each HTTP request that this process sends a branch of ``group``.

    Every fourth is a trunk, so that rows that may be parked run beside rows that never are. Covers
    `requests`, the `post` of `aiohttp`, and `httpx`, on which the clients of OpenAI and Anthropic
    stand. A header that a request has already stays.
    """
    numbers = itertools.count(1)

    def headers() -> dict[str, str]:
        is_trunk = next(numbers) % TRUNK_EVERY == 0
        return {GROUP: group, ROLE: "trunk" if is_trunk else "opportunistic"}

    request, post, send = requests.Session.request, aiohttp.ClientSession.post, httpx.Client.send

    def with_requests(self: requests.Session, method: str, url: str, **more: Any) -> Any:
        more["headers"] = headers() | dict(more.get("headers") or {})
        return request(self, method, url, **more)

    def with_aiohttp(self: aiohttp.ClientSession, url: Any, **more: Any) -> Any:
        more["headers"] = headers() | dict(more.get("headers") or {})
        return post(self, url, **more)

    def with_httpx(self: httpx.Client, message: httpx.Request, **more: Any) -> Any:
        for name, value in headers().items():
            message.headers.setdefault(name, value)
        return send(self, message, **more)

    with (
        patch.object(requests.Session, "request", with_requests),
        patch.object(aiohttp.ClientSession, "post", with_aiohttp),
        patch.object(httpx.Client, "send", with_httpx),
    ):
        yield
