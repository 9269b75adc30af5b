"""Malformed frames against a real controller process, over its real socket."""

from __future__ import annotations

import time
import urllib.request
from collections import Counter
from pathlib import Path

import msgspec
import psutil
import zmq
from governor_protos import decode_to_engine, encode
from governor_protos.columns import pack
from governor_protos.limits import MAX_FRAME_BYTES
from governor_protos.messages import Decision, Welcome
from prometheus_client.parser import text_string_to_metric_families
from rich.progress import Progress

from governor_bench.frames.drawing import SeededSource
from governor_bench.frames.judge import To
from governor_bench.frames.mutations import Mutator
from governor_bench.frames.peers import Asked, ask_all_along, hello, snapshot, started
from governor_bench.servers import Controller

UNLIMITED = ("--peer-frames-per-s", "1000000", "--peer-mb-per-s", "4096")
"""All is to be read, and what is over a peer's limits would be dropped unread."""
ATTACKERS = 4
REPLY_TIMEOUT_MS = 60_000
CHUNK = 256
"""Frames that an attacker sends before it looks at what it was told."""
BAD_ROWS_EVERY = 400
METRICS = 16 << 20


class ControllerRun(msgspec.Struct, frozen=True):
    """What a controller made of malformed frames."""

    sent: int
    refused: int
    superseded: int
    """Not answered, as a newer one of the same peer was there already."""
    accepted: int
    crashed: bool
    cut: int
    """Connections that ended at a frame above the limit, which no process reads."""
    throttled: int
    skipped_valid: int
    by_kind: dict[str, int]
    rss_before_mib: float
    rss_after_mib: float
    frames_per_s: float
    healthy: Asked


class ControllerEnded(RuntimeError):
    """The controller's process is gone, or does not answer; holds the end of its log."""


def attack(count: int, warm_up: int, seed: int, folder: Path, progress: Progress) -> ControllerRun:
    """Send ``count`` malformed frames, while a healthy engine asks.

    Args:
        warm_up: frames sent before, after which memory is taken to have its size.

    Raises:
        ControllerEnded: it could not be started.
    """
    mutator = Mutator(SeededSource(seed), To.CONTROLLER)
    kinds: Counter[str] = Counter()
    with Controller(folder, arguments=UNLIMITED) as controller:
        controller.wait_ready()
        before = after = 0.0
        crashed, taken, seconds = False, 0, 0.0
        counters = Counters({}, 0, 0)
        with started(ask_all_along, controller.endpoint) as healthy:
            healthy.wait_until_decided()
            attackers = [_Attacker(controller.endpoint, number) for number in range(ATTACKERS)]
            cut = 0
            try:
                for total, title in ((warm_up, "warming up"), (count, "against a controller")):
                    before = _rss_mib(controller.pid)
                    start_s = time.perf_counter()
                    task = progress.add_task(title, total=total)
                    for sent in range(0, total, CHUNK):
                        attacker = attackers[sent // CHUNK % ATTACKERS]
                        size = min(CHUNK, total - sent)
                        taken += attacker.attack(mutator, size, kinds)
                        progress.advance(task, size)
                    taken += sum(attacker.settle() for attacker in attackers)
                    seconds = time.perf_counter() - start_s
                cut = _cut(controller.endpoint, 1 + count // 20_000)
                after = _rss_mib(controller.pid)
                counters = read_counters(controller.url)
            except (zmq.Again, OSError, psutil.Error):
                crashed = True  # it answers no more
            crashed |= not controller.is_running()
            for attacker in attackers:
                attacker.close()
            healthy.stop()
            asked = healthy.asked()
    sent = sum(kinds.values())
    refused = sum(counters.bad_frames.values())
    missing = 0 if crashed else sent - refused - counters.superseded
    return ControllerRun(
        sent=sent,
        refused=refused,
        superseded=counters.superseded,
        accepted=max(taken, missing),
        crashed=crashed,
        cut=cut,
        throttled=counters.throttled,
        skipped_valid=mutator.skipped,
        by_kind=dict(sorted(kinds.items())),
        rss_before_mib=round(before, 1),
        rss_after_mib=round(after, 1),
        frames_per_s=round(count / seconds, 1) if seconds else 0.0,
        healthy=asked,
    )


class _Attacker:
    """A peer that has introduced itself, so that a frame that passes would be answered."""

    def __init__(self, endpoint: str, number: int) -> None:
        self._name = f"attacker-{number}"
        self._context = zmq.Context()
        self._socket = _dealer(self._context, endpoint, self._name)
        self._step = 0
        self._socket.send(encode(hello(self._name)))
        self._reply()

    def attack(self, mutator: Mutator, count: int, kinds: Counter[str]) -> int:
        """Send ``count`` malformed messages; how many answers say that one was taken."""
        for _ in range(count):
            self._step += 1
            if self._step % BAD_ROWS_EVERY == 0:
                kinds["bad rows"] += 1
                self._socket.send(_bad_rows(self._step))
                continue
            mutant = mutator.next()
            kinds[mutant.kind] += 1
            self._socket.send_multipart(mutant.frames)
        return self._drain()

    def settle(self) -> int:
        """Wait until all that was sent has been read, which it is in order."""
        taken = self._drain()
        self._socket.send(encode(hello(self._name)))
        while not isinstance(reply := self._reply(), Welcome):
            taken += isinstance(reply, Decision)
        return taken

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def _drain(self) -> int:
        taken = 0
        while self._socket.poll(0):
            taken += isinstance(decode_to_engine(self._socket.recv()), Decision | Welcome)
        return taken

    def _reply(self) -> object:
        return decode_to_engine(self._socket.recv())


def _bad_rows(step: int) -> bytes:
    """Within the contract's types, and yet nothing that an engine could mean."""
    asked = snapshot(step)
    rows = asked.rows
    context = pack("i", [-1] * len(rows))
    return encode(
        msgspec.structs.replace(asked, rows=msgspec.structs.replace(rows, context_tokens=context))
    )


def _cut(endpoint: str, times: int) -> int:
    """How many connections of as many end at a frame that is larger than any may be."""
    ended = 0
    for number in range(times):
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = _dealer(context, endpoint, f"oversized-{number}")
        monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        socket.send(bytes(MAX_FRAME_BYTES + 1))
        ended += bool(monitor.poll(REPLY_TIMEOUT_MS))
        socket.disable_monitor()
        monitor.close()
        socket.close()
        context.term()
    return ended


def _dealer(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, name: str) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.ROUTING_ID, name.encode())
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDTIMEO, REPLY_TIMEOUT_MS)
    socket.setsockopt(zmq.RCVTIMEO, REPLY_TIMEOUT_MS)
    socket.connect(endpoint)
    return socket


class Counters(msgspec.Struct, frozen=True):
    """What the controller has counted since its start."""

    bad_frames: dict[str, int]
    superseded: int
    throttled: int


def read_counters(url: str) -> Counters:
    """
    Raises:
        OSError: it does not answer.
    """
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:  # noqa: S310 - our own URL
        text = reply.read(METRICS).decode()
    bad: dict[str, int] = {}
    superseded = throttled = 0
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            if sample.name == "governor_bad_frames_total":
                bad[sample.labels["reason"]] = int(sample.value)
            elif sample.name == "governor_superseded_snapshots_total":
                superseded = int(sample.value)
            elif sample.name == "governor_throttled_frames_total":
                throttled += int(sample.value)
    return Counters(bad, superseded, throttled)


def _rss_mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / (1 << 20)
