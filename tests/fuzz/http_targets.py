"""Requests to the controller's API."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

from fuzz_promises import expect

from controller_service.config import ControllerConfig
from controller_service.controller import Controller
from controller_service.http_api import make_app
from controller_service.http_gate import Gate

REQUESTS_MADE = (
    ("PUT", "/v1/policy"),
    ("PUT", "/v1/model"),
    ("POST", "/v1/model/rollback"),
    ("GET", "/v1/steps"),
    ("GET", "/v1/status"),
)


class _Loop:
    """Calls of the loop, at once."""

    def submit(self, function: Callable):
        return SimpleNamespace(result=lambda timeout: function(), cancel=lambda: None)


@cache
def _app():
    one = Controller(ControllerConfig(policy="taper"))
    server = SimpleNamespace(
        controller=one, calls=_Loop(), last_turn_s=time.monotonic(), started_s=0.0
    )
    return make_app(server, ["*"], Gate(b"", loopback=True))


def http(data: bytes) -> None:
    """A request: the first byte chooses it, the rest is its body or its query."""
    method, path = REQUESTS_MADE[data[0] % len(REQUESTS_MADE)] if data else REQUESTS_MADE[0]
    body = data[1:]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": body[:2000] if method == "GET" else b"",
        "headers": [(b"host", b"localhost")],
        "scheme": "http",
        "server": ("localhost", 80),
        "http_version": "1.1",
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(_app()(scope, receive, send))
    status = sent[0]["status"]
    expect(status in (200, 400, 404, 405, 409, 413), f"status {status}")
    answer = json.loads(b"".join(item.get("body", b"") for item in sent[1:]))
    if status != 200:
        expect(bool(answer["error"]["field"]), "no field is named")
