"""A process that stands for many engines: it asks about their steps on time, and times the answers.

Every engine has a connection and a name of its own, as the controller sees it, and keeps to its own
clock: the next step begins whether or not there was a decision. All connections belong to one
ROUTER socket, so that one thread can follow them without looking at each. Unlike the plugin they
have no circuit breaker: an engine that gets no answer goes on asking.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import select
import time
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import numpy as np
import psutil
import zmq
from governor_protos import decode_to_engine, encode
from governor_protos.messages import Decision, Refusal, Welcome

from controller_service.parent import end_with_parent
from governor_bench.engines.frames import FIRST_STEP, StepFrames
from governor_bench.made_up import hello_of

VARIANTS = 97
"""Different batches; a prime, so that engines do not see the same ones together."""
DRIFT = 0.02
"""Largest relative difference between an engine's step and the nominal one: phases never lock."""
INTRODUCED_WITHIN_S = 20.0
HWM = 1024


class Load(msgspec.Struct, frozen=True):
    """What is asked."""

    endpoints: list[str]
    """Of the controllers; engines are dealt out to them in turn."""
    controller_pids: list[int]
    engines: int
    rows: int
    steps_per_s: float
    seconds: float
    warm_up_s: float
    seed: int


class Answers(msgspec.Struct, frozen=True):
    """What came of it, over the time after the warm-up."""

    asked: int
    answered: int
    on_time: int
    """Answered before the engine's next snapshot left."""
    unusable: int
    """Replies that were no decision."""
    latencies_ms: list[float]
    send_lag_ms: list[float]
    """How much later than due snapshots left: the generator's own lateness."""
    seconds: float
    controller_cpu_s: float
    generator_cpu_s: float
    machine_cpu_s: float
    """Of all processes on the machine."""


class NotIntroduced(RuntimeError):
    """The controller did not welcome all engines."""


def play(load_json: bytes, result: Connection) -> None:
    """Entry point of the process: sends an encoded :class:`Answers`."""
    end_with_parent()
    load = msgspec.json.decode(load_json, type=Load)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        answers = _Engines(load, socket).run()
    result.send_bytes(msgspec.json.encode(answers))


class _Engines:
    def __init__(self, load: Load, socket: zmq.Socket[bytes]) -> None:
        self._load = load
        self._socket = socket
        self._frames = StepFrames(load.rows, VARIANTS)
        self._names = [f"engine-{number:04d}".encode() for number in range(load.engines)]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        rng = np.random.default_rng(load.seed)
        drift = 1.0 + rng.uniform(-DRIFT, DRIFT, load.engines)
        self._period_s = (drift / load.steps_per_s).tolist()
        self._phase_s = (rng.uniform(0, 1, load.engines) * self._period_s).tolist()
        self._steps = [FIRST_STEP] * load.engines
        """Each engine's next step."""
        self._sent_s: list[dict[int, float]] = [{} for _ in self._names]
        """When each step was asked about that has no decision yet."""
        self._from_s = float("inf")
        self._asked = self._on_time = self._unusable = 0
        self._latency_s: list[float] = []
        self._lag_s: list[float] = []

    def run(self) -> Answers:
        self._connect()
        start_s = time.perf_counter()
        self._from_s = start_s + self._load.warm_up_s
        due = [(start_s + phase_s, number) for number, phase_s in enumerate(self._phase_s)]
        heapq.heapify(due)
        self._turn(due, self._from_s)
        before, began_s = self._cpu_s(), time.perf_counter()
        self._turn(due, self._from_s + self._load.seconds)
        after, ended_s = self._cpu_s(), time.perf_counter()
        self._wait(time.perf_counter() + 2 * max(self._period_s))  # for what is on its way
        controller_s, generator_s, machine_s = (b - a for a, b in zip(before, after, strict=True))
        return Answers(
            self._asked,
            len(self._latency_s),
            self._on_time,
            self._unusable,
            [round(1e3 * value, 4) for value in self._latency_s],
            [round(1e3 * value, 4) for value in self._lag_s],
            ended_s - began_s,
            controller_s,
            generator_s,
            machine_s,
        )

    def _connect(self) -> None:
        """Connect and introduce every engine.

        Raises:
            NotIntroduced: not all were welcomed in time.
        """
        socket = self._socket
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, HWM)
        socket.setsockopt(zmq.RCVHWM, HWM)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        for name, endpoint in zip(self._names, itertools.cycle(self._load.endpoints), strict=False):
            # What the peer calls us, and what we call this connection to it.
            socket.setsockopt(zmq.ROUTING_ID, name)
            socket.setsockopt(zmq.CONNECT_ROUTING_ID, name)
            socket.connect(endpoint)
        missing = set(self._names)
        for name in self._names:
            socket.send_multipart((name, encode(hello_of(name.decode()))))
        deadline_s = time.perf_counter() + INTRODUCED_WITHIN_S
        while missing and time.perf_counter() < deadline_s:
            if socket.poll(100):
                name, frame = socket.recv_multipart()
                reply = decode_to_engine(frame)
                if isinstance(reply, Refusal):
                    raise NotIntroduced(f"{name.decode()}: {reply.reason}: {reply.message}")
                if isinstance(reply, Welcome):
                    missing.discard(name)
        if missing:
            raise NotIntroduced(f"{len(missing)} of {len(self._names)} engines had no answer")

    def _turn(self, due: list[tuple[float, int]], until_s: float) -> None:
        """Ask about every step that is due before ``until_s``."""
        while due[0][0] < until_s:
            due_s, number = due[0]
            self._wait(due_s)
            self._ask(number, due_s)
            heapq.heapreplace(due, (due_s + self._period_s[number], number))
        self._wait(until_s)

    def _ask(self, number: int, due_s: float) -> None:
        step = self._steps[number]
        self._steps[number] = step + 1
        frame = self._frames.frame(step, 7 * number)
        now_s = time.perf_counter()
        with contextlib.suppress(zmq.Again):  # its connection is full: it asks in vain
            self._socket.send_multipart((self._names[number], frame), zmq.NOBLOCK)
        if due_s >= self._from_s:
            self._asked += 1
            self._lag_s.append(now_s - due_s)
            self._sent_s[number][step] = now_s

    def _wait(self, until_s: float) -> None:
        """Take answers in until then."""
        while True:
            self._receive()
            left_s = until_s - time.perf_counter()
            if left_s <= 0:
                return
            # ZeroMQ's own timeouts are whole milliseconds.
            select.select([self._socket.fileno()], [], [], left_s)

    def _receive(self) -> None:
        while True:
            try:
                name, frame = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            now_s = time.perf_counter()
            reply = decode_to_engine(frame)
            if not isinstance(reply, Decision):
                self._unusable += 1
                continue
            number = self._numbers[name]
            sent_s = self._sent_s[number].pop(reply.for_step, None)
            if sent_s is not None:
                self._latency_s.append(now_s - sent_s)
                self._on_time += now_s - sent_s < self._period_s[number]

    def _cpu_s(self) -> tuple[float, float, float]:
        """CPU seconds of the controllers and their children, of this process, of the machine."""
        spent = 0.0
        for pid in self._load.controller_pids:
            controller = psutil.Process(pid)
            for process in (controller, *controller.children(recursive=True)):
                spent += sum(process.cpu_times()[:2])
        machine = psutil.cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        total: Any = sum(machine[:8])  # guests are counted among the rest
        return spent, sum(psutil.Process().cpu_times()[:2]), total - idle
