"""A server that speaks ``/generate`` as SGLang 0.5.17 does, without a model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class FakeServer:
    """What it was asked, and how it is to answer.

    Attributes:
        step_s: time per token of every branch.
        incremental: send new ids only, as with ``--incremental-streaming-output``.
        fault: "" or what goes wrong: "status", "error", "abort", "break", "garbage".
    """

    step_s: float = 0.0
    incremental: bool = False
    fault: str = ""
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    chunks: int = 0
    in_flight: int = 0
    most_in_flight: int = 0

    async def generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.fault == "status":
            return web.Response(status=400, text="tpot_slo_ms must be positive")
        reply = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await reply.prepare(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self._stream(body["sampling_params"], reply)
        finally:
            self.in_flight -= 1
        return reply

    async def _stream(self, params: dict[str, Any], reply: web.StreamResponse) -> None:
        if self.fault in ("error", "garbage"):
            line = '{"error": {"message": "no memory"}}' if self.fault == "error" else "{oh"
            await reply.write(f"data: {line}\n\n".encode())
            return
        total, interval = params["max_new_tokens"], params.get("stream_interval", 1)
        for done in range(1, total + 1):
            await asyncio.sleep(self.step_s)
            if done < total and interval > 1 and done % interval != 1:
                continue
            if self.fault == "break" and done == 2:
                return
            for branch in range(params["n"]):
                await reply.write(self._chunk(branch, done, total))
                self.chunks += 1
        await reply.write(b"data: [DONE]\n\n")

    def _chunk(self, branch: int, done: int, total: int) -> bytes:
        first = done if self.incremental else 1
        finish = {"type": "length", "length": total} if done == total else None
        if finish and self.fault == "abort":
            finish = {"type": "abort", "message": "queue full"}
        meta = {"id": "x", "completion_tokens": done, "finish_reason": finish}
        ids = [1000 * branch + at for at in range(first, done + 1)]
        chunk = {"index": branch, "text": "t" * done, "output_ids": ids, "meta_info": meta}
        return f"data: {json.dumps(chunk)}\n\n".encode()

    async def abort(self, request: web.Request) -> web.Response:
        self.aborted.append((await request.json())["rid"])
        return web.Response()

    async def health(self, request: web.Request) -> web.Response:
        return web.Response()


@contextlib.contextmanager
def serving() -> Iterator[FakeServer]:
    """A fake server on a free port, with an event loop of its own."""
    server = FakeServer()
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/generate", server.generate)
    app.router.add_post("/abort_request", server.abort)
    app.router.add_get("/health", server.health)
    runner = web.AppRunner(app, shutdown_timeout=0.5)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port: int = runner.addresses[0][1]
        return port

    server.url = f"http://127.0.0.1:{loop.run_until_complete(start())}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
