"""``governor bench decision``: how long a decision takes over the real wire.

A snapshot is sent to a real controller process and its decision awaited, as an engine would; the
same bytes go to a bare ROUTER that echoes them. The two take turns in blocks within one run, so
that their ratio holds on a noisy machine.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from governor_protos import decode_to_engine, encode
from governor_protos.messages import Decision, Welcome
from rich.progress import Progress

from controller_service.parent import end_with_parent
from controller_service.policies.base import Knob
from controller_service.policies.registry import parse_policy
from governor_bench.made_up import hello_of, snapshot_of
from governor_bench.processes import workspace
from governor_bench.servers import Controller

BLOCK = 50
WARM_UP = 200
REPLY_TIMEOUT_MS = 5000
BACK_TO_BACK = ("--peer-frames-per-s", "1000000", "--peer-mb-per-s", "4096")
"""No engine asks as fast as this does, and the controller would drop what is over its limits."""


class NoReply(RuntimeError):
    """The peer did not answer in time."""


def measure(
    sizes: list[int],
    samples: int,
    policy: str,
    predictor: str,
    pace_s: float,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Round-trip times by number of rows.

    Under a policy that decides how much to draft, the engine speculates: lengths 0 to 10, rows that
    may draft unlike each other, and drafts that are guessed well in some rows and badly in others.
    Under one that decides how much to prefill, 64 requests wait.

    Args:
        pace_s: pause before each question; 0 asks back to back. At the pace of a real engine both
            peers are slower, because their caches and clocks are cold.

    Returns:
        For each size: ``policy``, ``rows``, ``p50_us``, ``p99_us``, ``echo_p50_us``,
        ``echo_p99_us``, ``ratio_p50`` (decision to echo), ``frame_bytes``.
    """
    with (
        workspace() as folder,
        Controller(
            folder, policy=policy, predictor=predictor, arguments=BACK_TO_BACK
        ) as controller,
    ):
        controller.wait_ready()
        echo_endpoint = f"ipc://{folder}/echo.sock"
        echo = multiprocessing.get_context("spawn").Process(
            target=_echo_forever, args=(echo_endpoint,), daemon=True
        )
        echo.start()
        parsed = parse_policy(policy)
        knobs = {knob for knob in Knob if parsed.decides(knob)}
        try:
            return [
                {"policy": policy}
                | _one_size(
                    rows, samples, pace_s, controller.endpoint, echo_endpoint, progress, knobs
                )
                for rows in sizes
            ]
        finally:
            echo.kill()
            echo.join()


def _one_size(
    rows: int,
    samples: int,
    pace_s: float,
    endpoint: str,
    echo_endpoint: str,
    progress: Progress,
    knobs: Set[Knob],
) -> dict[str, Any]:
    task = progress.add_task(f"{rows} rows", total=samples)
    context = zmq.Context()
    engine = _connect(context, endpoint, f"bench-{rows}")
    echo = _connect(context, echo_endpoint, f"echo-{rows}")
    _introduce(engine, f"bench-{rows}", knobs)
    first = 1
    for frame in _frames(first, WARM_UP, rows, knobs):
        _ask(engine, frame, _is_decision)
    first += WARM_UP
    decision_us: list[float] = []
    echo_us: list[float] = []
    frame = b""
    while len(decision_us) < samples:
        # Built beforehand, so that both peers are asked at the same pace.
        frames = _frames(first, BLOCK, rows, knobs)
        first += BLOCK
        for frame in frames:
            time.sleep(pace_s)
            decision_us.append(_ask(engine, frame, _is_decision))
        for frame in frames:
            time.sleep(pace_s)
            echo_us.append(_ask(echo, frame, _is_anything))
        progress.advance(task, BLOCK)
    engine.close()
    echo.close()
    context.term()
    p50, p99 = np.quantile(decision_us, [0.5, 0.99])
    echo_p50, echo_p99 = np.quantile(echo_us, [0.5, 0.99])
    return {
        "rows": rows,
        "p50_us": round(float(p50), 1),
        "p99_us": round(float(p99), 1),
        "echo_p50_us": round(float(echo_p50), 1),
        "echo_p99_us": round(float(echo_p99), 1),
        "ratio_p50": round(float(p50 / echo_p50), 2),
        "frame_bytes": len(frame),
    }


def _connect(context: zmq.Context[Any], endpoint: str, name: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.ROUTING_ID, name.encode())
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(endpoint)
    return socket


def _introduce(engine: zmq.Socket[bytes], name: str, knobs: Set[Knob]) -> None:
    hello = hello_of(name, knobs)
    _ask(engine, encode(hello), lambda reply: isinstance(decode_to_engine(reply), Welcome))


def _frames(first_step: int, count: int, rows: int, knobs: Set[Knob]) -> list[bytes]:
    return [encode(snapshot_of(first_step + number, rows, knobs)) for number in range(count)]


def _is_anything(reply: bytes) -> bool:
    return bool(reply)


def _is_decision(reply: bytes) -> bool:
    return isinstance(decode_to_engine(reply), Decision)


def _ask(socket: zmq.Socket[bytes], frame: bytes, accept: Callable[[bytes], bool]) -> float:
    """Send one frame and wait for its answer; microseconds between the two."""
    start_s = time.perf_counter()
    socket.send(frame)
    if not socket.poll(REPLY_TIMEOUT_MS):
        raise NoReply(f"no answer within {REPLY_TIMEOUT_MS} ms")
    reply = socket.recv()
    taken_s = time.perf_counter() - start_s
    if not accept(reply):
        raise NoReply(f"unexpected answer: {reply[:80]!r}")
    return taken_s * 1e6


def _echo_forever(endpoint: str) -> None:
    end_with_parent()
    socket = zmq.Context().socket(zmq.ROUTER)
    if endpoint.startswith("ipc://"):
        Path(endpoint[6:]).unlink(missing_ok=True)
    socket.bind(endpoint)
    while True:
        socket.send_multipart(socket.recv_multipart())
