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

import msgspec
import numpy as np
import zmq
from governor_protos import PROTOCOL_MAJOR, PROTOCOL_MINOR, decode_to_engine, encode
from governor_protos.columns import QUEUE_COLUMNS, ROW_COLUMNS, pack
from governor_protos.messages import (
    Decision,
    Drafting,
    DraftSource,
    Hello,
    Queue,
    Role,
    Rows,
    Snapshot,
    StepFeedback,
    Welcome,
)
from rich.progress import Progress

from controller_service.policies.base import Knob
from controller_service.policies.registry import parse_policy
from governor_bench.processes import workspace
from governor_bench.servers import Controller

BLOCK = 50
WARM_UP = 200
REPLY_TIMEOUT_MS = 5000
BACK_TO_BACK = ("--peer-frames-per-s", "1000000", "--peer-mb-per-s", "4096")
"""No engine asks as fast as this does, and the controller would drop what is over its limits."""
DRAFT_LENGTHS = list(range(11))
WAITING = 64
"""Requests in the queue, under a policy that decides about prefill or about the order."""
PREFILL_TOKEN_S = 1e-4
DRAFTED = 3
"""Draft length of every step that has run."""
STEP_MODEL = (7e-3, 40e-6, 15e-9)
"""T = a + b*rows + c*context in seconds: a 32B model on eight GPUs."""


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
    hello = _hello(name, knobs)
    _ask(engine, encode(hello), lambda reply: isinstance(decode_to_engine(reply), Welcome))


def _hello(name: str, knobs: Set[Knob]) -> Hello:
    actuators = {"branches", *knobs}
    if Knob.ORDER in knobs:
        actuators = actuators - {Knob.ORDER} | {"prefill", "retract"}
    hello = Hello(
        PROTOCOL_MAJOR, PROTOCOL_MINOR, name, "bench", "bench", "bench", "bench", 1, 0, True,
        4096, 1 << 24, 8192, 1, 8192, "", [], sorted(actuators),
    )  # fmt: skip
    if Knob.DRAFTS in knobs:
        hello = msgspec.structs.replace(
            hello,
            speculative_algorithm="EAGLE",
            draft_lengths=DRAFT_LENGTHS,
            drafting=Drafting(
                DraftSource.MODEL,
                most_tokens=DRAFT_LENGTHS[-1],
                is_ragged=True,
                takes_budget=True,
            ),
        )
    return hello


def _frames(first_step: int, count: int, rows: int, knobs: Set[Knob]) -> list[bytes]:
    return [encode(_snapshot(first_step + number, rows, knobs)) for number in range(count)]


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


def _snapshot(step: int, rows: int, knobs: Set[Knob] = frozenset()) -> Snapshot:
    """A batch in which half the rows are extra branches of requests of eight."""
    rng = np.random.default_rng(step)
    context = rng.integers(128, 8192, rows)
    branching = np.arange(rows) < rows // 2
    columns: dict[str, Any] = {
        "request_id": np.arange(1, rows + 1),
        "group_id": np.where(branching, 1 + np.arange(rows) // 8, 0),
        "role": np.where(
            branching,
            np.where(np.arange(rows) % 8 == 0, Role.TRUNK, Role.OPPORTUNISTIC),
            Role.SERIAL,
        ),
        "flags": np.zeros(rows, int),
        "context_tokens": context,
        "output_tokens": context // 4,
        "max_new_tokens": np.full(rows, 1024),
        "priority": np.zeros(rows, int),
        "parked_steps": rng.integers(0, 3, rows),
        "age_s": rng.uniform(1, 20, rows),
        "since_first_token_s": rng.uniform(0.5, 19, rows),
        "since_last_token_s": rng.uniform(0, 0.02, rows),
        "ttft_slo_s": np.full(rows, 1.0),
        "tpot_slo_s": np.full(rows, 0.05),
        "group_output_tokens": np.where(branching, 2 * context, 0),
    }
    length = 0
    gained = np.zeros(rows, dtype=int)
    if Knob.DRAFTS in knobs:
        # Totals since the first step, of rows that stay; from row to row more is accepted.
        length = DRAFTED
        share = DRAFTED * (np.arange(rows) % 17)
        total = step * share // 17
        gained = total - (step - 1) * share // 17
        columns["draft_tokens"] = np.full(rows, DRAFTED * step)
        columns["accepted_tokens"] = total
        columns["output_tokens"] = step + total
    packed = {
        name: pack(code, columns[name].tolist())
        for name, code in ROW_COLUMNS.items()
        if name in columns  # an engine without speculation sends no draft columns
    }
    fixed, per_row, per_token = STEP_MODEL
    ran = int(rng.integers(rows // 2, rows + 1)) if rows > 1 else 1
    tokens = int(context[:ran].sum())
    seconds = fixed + per_row * ran * (1 + length) + per_token * tokens
    feedback = StepFeedback(
        step - 1, 0, ran, tokens, 0, seconds, 0, rows - ran, length * ran,
        int(gained[:ran].sum()), length,
    )  # fmt: skip
    whole = Snapshot(step, Rows(**packed), 1000, 1 << 24, 0, 0, [feedback], 0)
    return _with_queue(whole, rng) if knobs & {Knob.PREFILL, Knob.ORDER} else whole


def _with_queue(snapshot: Snapshot, rng: np.random.Generator) -> Snapshot:
    """Requests of all ages wait; the step before the newest prefilled."""
    prompts = rng.integers(16, 4096, WAITING)
    columns: dict[str, Any] = dict.fromkeys(QUEUE_COLUMNS, np.zeros(WAITING, int))
    columns |= {
        "request_id": np.arange(1 << 20, (1 << 20) + WAITING),
        "missing_tokens": prompts,
        "prompt_tokens": prompts,
        "max_new_tokens": np.full(WAITING, 1024),
        "age_s": rng.uniform(0, 20, WAITING),
        "ttft_slo_s": rng.uniform(1, 30, WAITING),
        "tpot_slo_s": np.full(WAITING, 0.05),
    }
    packed = {name: pack(code, columns[name].tolist()) for name, code in QUEUE_COLUMNS.items()}
    tokens = int(prompts[0])
    seconds = STEP_MODEL[0] + PREFILL_TOKEN_S * tokens
    prefill = StepFeedback(snapshot.for_step - 1, 1, 1, tokens, tokens, seconds, 0, 0)
    return msgspec.structs.replace(
        snapshot, queue=Queue(**packed), feedback=[*snapshot.feedback, prefill]
    )


def _echo_forever(endpoint: str) -> None:
    socket = zmq.Context().socket(zmq.ROUTER)
    if endpoint.startswith("ipc://"):
        Path(endpoint[6:]).unlink(missing_ok=True)
    socket.bind(endpoint)
    while True:
        socket.send_multipart(socket.recv_multipart())
