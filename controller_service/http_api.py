"""Health, metrics and the small API, over HTTP. Everything it reads, the loop's thread answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

import msgspec
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from controller_service.http_errors import HANDLERS
from controller_service.http_gate import Gate
from controller_service.http_models import BadBody, ModelApi, NotPromoted
from controller_service.http_refused import Refused
from controller_service.http_routes import ApiRoute
from controller_service.observe.metrics import controller_metrics, make_registry
from controller_service.observe.status import (
    controller_status,
    in_words,
    policy_status,
    recent_steps,
)
from controller_service.policies.described import described
from controller_service.policies.registry import policy_kinds
from controller_service.records import STEPS_KEPT
from controller_service.server import Server

MAX_BODY_BYTES = 64 << 10
STALLED_AFTER_S = 5.0
LOOP_ANSWERS_WITHIN_S = 2.0

T = TypeVar("T")


class PolicyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``PUT /v1/policy``."""

    policy: str


def make_app(server: Server, allowed_hosts: list[str], gate: Gate) -> Starlette:
    """
    Args:
        allowed_hosts: values of the Host header that are served, so that no web page can reach a
            loopback API under a name of its own; ``["*"]`` serves all.
        gate: asked before anything is changed.
    """
    api = HttpApi(server, gate)
    routes = [
        Route("/healthz", api.healthz),
        Route("/readyz", api.readyz),
        Route("/metrics", api.metrics),
        ApiRoute("/v1/status", api.status),
        ApiRoute("/v1/steps", api.steps, query=("engine", "last")),
        ApiRoute("/v1/policies", api.policies),
        ApiRoute("/v1/policy", api.policy),
        ApiRoute("/v1/policy", api.set_policy, methods=["PUT"]),
        ApiRoute("/v1/model", api.model),
        ApiRoute("/v1/model", api.promote, methods=["PUT"]),
        ApiRoute("/v1/model/rollback", api.roll_back, methods=["POST"]),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts)
    return Starlette(routes=routes, middleware=[hosts], exception_handlers=HANDLERS)


class HttpApi:
    """The handlers. Plain functions run in a thread pool, so waiting for the loop blocks no one."""

    def __init__(self, server: Server, gate: Gate) -> None:
        self._server = server
        self._gate = gate
        self._models = ModelApi(server.controller, self._on_loop)
        self._registry = make_registry(
            lambda: self._on_loop(lambda: controller_metrics(server.controller))
        )

    def healthz(self, request: Request) -> Response:
        silent_s = time.monotonic() - self._server.last_turn_s
        if silent_s > STALLED_AFTER_S:
            return _json({"status": "stalled", "silent_s": silent_s}, 503)
        return _json({"status": "ok"})

    def readyz(self, request: Request) -> Response:
        # The socket was bound before HTTP was served, so a loop that answers is a ready one.
        self._on_loop(lambda: None)
        return _json({"status": "ready"})

    def metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def status(self, request: Request) -> Response:
        server, now_s = self._server, time.monotonic()
        uptime_s = now_s - server.started_s
        return _json(self._on_loop(lambda: controller_status(server.controller, uptime_s, now_s)))

    def steps(self, request: Request) -> Response:
        engine = request.query_params.get("engine", "")
        last = _count(request.query_params.get("last", "100"))
        steps = self._on_loop(lambda: recent_steps(self._server.controller, engine, last))
        if steps is None:
            raise Refused(404, "engine", f"no engine {engine!r}; /v1/status lists them")
        return _json({"steps": [in_words(one) for one in steps]})

    def policies(self, request: Request) -> Response:
        # Packages' policies are loaded here, which may take a while: not on the loop.
        return _json({"policies": [described(kind) for kind in policy_kinds().values()]})

    def policy(self, request: Request) -> Response:
        return _json(self._on_loop(lambda: policy_status(self._server.controller)))

    async def set_policy(self, request: Request) -> Response:
        body = await self._body_of_a_change(request)
        return await run_in_threadpool(self._switch, body)

    def _switch(self, body: bytes) -> Response:
        try:
            asked = msgspec.json.decode(body, type=PolicyRequest).policy
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(400, "body", f'expected {{"policy": "taper"}}: {error}') from error
        try:
            policy = self._server.controller.read_policy(asked)
        except ValueError as error:
            raise Refused(400, "policy", str(error)) from error
        controller = self._server.controller
        previous, now = self._on_loop(
            lambda: (controller.set_policy(policy), policy_status(controller))
        )
        return _json({**now, "previous": previous.label})

    def model(self, request: Request) -> Response:
        return _json(self._models.show())

    async def promote(self, request: Request) -> Response:
        return await self._ask_models(request, self._models.promote)

    async def roll_back(self, request: Request) -> Response:
        return await self._ask_models(request, self._models.roll_back)

    async def _ask_models(
        self, request: Request, ask: Callable[[bytes], dict[str, Any]]
    ) -> Response:
        body = await self._body_of_a_change(request)
        try:
            return _json(await run_in_threadpool(ask, body))
        except BadBody as error:
            raise Refused(400, "body", str(error)) from error
        except NotPromoted as error:
            raise Refused(error.status, error.field, str(error), error.reason) from error

    async def _body_of_a_change(self, request: Request) -> bytes:
        self._gate.check(request.headers.get("authorization", ""))
        return await _body(request)

    def _on_loop(self, function: Callable[[], T]) -> T:
        future = self._server.calls.submit(function)
        try:
            return future.result(timeout=LOOP_ANSWERS_WITHIN_S)
        except FutureTimeout as error:
            future.cancel()
            raise Refused(503, "controller", "the controller's loop does not answer") from error


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Refused(413, "body", f"larger than {MAX_BODY_BYTES} bytes")
    return body


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < len(text) <= 8 and 1 <= int(text) <= STEPS_KEPT:
        return int(text)
    raise Refused(400, "last", f"expected a whole number from 1 to {STEPS_KEPT}")


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
